"""Read weight files of any format into arrays and plain data, and write them. Needs no PyTorch."""

"""Read weight files of any format into arrays and plain data, and write them. Needs no PyTorch."""

ABOUT = "pixbench"
"""Key of the description in our own files: {"backbone": ..., "pixels": ..., "sha256": of the weights}."""

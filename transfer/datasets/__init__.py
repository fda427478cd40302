"""Data sets below the data root: whether they are there and whole, and what of them can be made on the spot."""

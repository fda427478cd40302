"""Check the data sets below the data root, and make the files that their downloads do not contain."""

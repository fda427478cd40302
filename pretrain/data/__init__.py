"""Turn image files into batches of two views with their crop boxes."""

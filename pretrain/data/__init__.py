"""From image files to batches of two views with their boxes."""

"""Files that hold weights, of any format and backbone: bytes to arrays and plain data, and back. Needs no PyTorch."""

ABOUT = "pixbench"
"""Key under which our writers say what they wrote: {"backbone": ..., "pixels": ..., "sha256": of the weights}."""

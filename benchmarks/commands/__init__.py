"""The commands of `pixbench`, one file each. No other package of the project imports them."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

PIXBENCH = (sys.executable, str(Path(__file__).resolve().with_name("__main__.py")))
"""Command that starts `pixbench` as a separate process.

It uses the path of a file, because `python -m` looks for packages in the current folder first, and that folder may have
other folders called `benchmarks` or `transfer`.
"""
DATA_ROOT = "folder that contains the data sets: imagenet, VOC2007, coco, … (see docs/data.md)"
"""Help text of --data-root, and of --root where it means the same folder."""
CLASSES = (
    "classes of your own: a text file with one name a line, or an annotation file of COCO's format (see docs/data.md)"
)
"""Help text of --classes."""


def finite(text: str) -> float:
    """Return the number that an option gives. It is not nan, which no comparison with a limit would refuse, nor infinite."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value

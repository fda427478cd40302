"""The commands of `pixbench`, one file each. No other package of the project imports them."""

from __future__ import annotations

import sys
from pathlib import Path

PIXBENCH = (sys.executable, str(Path(__file__).resolve().with_name("__main__.py")))
"""Command that starts `pixbench` as a separate process.

It uses the path of a file, because `python -m` looks for packages in the current folder first, and that folder may have
other folders called `benchmarks` or `transfer`.
"""

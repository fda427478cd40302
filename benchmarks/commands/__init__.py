"""The commands of `pixbench`, one file each: the roof of the project, which nothing below imports."""

from __future__ import annotations

import sys
from pathlib import Path

PIXBENCH = (sys.executable, str(Path(__file__).resolve().with_name("__main__.py")))
"""The words that start `pixbench` as a process of its own.

By the name of its file, because `python -m` would look for packages in the current folder first, where other people have
folders called `benchmarks` or `transfer`.
"""

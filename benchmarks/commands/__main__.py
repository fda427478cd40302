"""Run `pixbench` as a separate process (see `benchmarks.commands.PIXBENCH`) or as `python -m benchmarks.commands`."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    if not __package__:  # started by path
        root = str(here.parents[1])
        # the files in this folder are no top-level modules, and this PixBench comes before packages of other folders
        sys.path[:] = [root, *(path for path in sys.path if path not in (root, str(here)))]

    from benchmarks.commands.main import main

    sys.exit(main())

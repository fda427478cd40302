"""Run `pixbench` as a separate process (see `benchmarks.commands.PIXBENCH`) or as `python -m benchmarks.commands`."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    if sys.path[0] == str(here):  # started by path: files in this folder must not be found as top-level modules
        del sys.path[0]
        if str(here.parents[1]) not in sys.path:
            sys.path.append(str(here.parents[1]))

    from benchmarks.commands.main import main

    sys.exit(main())

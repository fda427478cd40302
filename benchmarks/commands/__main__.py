"""`pixbench` as a process of its own, see `benchmarks.commands.PIXBENCH`; also `python -m benchmarks.commands`."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    if sys.path[0] == str(here):  # started by file: files beside this one are no modules to import by their short names
        sys.path[0] = ""  # replaced, not removed, so that what follows keeps its place
        sys.path.remove("")
        if str(here.parents[1]) not in sys.path:
            sys.path.append(str(here.parents[1]))

    from benchmarks.commands.main import main

    sys.exit(main())

"""Pre-train a backbone: `python -m pretrain`. The option `--help` lists the settings."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pixbench.errors import run_command


def main(argv: Sequence[str] | None = None, name: str = "pretrain") -> int:
    """Run the command line ``argv`` (default: `sys.argv`) and return the exit code. Messages begin with ``name``."""
    argv = list(sys.argv[1:] if argv is None else argv)

    def command() -> int:
        from pretrain.config import parse
        from pretrain.engine import train

        return train(parse(argv))

    return run_command(command, name=name, debug="--debug" in argv)


if __name__ == "__main__":
    sys.exit(main())

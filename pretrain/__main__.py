"""Pre-train a backbone: `python -m pretrain`. The option `--help` lists the settings."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pixbench.errors import run_command

if TYPE_CHECKING:
    from pretrain.initial_weights import InitialWeights
    from pretrain.settings import RunConfig


def main(
    argv: Sequence[str] | None = None,
    name: str = "pretrain",
    initial_weights: Callable[[RunConfig], InitialWeights | None] = lambda config: None,
) -> int:
    """Run the command line ``argv`` (default: `sys.argv`) and return the exit code. Messages begin with ``name``.

    ``initial_weights`` reads the weights that the setting ``init_from`` names.
    """
    argv = list(sys.argv[1:] if argv is None else argv)

    def command() -> int:
        from pretrain.config import parse
        from pretrain.engine import train

        config = parse(argv)
        return train(config, initial_weights(config))

    return run_command(command, name=name, debug="--debug" in argv, continues=True)


if __name__ == "__main__":
    sys.exit(main())

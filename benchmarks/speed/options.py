"""What the commands `python -m benchmarks.speed...` have in common."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pixbench.errors import run_command
from pixbench.paths import CONFIGS

if TYPE_CHECKING:
    from pretrain.settings import RunConfig

PIXPRO = ("--config", str(CONFIGS / "pretrain" / "pixpro_100ep.yaml"))
MINI = ("--config", str(CONFIGS / "pretrain" / "mini.yaml"))
SETTINGS = (
    "All other options are those of `pixbench pretrain`; without --config they are those of PixPro at mini scale."
)


def parser(module: str, text: str | None, epilog: str = "") -> argparse.ArgumentParser:
    """Return the parser of `python -m benchmarks.speed.MODULE`, whose docstring is ``text``."""
    return argparse.ArgumentParser(
        prog=f"python -m benchmarks.speed{f'.{module}' if module else ''}",
        description=text,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # what is not an option of the command may be a setting of the run
    )


def positive(text: str) -> int:
    """Read a whole number above 0."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def results(text: str) -> Path:
    """Read the path of a JSON file to which figures will be added, and check it before anything is measured."""
    path = Path(text)
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    try:
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{path} cannot be read as JSON ({error})") from error
    if not isinstance(known, dict):
        raise argparse.ArgumentTypeError(f"{path} does not hold figures of this command")
    return path


def run_settings(words: Sequence[str], out: Path) -> RunConfig:
    """Read the settings of a run from ``words``, options of `pixbench pretrain`; its folder is ``out``.

    Images are loaded without workers, unless ``words`` sets them.
    """
    from pretrain.config import parse  # it imports PyTorch

    own = any(word.partition("=")[0] == "--config" for word in words)
    return parse([*(() if own else (*PIXPRO, *MINI)), "--data.workers=0", *words, "--out", str(out)])


def run(work: Callable[[], None], module: str) -> None:
    """Do the ``work`` of a command and exit. An error that the user can correct is printed as one sentence."""
    sys.exit(run_command(work, name=f"benchmarks.speed.{module}", debug="--debug" in sys.argv))

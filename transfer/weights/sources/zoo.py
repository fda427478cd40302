"""Backbones of the zoo, by their names (docs/zoo.md)."""

from __future__ import annotations

from pathlib import Path

from pixbench.errors import UserError, did_you_mean, listed
from pixbench.file_versions import RESULT_FILE, ZOO_FILE
from pixbench.paths import ZOO
from transfer.weights.sources.record import Source


def names_in(zoo: Path) -> list[str]:
    """Return the names of the backbones in the folder ``zoo``, also of those that have lost a file.

    Raises:
        UserError: There is no such folder.
    """
    if not zoo.is_dir():
        raise UserError(
            f"there is no zoo in {zoo}: name its folder in the environment variable PIXBENCH_ZOO (an installed wheel comes "
            "without one), or add a backbone with `pixbench zoo add`"
        )
    return sorted({file.parent.name for name in (ZOO_FILE, RESULT_FILE) for file in zoo.glob(f"*/{name}")})


def folder_of(name: str, zoo: Path) -> Path:
    """Return the folder of the backbone ``name`` below ``zoo``; raise `UserError` if there is none."""
    known = names_in(zoo)
    if not known:
        raise UserError(
            f"the zoo in {zoo} has no backbone {name!r}, nor any other: add one with `pixbench zoo add`, or name the folder of "
            "another zoo in the environment variable PIXBENCH_ZOO"
        )
    if name not in known:
        raise UserError(f"the zoo has no backbone {name!r}{did_you_mean(name, known)}; it has {listed(known)}")
    return zoo / name


def from_zoo(name: str) -> Source:
    """Return the weights that ``name``, such as "zoo:pixpro_s0", gives."""
    file = folder_of(name.removeprefix("zoo:"), ZOO) / ZOO_FILE
    if not file.is_file():
        raise UserError(f"{file} is missing, so {name} has no weights; restore it, or delete its folder")
    return Source(name, (file,))

"""The list of images of a run, in its folder. A continued run keeps to this list, whatever has come or gone since.

One line for each image: its name, a tab, its label. What is not printable ASCII is escaped as in Python.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pixbench.errors import UserError, printable
from pixbench.files import write_text
from pretrain.data.sources import Source

MAY_BE_MISSING = 100
"""A run can go on without one in so many of its images; one may always be missing."""


def write_list(path: Path, source: Source) -> None:
    """Write the names and labels of ``source`` to ``path``."""
    pairs = zip(source.names, source.labels, strict=True)
    write_text(path, "".join(f"{name.encode('unicode_escape').decode()}\t{label}\n" for name, label in pairs))


def read_list(path: Path) -> tuple[list[str], list[int]]:
    """Read what `write_list` wrote.

    Raises:
        UserError: The file is damaged.
    """
    names, labels = [], []
    try:
        for line in path.read_text(encoding="ascii").split("\n")[:-1]:
            name, label = line.split("\t")
            names.append(name.encode().decode("unicode_escape"))
            labels.append(int(label))
        if not names:
            raise ValueError("no line holds the name and the label of an image")
    except ValueError as error:
        raise UserError(
            f"{path} is damaged ({error}); delete it if data.root holds the same images as at the start of the run"
        ) from error
    return names, labels


def kept_to_list(found: Source, path: Path, limit: int) -> tuple[Source, list[str]]:
    """Return the images in the list ``path`` and what has changed since, one sentence each.

    A missing image is replaced by the next one in the list that is there, which depends on nothing else.

    Args:
        found: all images that are there now.
        path: the list of the run.
        limit: number of images to which the run is limited (0: all); with a limit, new images cannot be told from old ones.

    Raises:
        UserError: More images are missing than `MAY_BE_MISSING` allows.
    """
    names, labels = read_list(path)
    now = set(found.names)
    there = [index for index, name in enumerate(names) if name in now]
    missing = [index for index, name in enumerate(names) if name not in now]
    if len(missing) > max(1, len(names) // MAY_BE_MISSING) or not there:
        raise UserError(
            f"data.root holds other images than at the start of this run: {len(missing)} of {len(names)} are missing "
            f"({_first(names[index] for index in missing)}), and a run can do without 1 % of its images, or without one; "
            "put them back, put other images in their place under the same names, or choose another --out"
        )
    stand_ins = {index: there[bisect_right(there, index) % len(there)] for index in missing}
    said = []
    if missing:
        taken = _first(names[stand_ins[index]] for index in missing)
        said.append(
            f"{_images(len(missing), 'of this run')} missing ({_first(names[index] for index in missing)}); the next in "
            f"{path} is taken instead ({taken})"
        )
    if new := () if limit else sorted(now.difference(names)):
        said.append(f"{_images(len(new), 'in data.root')} new since the start of this run and not used ({_first(new)})")
    return replace(found, names=names, labels=labels, stand_ins=stand_ins), said


def _images(count: int, which: str) -> str:
    return f"1 image {which} is" if count == 1 else f"{count} images {which} are"


def _first(names: Iterable[str], count: int = 3) -> str:
    listed = [printable(name) for name in names]
    return ", ".join(listed[:count]) + (", ..." if listed[count:] else "")

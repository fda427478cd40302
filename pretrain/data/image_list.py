"""The list of images of a run, in its folder. A continued run keeps to this list, whatever has come or gone since.

One line for each image: its name, a tab, its label. What is not printable ASCII is escaped as in Python.
"""

from __future__ import annotations

import array
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from pixbench.errors import UserError, printable
from pixbench.files import atomic_path
from pretrain.data.index import label_lines
from pretrain.data.packed import CHUNK, PackedStrings
from pretrain.data.sources import Source

MAY_BE_MISSING = 100
"""A run can go on without one in so many of its images; one may always be missing."""
PLAIN = bytes(byte for byte in range(32, 127) if byte != ord("\\"))
"""The bytes that are not escaped."""


def write_list(path: Path, source: Source) -> None:
    """Write the names and labels of ``source`` to ``path``."""
    with atomic_path(path) as part, open(part, "wb") as stream:
        for lines in label_lines(map(_escaped, source.names.chunks()), source.labels):
            stream.write(lines)


def _escaped(names: list[bytes]) -> list[bytes]:
    if not b"".join(names).translate(None, PLAIN):
        return names
    return [name.decode("utf-8", "surrogateescape").encode("unicode_escape") for name in names]


def read_list(path: Path) -> tuple[PackedStrings, np.ndarray]:
    """Read what `write_list` wrote: the names, and the labels (n,) int32.

    Raises:
        UserError: The file is damaged.
    """
    labels = array.array("i")
    try:
        names = PackedStrings.pack(_names(path, labels))
        if not names:
            raise ValueError("no line holds the name and the label of an image")
    except (ValueError, OverflowError) as error:
        raise UserError(
            f"{path} is damaged ({error}); delete it if data.root holds the same images as at the start of the run"
        ) from error
    return names, np.frombuffer(labels, np.int32)


def _names(path: Path, labels: array.array[int]) -> Iterator[str]:
    """Yield the names in ``path``, and append their labels to ``labels``. An incomplete last line is left out."""
    with open(path, encoding="ascii", newline="\n") as stream:
        for line in stream:
            if line.endswith("\n"):
                name, label = line[:-1].split("\t")
                labels.append(int(label))
                yield name.encode().decode("unicode_escape") if "\\" in name else name


def is_list_of(path: Path, fingerprint: str) -> bool:
    """Return whether the list ``path`` is undamaged and its lines, not escaped, have this SHA-256 digest."""
    found = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            while lines := list(islice(stream, CHUNK)):
                text = b"".join(lines)
                found.update(b"".join(map(_unescaped, lines)) if b"\\" in text else text)
    except (OSError, ValueError):
        return False
    return found.hexdigest() == fingerprint


def _unescaped(line: bytes) -> bytes:
    return line.decode("unicode_escape").encode("utf-8", "surrogateescape")


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
    before, now = names.hashes(), found.names.hashes()
    order = np.argsort(now)
    places = order[np.minimum(np.searchsorted(now, before, sorter=order), len(now) - 1)]
    is_there = now[places] == before
    there, missing = np.flatnonzero(is_there), np.flatnonzero(~is_there)
    if len(missing) > max(1, len(names) // MAY_BE_MISSING) or not len(there):
        raise UserError(
            f"data.root holds other images than at the start of this run: {len(missing)} of {len(names)} are missing "
            f"({_first(names, missing)}), and a run can do without 1 % of its images, or without one; "
            "put them back, put other images in their place under the same names, or choose another --out"
        )
    next_there = there[np.searchsorted(there, missing) % len(there)]
    places[missing] = places[next_there]
    said = []
    if len(missing):
        said.append(
            f"{_images(len(missing), 'of this run')} missing ({_first(names, missing)}); the next in "
            f"{path} is taken instead ({_first(names, next_there)})"
        )
    new = np.flatnonzero(~np.isin(now, before))
    if len(new) and not limit:
        said.append(
            f"{_images(len(new), 'in data.root')} new since the start of this run and not used ({_first(found.names, new)})"
        )
    index = replace(found.index.take(places), names=names, labels=labels, parts=_parts(names, found))
    stand_ins = dict(zip(missing.tolist(), next_there.tolist(), strict=True))
    return replace(found, index=index, stand_ins=stand_ins), said


def _parts(names: PackedStrings, found: Source) -> tuple[tuple[int, float], ...]:
    """Return the parts of a mixture with the numbers of images at the start. The names of root i begin with "i/"."""
    if not found.index.parts:
        return ()
    counts = Counter(name.partition("/")[0] for name in names)
    return tuple((counts[str(number)], weight) for number, (_, weight) in enumerate(found.index.parts))


def _images(count: int, which: str) -> str:
    return f"1 image {which} is" if count == 1 else f"{count} images {which} are"


def _first(names: PackedStrings, indices: np.ndarray, count: int = 3) -> str:
    listed = [printable(names[int(index)]) for index in indices[:count]]
    return ", ".join(listed) + (", ..." if len(indices) > count else "")

"""Images that a list names: a text file, or a table (.csv, .tsv), with or without labels."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from pixbench.errors import UserError, printable
from pretrain.data.folders import SUFFIXES
from pretrain.data.index import HIGHEST_LABEL, NO_LABEL, Index, Place
from pretrain.data.sources.builder import Builder, label_in

TABLES = {".csv": ",", ".tsv": "\t"}
"""Suffixes of tables, and what separates their columns."""
NAME_COLUMNS = ("path", "image", "file", "file_name", "filename", "image_path", "name")
LABEL_COLUMNS = ("label", "class", "target", "class_id", "label_id")
SAMPLE = 100
"""Number of files that are looked for at the start."""


def list_file(path: Path, folder: str) -> Index:
    """Read the list ``path``. Its paths are relative to ``folder`` (default: the folder of the list).

    Text: a path a line, or a path, white space and a label. Table: a path, or a path and a label; a first row with names of
    columns ("path", "label" and the like) says which they are. Blank lines are passed over.

    Raises:
        UserError: A path or a label is not possible, a path occurs twice, or none of the files is there.
    """
    root = Path(folder).expanduser() if folder else path.parent
    builder = Builder()
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            rows = _table(stream, path) if path.suffix.lower() in TABLES else _lines(stream)
            for number, name, label in rows:
                where = f"line {number} of {path}"
                found = NO_LABEL if label is None else label_in(label)
                if found is None:
                    raise UserError(
                        f"{where}: label {str(label)[:30]!r} is not a whole number from 0 to {HIGHEST_LABEL}"
                    )
                builder.add(inside(name, root, where), found)
    except csv.Error as error:
        raise UserError(f"{path} cannot be read as a table: {error}") from error
    index = builder.index("list", Place(str(root)), called=str(path))
    check_there(index, root, str(path))
    return index


def inside(name: str, root: Path, where: str) -> str:
    """Return the path ``name`` relative to ``root``.

    Raises:
        UserError: It leads out of ``root``.
    """
    if os.path.isabs(name):
        home = os.path.join(os.path.abspath(root), "")
        name = os.path.normpath(name).removeprefix(home)
    name = os.path.normpath(name)
    if os.path.isabs(name) or name.split(os.sep)[0] in (os.pardir, os.curdir):
        raise UserError(
            f"{where}: {printable(name)} is not inside {root}; give the folder to which all paths are relative as data.folder "
            "(for absolute paths: --data.folder /)"
        )
    return name


def check_there(index: Index, root: Path, called: str) -> None:
    """Check that some of the images ``called`` in a list are below ``root``.

    Raises:
        UserError: None of a sample is there.
    """
    count = min(SAMPLE, len(index))
    sample = [index.names[i * len(index) // count] for i in range(count)]
    if sample and not any((root / name).exists() for name in sample):
        raise UserError(
            f"the images of {called} are not in {root} (for example {printable(sample[0])}); give the folder to which its paths "
            "are relative as data.folder"
        )


def _lines(stream: Iterator[str]) -> Iterator[tuple[int, str, str | None]]:
    labelled: bool | None = None
    for number, line in enumerate(stream, 1):
        if not (text := line.strip("\r\n\t ")):
            continue
        parts = text.rsplit(maxsplit=1)
        if labelled is None:  # the first line decides; a path may have blanks
            labelled = len(parts) == 2 and not text.lower().endswith(SUFFIXES)
        if labelled and len(parts) == 1:
            yield number, text, ""
        else:
            yield (number, parts[0], parts[1]) if labelled else (number, text, None)


def _table(stream: Iterator[str], path: Path) -> Iterator[tuple[int, str, str | None]]:
    rows = csv.reader(stream, delimiter=TABLES[path.suffix.lower()])
    first = next(rows, [])
    header = [word.strip().casefold() for word in first]
    name = next((header.index(word) for word in NAME_COLUMNS if word in header), None)
    label = next((header.index(word) for word in LABEL_COLUMNS if word in header), None)
    if name is None and label is not None:
        raise UserError(
            f"{path} has a column {header[label]!r} but none called {', '.join(NAME_COLUMNS[:3])}; name the column of the paths"
        )
    if name is None:
        name, label = 0, 1 if len(first) > 1 else None
        rows_left = chain([first], rows)
    else:
        rows_left = chain((), rows)
    for row in rows_left:
        if not any(word.strip() for word in row):
            continue
        place = max(name, -1 if label is None else label)
        if len(row) <= place:
            raise UserError(f"line {rows.line_num} of {path} has {len(row)} columns; it must have {place + 1}")
        yield rows.line_num, row[name].strip(), None if label is None else row[label].strip()

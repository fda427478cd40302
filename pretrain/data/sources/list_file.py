"""Images that a list names: a text file, or a table (.csv, .tsv), with or without labels."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from pixbench.errors import UserError, printable
from pretrain.data.index import NO_LABEL, Index, Place
from pretrain.data.sources.builder import Builder
from pretrain.data.sources.labels import Labels
from pretrain.data.sources.list_rows import has_columns, rows

SAMPLE = 100
"""Number of files that are looked for at the start."""


def list_file(path: Path, folder: str) -> Index:
    """Read the list ``path``. Its paths are relative to ``folder`` (default: the folder of the list).

    Text: a path a line, or a path, white space and a label. Table: a path, or a path and a label; a first row with names of
    columns ("path", "label" and the like) says which they are. Blank lines are passed over. Labels are as in `Labels`.

    Raises:
        UserError: A path or a label is not possible, a path occurs twice, or none of the files is there.
    """
    root = Path(folder).expanduser() if folder else path.parent
    builder, labels, notes = Builder(), Labels(), list[str]()
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        for number, name, label in rows(stream, path, notes):
            where = f"line {number} of {path}"
            builder.add(inside(name, root, where), NO_LABEL if label is None else labels.read(label, where))
    index = labels.numbered(builder.index("list", Place(str(root)), called=str(path)))
    return check_there(replace(index, notes=tuple(notes)), root, str(path))


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
            f"{where}: {printable(name)} is not inside {root}; set the option folder to the folder to which all paths are "
            "relative (for absolute paths: /)"
        )
    return name


def check_there(index: Index, root: Path, called: str) -> Index:
    """Look for a sample of the images ``called`` in a list below ``root``. Return ``index``, with a note if some are missing.

    Raises:
        UserError: None of the sample is there.
    """
    count = min(SAMPLE, len(index))
    sample = [index.names[i * len(index) // count] for i in range(count)]
    missing = [name for name in sample if not os.path.exists(root / name)]
    if not missing:
        return index
    example = f"(for example {printable(missing[0])})"
    if len(missing) < count:
        note = f"{len(missing)} of {count} paths of {called} that were looked for are not in {root} {example}"
        return replace(index, notes=(*index.notes, f"{note}; these count as broken images"))
    if has_columns(missing[0]):
        way_out = "a list with columns is a table: call it .csv"
    elif "\\" in missing[0]:
        way_out = "write / instead of \\ in its paths"
    else:
        way_out = "set the option folder to the folder to which its paths are relative"
    raise UserError(f"the images of {called} are not in {root} {example}; {way_out}")

"""The rows of a list of images: a text file, or a table whose first rows show its columns and what separates them."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from pixbench.errors import UserError, printable
from pretrain.data.folders import SUFFIXES
from pretrain.data.index import NO_LABEL

TABLES = {".csv": ",", ".tsv": "\t"}
"""Suffixes of tables, and what separates their columns if nothing shows that it is another of `SEPARATORS`."""
SEPARATORS = (",", ";", "\t")
NAME_COLUMNS = ("path", "image", "file", "file_name", "filename", "file_path", "image_path", "img_path", "img", "name")
LABEL_COLUMNS = ("label", "class", "target", "class_name", "category", "class_id", "label_id")
HEAD = 20
"""Number of lines among which the first rows are looked for."""
Row = tuple[int, str, str | None]
"""Number of the line, path, and label (None if the list has no labels)."""

_SUFFIX = f"(?:{'|'.join(map(re.escape, SUFFIXES))})"
_WITH_LABEL = re.compile(rf"(.*{_SUFFIX})\s+(\S.*)", re.IGNORECASE)
_IN_COLUMNS = re.compile(rf"{_SUFFIX}\s*[,;\t]", re.IGNORECASE)


def rows(stream: Iterator[str], path: Path, notes: list[str]) -> Iterator[Row]:
    """Yield the rows of the list ``path``, see `list_file`.

    Args:
        stream: its lines.
        path: where it is.
        notes: sentences for the user are added to it.

    Raises:
        UserError: It is no such list. The message says which line shows it.
    """
    head = list(islice(stream, HEAD))
    if head and head[0][:2].encode("utf-8", "surrogateescape") in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{path} is in UTF-16; save it in UTF-8")
    try:
        yield from _table(head, stream, path, notes) if path.suffix.lower() in TABLES else _text(head, stream, path)
    except csv.Error as error:
        raise UserError(f"{path} cannot be read as a table: {error}") from error


def has_columns(path: str) -> bool:
    """Return whether ``path`` looks like the row of a table."""
    return _IN_COLUMNS.search(path) is not None


def _text(head: list[str], stream: Iterator[str], path: Path) -> Iterator[Row]:
    first = [(number, line.split()) for number, line in enumerate(head, 1) if line.strip()][:2]
    if len(first) == 2 and _is_header(first[0][1], first[1][1]):
        raise UserError(
            f"line {first[0][0]} of {path} looks like column names ({printable(', '.join(first[0][1]))}); delete this line, or "
            "make the list a table (.csv)"
        )
    labelled: bool | None = None
    for number, line in enumerate(chain(head, stream), 1):
        if not (text := line.strip("\r\n\t ")):
            continue
        name, label = _split(text)
        if labelled is None:  # the first line decides
            labelled = label is not None
        if labelled:
            yield number, name, label or ""
        elif label is not None and _is_image(name):
            raise UserError(
                f"line {number} of {path} has a label ({printable(label)}), but the first line has none; give all images a label "
                f"({NO_LABEL} for those without)"
            )
        else:
            yield number, text, None


def _split(text: str) -> tuple[str, str | None]:
    """Return the path and the label in a line of text; no label is None. A path may have blanks, and a label too."""
    path, *label = text.rsplit(maxsplit=1)
    if not label or _is_image(label[0]):
        return text, None
    if not _is_image(path) and (found := _WITH_LABEL.fullmatch(text)):
        return found[1], found[2]
    return path, label[0]


def _table(head: list[str], stream: Iterator[str], path: Path, notes: list[str]) -> Iterator[Row]:
    reader = csv.reader(chain(head, stream), delimiter=_separator(head, path))
    filled = ((reader.line_num, words) for row in reader if any(words := [word.strip() for word in row]))
    if not (start := list(islice(filled, 2))):
        return
    name, label = _columns(start, path)
    if name is None:
        name, label = 0, 1 if len(start[0][1]) > 1 else None
    else:
        header = start.pop(0)[1]
        if label is None and len(header) > 1:
            notes.append(
                f"{path} has no column called {LABEL_COLUMNS[0]} (or {', '.join(LABEL_COLUMNS[1:])}) but "
                f"{printable(', '.join(header))}, so its images have no labels"
            )
    most = max(name, -1 if label is None else label)
    for number, words in chain(start, filled):
        if len(words) <= most:
            columns = f"{len(words)} column{'s' * (len(words) != 1)}"
            raise UserError(f"line {number} of {path} has {columns}; it must have {most + 1}")
        yield number, words[name], None if label is None else words[label]


def _columns(start: list[tuple[int, list[str]]], path: Path) -> tuple[int | None, int | None]:
    """Return the columns of paths and labels that the first of the rows ``start`` names; (None, None) if it has no names."""
    number, first = start[0]
    if any(map(_is_image, first)):
        return None, None
    header = [word.casefold() for word in first]
    name = next((header.index(word) for word in NAME_COLUMNS if word in header), None)
    label = next((header.index(word) for word in LABEL_COLUMNS if word in header), None)
    if name is None and label is not None:
        raise UserError(
            f"{path} has a column {header[label]!r} but none for the paths; call that {NAME_COLUMNS[0]} (or "
            f"{', '.join(NAME_COLUMNS[1:])})"
        )
    if name is None and _is_header(first, start[-1][1]):
        raise UserError(
            f"line {number} of {path} looks like column names ({printable(', '.join(first))}); call the column of the paths "
            f"{NAME_COLUMNS[0]} and that of the labels {LABEL_COLUMNS[0]}"
        )
    return name, label


def _separator(head: list[str], path: Path) -> str:
    """Return what separates the columns: what shows a known name of the column of paths in the first rows, or else a path."""
    usual = TABLES[path.suffix.lower()]
    filled = [line for line in head if line.strip(" \r\n,;\t")][:2]
    words = {
        separator: [word.strip().casefold() for row in csv.reader(filled, delimiter=separator) for word in row]
        for separator in (usual, *SEPARATORS)
    }
    named = (separator for separator, found in words.items() if not set(NAME_COLUMNS).isdisjoint(found))
    shown = (separator for separator, found in words.items() if any(map(_is_image, found)))
    return next(chain(named, shown), usual)


def _is_image(text: str) -> bool:
    return text.lower().endswith(SUFFIXES)


def _is_header(first: list[str], second: list[str]) -> bool:
    """Return whether ``first`` are names of columns: those we know, or plain words above a row with an image."""
    if any(map(_is_image, first)):
        return False
    known = all(word.casefold() in NAME_COLUMNS + LABEL_COLUMNS for word in first)
    plain = not any("/" in word or word.isdigit() or os.path.splitext(word)[1] for word in first)
    return known or (plain and any(map(_is_image, second)))

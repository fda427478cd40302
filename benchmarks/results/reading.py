"""Read all results below some folders: quickly, through a cache, and without ending at a file that cannot be used."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from benchmarks.results import database
from benchmarks.results.database import File, Row
from pixbench.errors import UserError
from pixbench.file_versions import RESULT_FILE
from pixbench.results import UnusableResult, read_result

HEAVY = ("config", "curve", "per_class")
"""What is read only if it is asked for: most of the bytes of a result."""


class Found(NamedTuple):
    """A result and its file."""

    path: Path
    result: dict[str, Any]


class LeftOut(NamedTuple):
    """A file that is no result that can be used."""

    path: Path
    problem: str
    """A `pixbench.results.Problem`."""
    reason: str


@dataclass
class Results:
    """What is below some folders."""

    found: list[Found] = field(default_factory=list)
    """In the order of their paths."""
    left_out: list[LeftOut] = field(default_factory=list)

    def summary(self) -> str:
        """Return one line on how many files were left out, and why; "" without any."""
        if not self.left_out:
            return ""
        counts = Counter(file.problem for file in self.left_out)
        kinds = ", ".join(f"{number} {TITLES[kind]}" for kind, number in counts.items())
        return f"{len(self.left_out)} of {len(self.left_out) + len(self.found)} results left out: {kinds}"


TITLES = {
    "damaged": "damaged",
    "foreign": "not written by PixBench",
    "older": "of an older schema (`pixbench results upgrade`)",
    "newer": "of a newer schema",
    "edited": "changed by hand",
}


def check_folders(folders: Sequence[Path]) -> None:
    """Raise `UserError` if one of ``folders`` does not exist."""
    for folder in folders:
        if not folder.exists():
            raise UserError(f"{folder} does not exist; give folders that hold results")


def read_all(folders: Path | Sequence[Path], heavy: bool = False, cache: Path | None = None) -> Results:
    """Return all results in the files ``result.json`` below ``folders``, each file once.

    Args:
        folders: folders, or result files.
        heavy: whether to return config, curve and values of classes too.
        cache: the database; by default the user's.
    """
    places = [folders] if isinstance(folders, Path) else [*folders]
    shown = {file: path for folder in reversed(places) for file, path in _files(folder)}
    files = sorted(shown, key=lambda file: file.path)
    results = Results()
    fresh: dict[File, tuple[Row, dict[str, Any] | None]] = {}
    with database.opened(cache) as connection:
        rows = {row.path: row for row in database.known(connection, files, heavy)}
        for file in files:
            if file.path not in rows:
                fresh[file] = _read(file)
        if fresh:
            new = [(file, row) for file, (row, _) in fresh.items()]
            database.remember(connection, new, [str(folder.absolute()) for folder in places])
    for file in files:
        row, result = fresh[file] if file in fresh else (rows[file.path], None)
        if row.content is None:
            results.left_out.append(LeftOut(shown[file], row.problem or "", row.reason))
            continue
        if result is None:
            result = msgspec.json.decode(row.content) | (msgspec.json.decode(row.heavy) if row.heavy else {})
        elif not heavy:
            result = {key: value for key, value in result.items() if key not in HEAVY}
        results.found.append(Found(shown[file], result))
    return results


def _files(folder: Path) -> Iterator[tuple[File, Path]]:
    """Yield each result file in ``folder`` and below, and its path as people see it; links to folders are not followed."""
    root = str(folder.absolute())
    if folder.is_file():
        places = [root]
    else:
        places = [os.path.join(parent, RESULT_FILE) for parent, _, files in os.walk(root) if RESULT_FILE in files]
    for path in places:
        try:
            about = os.stat(path)
        except OSError:  # a broken link, or removed meanwhile
            if not os.path.islink(path):
                continue
            about = os.lstat(path)
        yield File(path, about.st_size, about.st_mtime_ns, about.st_ino), folder / path[len(root) :].lstrip(os.sep)


def _read(file: File) -> tuple[Row, dict[str, Any] | None]:
    try:
        result = read_result(Path(file.path))
    except UnusableResult as error:
        return Row(file.path, error.problem, error.reason, None, None), None
    light = {key: value for key, value in result.items() if key not in HEAVY}
    heavy = {key: result[key] for key in HEAVY if key in result}
    return Row(file.path, None, "", msgspec.json.encode(light), msgspec.json.encode(heavy)), result

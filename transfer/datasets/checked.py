"""Remember which data was checked, so that `--no-check` need not check it again.

A record is found by a fingerprint: what was checked, and name, size and time of change of every file below its folders. Records
are in the user's cache, because a data root is often read-only.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pixbench.files import sha256, write_json

VERSION = 1
"""Another number when the checks change."""


def recall(home: Path, entry: dict[str, Any], about: dict[str, Any]) -> dict[str, Any] | None:
    """Return what was remembered of the data set in ``home``; None if it has changed or was never checked."""
    with suppress(OSError, ValueError):
        return dict(json.loads(_record(home, entry, about).read_text(encoding="utf-8")))
    return None


def remember(home: Path, entry: dict[str, Any], about: dict[str, Any], outcome: dict[str, Any]) -> None:
    """Remember the ``outcome`` of a check. Without a writable cache, nothing is remembered."""
    with suppress(OSError):
        write_json(_record(home, entry, about), outcome)


def fingerprint(home: Path, entry: dict[str, Any]) -> str:
    """Return a digest of the data set in ``home`` that is the same for a copy in another place.

    It covers the relative names and the sizes of all files of its parts, and the content of lists and annotation files.
    """
    found = hashlib.sha256()
    for path in _paths(home, entry):
        with suppress(OSError):  # a broken link
            line = f"{path.relative_to(home).as_posix()}\t{path.stat().st_size}\n"
            found.update(line.encode("utf-8", "surrogateescape"))
    for part in entry["parts"]:
        for key in ("list", "annotations", "addresses"):
            if key in part and (home / part[key]).is_file():
                found.update(f"{part[key]}\t{sha256(home / part[key])}\n".encode())
    return found.hexdigest()


def _record(home: Path, entry: dict[str, Any], about: dict[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps([VERSION, str(home.resolve()), entry, about], sort_keys=True).encode())
    for path in _paths(home, entry):
        digest.update(_line(path).encode("utf-8", "surrogateescape"))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "pixbench" / "checked" / f"{digest.hexdigest()}.json"


def _paths(home: Path, entry: dict[str, Any]) -> Iterator[Path]:
    """Yield each file that the parts of the data set name, and each file below their folders, in a fixed order."""
    places = [part.get(key, "") for part in entry["parts"] for key in ("list", "annotations", "addresses", "images")]
    places += [template for part in entry["parts"] for template in part.get("files", ())]
    for place in sorted({home / _fixed(place) for place in places if place}):
        if place.is_file():
            yield place
        been: set[str] = set()
        for parent, folders, files in os.walk(place, followlinks=True):
            if (real := os.path.realpath(parent)) in been:  # a link that leads back
                folders.clear()
                continue
            been.add(real)
            folders.sort()
            yield from (Path(parent, name) for name in sorted(files))


def _fixed(place: str) -> str:
    """Return the part of a path or pattern before the folder with the first * or {}."""
    cut = min((place.index(mark) for mark in ("*", "{}") if mark in place), default=None)
    return place if cut is None else os.path.dirname(place[:cut] + "x")


def _line(path: Path) -> str:
    with suppress(OSError):  # a broken link
        about = path.stat()
        return f"{path}\t{about.st_size}\t{about.st_mtime_ns}\n"
    return f"{path}\n"

"""What tar shards and zip files have in common: their names, and what the index says of them.

Images stay packed: the index holds where in an archive each begins. So every image can be read at any time, in any order, and a
run goes on exactly wherever it stopped.
"""

from __future__ import annotations

import glob
import os
from typing import IO, Literal, NamedTuple

import bracex
from fsspec.core import url_to_fs

from pixbench.errors import UserError
from pretrain.data.index import Place
from pretrain.data.sources.storage import is_url, reason, sample

MOST_SHARDS = 1_000_000


class Member(NamedTuple):
    """A file in an archive, see `Index` for ``offset`` and ``size``."""

    name: str
    offset: int
    size: int


def expand(pattern: str) -> list[str]:
    """Return the archives that ``pattern`` names: braces ("a-{000..127}.tar", "{a,b}.tar") and wildcards ("a-*.tar").

    Raises:
        UserError: There are none, or one is missing or named twice.
    """
    if os.path.exists(pattern):
        return [pattern]
    try:
        words = [str(word) for word in bracex.expand(pattern, limit=MOST_SHARDS)]
    except bracex.ExpansionLimitException as error:
        raise UserError(f"root {pattern} stands for more than {MOST_SHARDS} files; give fewer") from error
    paths = [path for word in words for path in _matches(word)]
    if missing := [path for path in paths if not is_url(path) and not os.path.isfile(path)]:
        raise UserError(
            f"{len(missing)} of the {len(paths)} archives of root {pattern} are missing ({', '.join(missing[:3])}); give a "
            "pattern of those that are there, or download the others"
        )
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise UserError(f"root {pattern} names {twice} twice; name it once")
    return paths


def _matches(word: str) -> list[str]:
    """Return the sorted files that match the wildcards in ``word``, or ``word`` if there are none."""
    if not glob.has_magic(word):
        return [word]
    if is_url(word):
        try:
            system, path = url_to_fs(word)
            found = [system.unstrip_protocol(match) for match in sorted(system.glob(path))]
        except (ImportError, OSError, ValueError) as error:
            raise UserError(f"root {word} cannot be listed ({reason(error)})") from error
    else:
        found = sorted(glob.glob(word))
    if not found:
        raise UserError(f"root {word} matches no file; check the pattern")
    return found


def short_names(paths: list[str]) -> list[str]:
    """Return the paths without the folders that all have in common: names that stay the same when the archives move."""
    folders = [path.split("/")[:-1] for path in paths]
    differs = (n for n, parts in enumerate(zip(*folders, strict=False)) if len(set(parts)) > 1)
    common = next(differs, min(map(len, folders)))
    return ["/".join(path.split("/")[common:]) for path in paths]


def place_of(path: str, kind: Literal["tar", "zip"], stream: IO[bytes]) -> Place:
    """Return the `Place` of the open archive ``path``."""
    size = stream.seek(0, os.SEEK_END)
    return Place(path, kind, size, "" if is_url(path) else sample(stream.fileno(), size))

"""A cache of results in SQLite, made from the files and never asked for what a file says otherwise.

SQLite is part of Python, needs no server, and copes with several readers. A row counts only while size, time of change and inode
of its file are those it was made from, so a deleted or damaged cache costs only the time to read the files again.
"""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from pixbench.files import make_folder
from pixbench.paths import RESULT_JSON_SCHEMA

VERSION = 2
"""Another number when the tables change."""
TIMEOUT_S = 10.0
"""Seconds to wait while another process writes to the cache."""
TABLES = """
CREATE TABLE IF NOT EXISTS results (
    path BLOB PRIMARY KEY, size INTEGER, changed INTEGER, inode INTEGER,
    problem TEXT, reason TEXT, content BLOB, heavy BLOB
) WITHOUT ROWID;
CREATE TEMP TABLE wanted (path BLOB PRIMARY KEY, size INTEGER, changed INTEGER, inode INTEGER) WITHOUT ROWID;
"""


class File(NamedTuple):
    """A file as it is now."""

    path: str
    size: int
    changed: int
    """Nanoseconds."""
    inode: int


class Row(NamedTuple):
    """What is known of a file."""

    path: str
    problem: str | None
    """None for a good result; a `pixbench.results.Problem`, or "left out" for one that is not to be shown."""
    reason: str
    content: bytes | None
    """The result as JSON, without what is heavy."""
    heavy: bytes | None
    """The rest of it as JSON; None if it was not asked for."""


def place() -> Path:
    """Return where the cache is: in the user's cache folder."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "pixbench" / "results.sqlite"


@contextmanager
def opened(path: Path | None = None) -> Iterator[sqlite3.Connection]:
    """Yield the database at ``path`` (default: `place`), empty if it was damaged or made by another version.

    If it cannot be written or another process keeps it locked, it is one in memory.
    """
    path = path or place()
    try:
        connection = _connected(path)
    except sqlite3.DatabaseError:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        try:
            connection = _connected(path)
        except (OSError, sqlite3.Error):
            connection = _connected(None)
    except Exception:
        connection = _connected(None)
    with closing(connection):
        yield connection


def _connected(path: Path | None) -> sqlite3.Connection:
    if path:
        make_folder(path.parent)
    connection = sqlite3.connect(path or ":memory:", timeout=TIMEOUT_S)
    try:
        version = VERSION + (zlib.crc32(RESULT_JSON_SCHEMA.read_bytes()) & 0xFFFFFFF)
        if connection.execute("PRAGMA user_version").fetchone()[0] != version:
            connection.execute("DROP TABLE IF EXISTS results")
            connection.execute(f"PRAGMA user_version = {version}")
        connection.executescript(TABLES)
        connection.execute("SELECT count(problem) FROM results").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def known(connection: sqlite3.Connection, files: Iterable[File], heavy: bool) -> Iterator[Row]:
    """Yield the rows of those of ``files`` that have not changed since; ``heavy`` asks for all of their content."""
    connection.execute("DELETE FROM wanted")
    named = ((os.fsencode(path), *about) for path, *about in files)  # a name need not be text, which SQLite asks for
    connection.executemany("INSERT OR REPLACE INTO wanted VALUES (?, ?, ?, ?)", named)
    rest = "r.heavy" if heavy else "NULL"
    for row in connection.execute(
        f"SELECT r.path, r.problem, r.reason, r.content, {rest} FROM wanted w JOIN results r USING (path) "
        "WHERE r.size = w.size AND r.changed = w.changed AND r.inode = w.inode"
    ):
        yield Row(os.fsdecode(row[0]), *row[1:])


def remember(connection: sqlite3.Connection, rows: Iterable[tuple[File, Row]], folders: Iterable[str]) -> None:
    """Store rows, and forget files below ``folders`` that were not asked for in the last `known`: they are gone."""
    with suppress(sqlite3.OperationalError), connection:  # locked, or the disk is full: it is only a cache
        values = [
            (os.fsencode(path), *about, row.problem, row.reason, row.content, row.heavy) for (path, *about), row in rows
        ]
        connection.executemany("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
        for folder in folders:
            inside = (os.fsencode(folder + os.sep), os.fsencode(folder + chr(ord(os.sep) + 1)))
            connection.execute(
                "DELETE FROM results WHERE path >= ? AND path < ? AND path NOT IN (SELECT path FROM wanted)", inside
            )

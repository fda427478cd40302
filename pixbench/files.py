"""Write files so that a reader never sees an incomplete one, and compute their digests."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pixbench.errors import UserError


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Create the folder ``path`` and its parents if they do not exist.

    Raises:
        UserError: There is a file where a folder is needed.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        file = next(place for place in (path, *path.parents) if os.path.lexists(place))
        what = "is a file" if file.exists() else "is a link to a path that does not exist"
        raise UserError(f"{file} {what}, so the folder {path} cannot be created; choose another path") from error
    return path


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path next to ``path``. Rename it to ``path`` if the block succeeds, delete it if not.

    The temporary name keeps the suffix because some writers choose the file type by it.

    Raises:
        IsADirectoryError: There is a folder where the file is to be written.
    """
    path = Path(path)
    if path.is_dir() and not path.is_symlink():
        raise IsADirectoryError(errno.EISDIR, "there is a folder, so name another file", str(path))
    make_folder(path.parent)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # the error of a full disk does not name the file
        raise
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` to ``path`` in UTF-8, through `atomic_path`."""
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as indented JSON. NaN and infinities are written as null because JSON does not have them."""
    write_text(path, json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """Return ``value`` with every non-finite float replaced by None, at any depth."""
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return value


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 digest of a file's bytes in hexadecimal."""
    return digest(path, "sha256")


def digest(path: str | os.PathLike[str], algorithm: str) -> str:
    """Return the digest of a file's bytes in hexadecimal; ``algorithm`` is a name that `hashlib` knows."""
    found = hashlib.new(algorithm)
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            found.update(block)
    return found.hexdigest()

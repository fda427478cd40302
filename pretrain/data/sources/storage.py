"""Read bytes of files and of archives: local ones by their path, others by any URL that `fsspec` knows."""

from __future__ import annotations

import hashlib
import os
import time
import zlib
from collections import OrderedDict
from functools import lru_cache
from typing import IO, Any

import fsspec
from fsspec.core import url_to_fs

from pixbench.errors import UserError, explain
from pretrain.data.index import Place

OPEN_FILES = 64
"""Number of local archives that a process keeps open."""
TRIES = 3
"""Number of times that a remote range is asked for."""
BLOCKS = 64
"""Number of blocks of an archive by which it is recognised, besides its size."""
BLOCK = 4096
LOCAL_HEADER = 30
"""Size in bytes of the fixed part of a zip's local header; the lengths of name and extra field are its last four bytes."""


def is_url(path: str) -> bool:
    """Return whether ``path`` is a URL, for `fsspec`, and not a local path."""
    return "://" in path or "::" in path


def open_archive(path: str) -> IO[bytes]:
    """Open a local or remote archive for reading.

    Raises:
        UserError: It cannot be opened.
    """
    try:
        return fsspec.open(path, "rb").open() if is_url(path) else open(path, "rb")
    except ImportError as error:  # fsspec's file systems need packages of their own
        raise UserError(f"{path} needs a package that is not installed: {error}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be opened ({reason(error)}); check the path and its permissions") from error


def read_member(place: Place, offset: int, size: int) -> bytes:
    """Read an image out of the archive ``place``. ``offset`` and ``size`` are those of `Index`.

    Raises:
        OSError: It cannot be read.
        UserError: The archive is missing or has another size than before: this is not about one image.
    """
    if place.kind == "tar":
        return read_range(place, offset, size)
    header = read_range(place, offset, LOCAL_HEADER)
    lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    data = read_range(place, offset + LOCAL_HEADER + lengths, abs(size))
    try:
        return zlib.decompress(data, -zlib.MAX_WBITS) if size < 0 else data
    except zlib.error as error:
        raise OSError(f"its compressed bytes are damaged: {error}") from error


def read_range(place: Place, offset: int, size: int) -> bytes:
    """Read ``size`` bytes of the archive ``place`` from ``offset`` on."""
    if not is_url(place.path):
        data = os.pread(descriptor := _local(place), size, offset)
        if len(data) < size:
            _check_unchanged(place, descriptor)  # cut off while it is open
        return data
    for attempt in range(TRIES):
        try:
            return _remote_range(place.path, offset, size)
        except FileNotFoundError as error:
            raise _missing(place) from error
        except Exception as error:  # the errors of a file system of fsspec are those of its own client
            if attempt + 1 == TRIES:
                raise OSError(f"{type(error).__name__}: {error}") from error
            time.sleep(2.0**attempt)
    raise AssertionError


def _remote_range(url: str, offset: int, size: int) -> bytes:
    system, path = _system(url, os.getpid())
    if "::" not in url:
        return system.cat_file(path, start=offset, end=offset + size)
    with system.open(path, "rb") as stream:  # a file system that keeps a local copy makes it when a file is opened
        stream.seek(offset)
        return stream.read(size)


@lru_cache(maxsize=1024)
def _system(url: str, process: int) -> tuple[Any, str]:
    """Return the file system and the path of ``url``. A forked process needs connections of its own."""
    return url_to_fs(url)


_open: OrderedDict[str, int] = OrderedDict()
"""Descriptors of open local archives, the one used last at the end. `os.pread` lets forked processes share them."""


def _local(place: Place) -> int:
    descriptor = _open.pop(place.path, None)
    if descriptor is None:
        try:
            descriptor = os.open(place.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise _missing(place) from error
        try:
            _check_unchanged(place, descriptor)
        except UserError:
            os.close(descriptor)
            raise
    _open[place.path] = descriptor
    if len(_open) > OPEN_FILES:
        os.close(_open.popitem(last=False)[1])
    return descriptor


def sample(descriptor: int, size: int) -> str:
    """Return a digest of a few blocks of an open local file of ``size`` bytes: its end, and `BLOCKS` spread over it.

    An archive that was packed again often has the same size, but hardly the same blocks.
    """
    found = hashlib.sha256()
    for place in range(BLOCKS):
        found.update(os.pread(descriptor, BLOCK, place * size // BLOCKS))
    found.update(os.pread(descriptor, BLOCK, max(0, size - BLOCK)))
    return found.hexdigest()[:16]


def _check_unchanged(place: Place, descriptor: int) -> None:
    """Raise UserError if the archive ``place`` is another one than when its images were listed."""
    size = os.fstat(descriptor).st_size
    if place.size not in (-1, size):
        what = f"has {size} bytes, but it had {place.size}"
    elif place.sample and place.sample != sample(descriptor, size):
        what = "has other content than"
    else:
        return
    raise UserError(
        f"{place.path} {what} when its images were listed; put the old file back, or start again (if it was listed by pixbench "
        "data index, make the index again)"
    )


def _missing(place: Place) -> UserError:
    return UserError(f"archive {place.path} is missing; put it back, or start again without it")


def reason(error: BaseException) -> str:
    """Say in a few words why something could not be read."""
    return error.strerror if isinstance(error, OSError) and error.strerror else explain(error).replace("\n", " ")

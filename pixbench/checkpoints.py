"""Write checkpoints with PyTorch so that a crash or a full disk never leaves an incomplete file, and find damaged files.

`torch.save` writes a zip archive, which holds a CRC-32 checksum of each tensor and of the description of all else. `torch.load`
does not compare them, but `zipfile` does. So every file has its checksums inside, old ones too, and any reader accepts it.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from pixbench.errors import UserError
from pixbench.files import atomic_path

_IS_FOLDER = 0x10
"""Attribute of a folder in a zip archive. PyTorch gives an entry with it no content at all; `torch.save` never sets it."""


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` to ``path`` with `torch.save`. All bytes are on the disk before the file gets its final name.

    Raises:
        UserError: The file cannot be written. The previous file at ``path`` is kept.
    """
    try:
        with atomic_path(path) as part, open(part, "wb") as stream:
            torch.save(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
    except (OSError, RuntimeError) as error:
        # PyTorch's zip writer raises an error of its own; the error of the operating system is its context.
        cause = error if isinstance(error, OSError) else error.__context__
        reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(error).partition("\n")[0]
        kept = "; the previous checkpoint is kept" if path.exists() else ""
        raise UserError(
            f"checkpoint {path} cannot be written ({reason}){kept}; free some disk space or remove the cause, then start the "
            "same command again"
        ) from error


def damage(path: Path) -> str:
    """Return in words how the checkpoint at ``path`` differs from what was written; "" if all its checksums are right.

    Reads the whole file. A file that is not a zip archive (PyTorch before 1.6) counts as damaged.

    Raises:
        OSError: There is no such file, or this user may not read it.
    """
    try:
        with open(path, "rb") as stream:
            if not stream.read(1):
                return "it is empty"
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:  # of a disk that fails; or it is a folder
        return f"it cannot be read: {error.strerror}"
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip() or next(
                (e.filename for e in archive.infolist() if e.external_attr & _IS_FOLDER), ""
            )
    except Exception as error:  # zipfile raises many types of errors for broken files
        return f"it is no whole archive: {error or type(error).__name__}"
    return f"the checksum of {wrong} is wrong" if wrong else ""

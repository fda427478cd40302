"""Write checkpoints with PyTorch so that a crash or a full disk never leaves an incomplete file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from pixbench.errors import UserError
from pixbench.files import atomic_path


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

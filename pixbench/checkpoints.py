"""Writing checkpoints with PyTorch so that a crash or a full disk never leaves half of one behind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from pixbench.errors import UserError
from pixbench.files import atomic_path


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` to ``path`` with `torch.save`; the bytes are on the disk before the file gets its name.

    Raises:
        UserError: the file cannot be written; what was at ``path`` before is still there.
    """
    try:
        with atomic_path(path) as part, open(part, "wb") as stream:
            torch.save(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
    except (OSError, RuntimeError) as error:
        # PyTorch's zip writer hides the system's error behind one of its own.
        cause = error if isinstance(error, OSError) else error.__context__
        reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(error).partition("\n")[0]
        kept = "; the one before it is kept" if path.exists() else ""
        raise UserError(
            f"checkpoint {path} cannot be written ({reason}){kept}; make room or mend that, then start the same command again"
        ) from error

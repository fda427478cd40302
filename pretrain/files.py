"""Writing files so that a reader never sees half of one, and naming them by content."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PROGRESS = "progress.json"
PROGRESS_S = 3.0
"""Seconds between two notes of a run's progress."""


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it over ``path`` if the block succeeds, remove it if not.

    The temporary name keeps the suffix, since some writers choose their format by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk does not say which file it refused
        raise
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as indented JSON. NaN and infinities become null: JSON has no word for them."""
    write_text(path, json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """``value`` with every non-finite float, however deep, replaced by None."""
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return value


def sha256(path: str | os.PathLike[str]) -> str:
    return digest(path, "sha256")


def digest(path: str | os.PathLike[str], kind: str) -> str:
    """Of a file's bytes, in hexadecimal; ``kind`` is one that `hashlib` has."""
    found = hashlib.new(kind)
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def note_progress(folder: str | os.PathLike[str], done: int, total: int, pace: float, **values: float) -> None:
    """Keep ``folder/progress.json`` for whoever watches the run: steps done, their total, ``pace`` in seconds a step.

    Call it after every step: it writes now and then only, but always when ``values`` (a validation's metrics, say) come, of
    which the file keeps the best so far. One process of a run calls it.
    """
    path = Path(folder) / PROGRESS
    with suppress(OSError):  # progress is worth less than the run
        if not values and done < total and path.exists() and time.time() - path.stat().st_mtime < PROGRESS_S:
            return
        best = read_progress(folder).get("best", {})
        best |= {
            name: max(value, best.get(name) or value) for name, value in finite(values).items() if value is not None
        }
        write_json(path, {"done": done, "total": total, "left_s": round((total - done) * pace, 1), "best": best})


def read_progress(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What `note_progress` wrote last; empty if nothing."""
    try:
        found = json.loads((Path(folder) / PROGRESS).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}

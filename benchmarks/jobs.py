"""A job: one command of a suite, what it waits for, and how we know that it is done."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from pretrain.files import write_json


@dataclass(frozen=True)
class Job:
    name: str
    """Path-like and unique within a suite, e.g. ``transfer/pixpro/voc_c4/seed0``."""
    command: tuple[str, ...]
    output: Path
    """The file or folder that exists once the job is done."""
    after: tuple[str, ...] = ()
    inputs: tuple[Path, ...] = ()
    """Config files whose content decides the result."""

    @property
    def key(self) -> str:
        """Changes whenever the command line or one of its config files does."""
        digest = hashlib.sha256("\0".join(self.command).encode())
        for path in self.inputs:
            digest.update(path.read_bytes())
        return digest.hexdigest()


class Records:
    """What has become of each job of a suite: one small JSON file a job below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, name: str) -> Path:
        return self.folder / f"{name.replace('/', '.')}.json"

    def done(self, job: Job) -> bool:
        """True when the job ended well with this very command and config, after what it waits for, and its output is there."""
        try:
            path = self._path(job.name)
            record = json.loads(path.read_text(encoding="utf-8"))
            made = path.stat().st_mtime_ns
            if any(self._path(name).stat().st_mtime_ns > made for name in job.after):
                return False  # what it was made from has been made again
        except (OSError, ValueError):
            return False
        return record.get("key") == job.key and record.get("status") == "done" and job.output.exists()

    def write(self, job: Job, status: str, seconds: float) -> None:
        write_json(
            self._path(job.name), {"job": job.name, "status": status, "key": job.key, "seconds": round(seconds, 1)}
        )

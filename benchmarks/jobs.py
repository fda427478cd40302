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

    def _path(self, job: Job) -> Path:
        return self.folder / f"{job.name.replace('/', '.')}.json"

    def done(self, job: Job) -> bool:
        """True when the job ended well with this very command and config, and its output is still there."""
        try:
            record = json.loads(self._path(job).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return record.get("key") == job.key and record.get("status") == "done" and job.output.exists()

    def write(self, job: Job, status: str, seconds: float) -> None:
        write_json(self._path(job), {"job": job.name, "status": status, "key": job.key, "seconds": round(seconds, 1)})

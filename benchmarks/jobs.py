"""A job: one command of a suite, what it waits for, and how we know that it is done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixbench.files import write_json


@dataclass(frozen=True)
class Job:
    name: str
    """Path-like and unique within a suite, e.g. ``transfer/pixpro/voc_c4/seed0``."""
    command: tuple[str, ...]
    """Python and its words, for one process; `argv` starts several."""
    output: Path
    """The file or folder that exists once the job is done."""
    after: tuple[str, ...] = ()
    inputs: tuple[Path, ...] = ()
    """Config files whose content decides the result."""
    gpus: int = 0
    """Processes on a machine, each with a GPU of its own; 0 for a command that needs none."""

    @property
    def command_name(self) -> str:
        """The command of `pixbench` that it starts: data, pretrain, convert or transfer."""
        return self.name.partition("/")[0]

    @property
    def key(self) -> str:
        """Changes whenever the command or one of its config files does; on how many GPUs it runs is no part of it."""
        digest = hashlib.sha256("\0".join(self.command).encode())
        for path in self.inputs:
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def argv(self, meeting: Sequence[str] = ()) -> tuple[str, ...]:
        """The words to start: through torchrun for several processes; ``meeting`` says where those of other machines meet."""
        if self.gpus < 2 and not meeting:
            return self.command
        python, *words = self.command
        meeting = meeting or ("--standalone",)
        return (python, "-m", "torch.distributed.run", *meeting, f"--nproc_per_node={max(1, self.gpus)}", *words)


class Records:
    """What has become of each job of a suite: one small JSON file a job below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, name: str) -> Path:
        return self.folder / f"{name.replace('/', '.')}.json"

    def read(self, job: Job) -> dict[str, Any]:
        """What was written last of this very command with these configs; empty if nothing."""
        try:
            record = json.loads(self._path(job.name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return record if record.get("key") == job.key else {}

    def done(self, job: Job) -> bool:
        """True when the job ended well with this very command and config, after what it waits for, and its output is there."""
        try:
            made = self._path(job.name).stat().st_mtime_ns
            if any(self._path(name).stat().st_mtime_ns > made for name in job.after):
                return False  # what it was made from has been made again
        except OSError:
            return False
        return self.read(job).get("status") == "done" and job.output.exists()

    def write(self, job: Job, status: str, seconds: float, reason: str = "") -> None:
        facts = {"job": job.name, "status": status, "key": job.key, "seconds": round(seconds, 1), "reason": reason}
        write_json(self._path(job.name), facts)

    def forget(self, job: Job) -> None:
        self._path(job.name).unlink(missing_ok=True)

"""A job: one command of a suite, the jobs that it waits for, and the record that shows whether it is done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from pixbench.errors import UserError
from pixbench.files import write_json
from pixbench.results import read_result
from transfer.weights.sources import locate


@dataclass(frozen=True)
class Job:
    """One command of a suite."""

    name: str
    """Unique within a suite and written like a path, e.g. ``transfer/pixpro/voc_c4/seed0``."""
    command: tuple[str, ...]
    """Command line of a single Python process; `argv` starts several processes."""
    output: Path
    """File or folder that exists when the job is done."""
    after: tuple[str, ...] = ()
    inputs: tuple[Path, ...] = ()
    """Config files whose content affects the result."""
    gpus: int = 0
    """Number of processes per machine, each with its own GPU; 0 for a command that needs no GPU."""
    weights: str = ""
    """The weights that a transfer starts from, if no job before it makes them."""

    @property
    def command_name(self) -> str:
        """The `pixbench` command that the job starts: data, pretrain, convert or transfer."""
        return self.name.partition("/")[0]

    @cached_property
    def key(self) -> str:
        """Hash of the command and its config files; it does not depend on the number of GPUs.

        It is that of the files when it is first asked for, at the start: a file that changes while the job runs makes it
        another job, which is not done.
        """
        digest = hashlib.sha256("\0".join(self.command).encode())
        for path in self.inputs:
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def starts_as_before(self) -> bool:
        """Whether the weights are still those that were measured; what has a version of its own (hf:, timm:) always is."""
        if not self.weights or self.weights.startswith(("hf:", "timm:")):
            return True
        try:
            measured = (read_result(self.output, older=True).get("weights") or {}).get("sha256")
            changed = tuple(file.stat().st_mtime_ns for file in locate(self.weights).files)
        except UserError:
            return False
        return measured in (None, _digest(self.weights, changed))

    def argv(self, rendezvous: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the command line, which starts several processes through torchrun.

        ``rendezvous`` contains the rendezvous options of torchrun if the job runs on several machines.
        """
        if self.gpus < 2 and not rendezvous:
            return self.command
        python, *words = self.command
        rendezvous = rendezvous or ("--standalone",)
        return (python, "-m", "torch.distributed.run", *rendezvous, f"--nproc_per_node={max(1, self.gpus)}", *words)


@cache
def _digest(weights: str, _changed: tuple[int, ...]) -> str:
    """Return the digest of the weights that many jobs of a suite start from; it is computed once."""
    return locate(weights).sha256


class Records:
    """Results of the jobs of a suite, in one small JSON file per job in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, name: str) -> Path:
        return self.folder / f"{name.replace('/', '.')}.json"

    def read(self, job: Job) -> dict[str, Any]:
        """Return the last record of exactly this command with these configs; empty if there is none."""
        try:
            record = json.loads(self._path(job.name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return record if record.get("key") == job.key else {}

    def done(self, job: Job) -> bool:
        """Whether this command with these configs and weights succeeded, after all jobs it waits for, and its output exists."""
        try:
            made = self._path(job.name).stat().st_mtime_ns
            if any(self._path(name).stat().st_mtime_ns > made for name in job.after):
                return False  # a job that it waits for has run again since then
        except OSError:
            return False
        return self.read(job).get("status") == "done" and job.output.exists() and job.starts_as_before()

    def write(self, job: Job, status: str, seconds: float, reason: str = "") -> None:
        """Record how ``job`` ended."""
        facts = {"job": job.name, "status": status, "key": job.key, "seconds": round(seconds, 1), "reason": reason}
        write_json(self._path(job.name), facts)

    def forget(self, job: Job) -> None:
        """Delete the record of ``job``."""
        self._path(job.name).unlink(missing_ok=True)

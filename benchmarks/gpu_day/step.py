"""A step of the day, and the place where it starts its commands, waits for them and looks at how they ended."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.gpu_day.machine import memory_in_use
from benchmarks.jobs import Job
from benchmarks.launch.process import failure, kill, start

ROOT = Path(__file__).resolve().parents[2]
POLL_S = 0.05
MEMORY_S = 2.0
"""Seconds between two looks at the memory of the GPUs."""
STANDALONE = ("--standalone",)
"""Options of torchrun for processes of one machine."""

Table = dict[str, dict[str, float | str]]
"""Measured figures: name of a row -> heading -> figure."""


class Failed(Exception):
    """A step did not end as it should. The message is the reason, for the report."""


def require(condition: bool, otherwise: str) -> None:
    """Raise `Failed` with the reason ``otherwise`` unless ``condition`` is true."""
    if not condition:
        raise Failed(otherwise)


@dataclass(frozen=True)
class Step:
    """One line of the report."""

    name: str
    proves: str
    """What is known if it passes."""
    run: Callable[[Place], None]
    """Runs the commands, notes figures in the place's table and checks the outcome; raises `Failed`."""
    figures: str = "Other figures"
    """Heading of the table that has its figures."""
    minutes: float = 5
    """Time limit."""
    gpus: int = 1
    """Least number of GPUs."""
    not_on_cpu: str = ""
    """Why it cannot run on a CPU; empty if it can."""

    def reason_to_skip(self, gpus: int) -> str:
        """Return why the step cannot run on a machine with so many GPUs (0: on its CPU); empty if it can."""
        if gpus == 0:
            return self.not_on_cpu
        return f"needs {self.gpus} GPUs" if gpus < self.gpus else ""


@dataclass
class Place:
    """What a step may use."""

    folder: Path
    """Its own folder, empty at first."""
    data: Path
    """Data root of a mini world."""
    gpus: int
    """Number of GPUs to use; 0 to run everything on the CPU, at the smallest size."""
    deadline: float
    """Value of `time.monotonic` at which its time is over."""
    table: Table = field(default_factory=dict)
    """What was measured; it is kept if the step fails later."""
    peaks: list[int] = field(default_factory=list)
    """Most memory in use on each GPU so far, in MB; empty without ``nvidia-smi``."""
    _looked: float = 0.0

    @property
    def processes(self) -> int:
        """Number of processes of a run on the whole machine: one per GPU, or two on a CPU."""
        return self.gpus or 2

    def look(self) -> None:
        """Note the memory of the GPUs, now and then; raise `Failed` when the time is over."""
        now = time.monotonic()
        require(now < self.deadline, "it was not finished within its time limit")
        if self.gpus and now - self._looked > MEMORY_S:
            used = memory_in_use()
            self.peaks = [max(pair) for pair in zip(self.peaks or used, used, strict=False)] or self.peaks
            self._looked = time.monotonic()

    def run(
        self, name: str, words: Sequence[object], output: Path, processes: int = 1, env: Mapping[str, str] | None = None
    ) -> Path:
        """Run a command to its end and return its log; see `starts`.

        Raises:
            Failed: It ended with an error, did not write ``output``, or was not finished in time.
        """
        with self.starts(name, words, output, processes, env=env) as command:
            command.succeed()
        return command.log

    @contextmanager
    def starts(
        self,
        name: str,
        words: Sequence[object],
        output: Path,
        processes: int = 1,
        torchrun: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> Iterator[Command]:
        """Start a command and yield it. It and all processes that it started are killed if they still run at the end.

        Args:
            name: of the command; its log is ``name.log`` in the folder of the step.
            words: the command line of one process.
            output: file or folder that a successful command leaves.
            processes: number of processes; torchrun starts them if there are several.
            torchrun: options of torchrun, to use it for one process too.
            env: further variables.
        """
        job, log = Job(name, tuple(map(str, words)), output, gpus=processes), self.folder / f"{name}.log"
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        own = {"PYTHONPATH": path, "OMP_NUM_THREADS": str(max(1, cores() // self.processes))}
        own |= {} if self.gpus else {"CUDA_VISIBLE_DEVICES": ""}
        command = Command(job, log, start(job, log, {**own, **(env or {})}, torchrun), self)
        try:
            yield command
        finally:
            if command.process.poll() is None:
                kill(command.process)
                command.process.wait()


@dataclass
class Command:
    """A command that was started."""

    job: Job
    log: Path
    process: subprocess.Popen[bytes]
    place: Place

    def output(self) -> str:
        """Return what it has printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait(self, until: Callable[[], bool] = lambda: False) -> bool:
        """Wait until it ends or ``until()`` is true; return whether it still runs."""
        while self.process.poll() is None and not until():
            self.place.look()
            time.sleep(POLL_S)
        return self.process.poll() is None

    def reach(self, until: Callable[[], bool]) -> None:
        """Wait until ``until()`` is true; raise `Failed` if the command ends before."""
        if not (self.wait(until) or until()):
            raise Failed(f"{self.job.name}: it ended too early: {self._reason() or 'without an error'}")

    def succeed(self) -> None:
        """Wait until it ends; raise `Failed` if it fails."""
        self.wait()
        if reason := self._reason():
            raise Failed(f"{self.job.name}: {reason}")

    def fail(self) -> str:
        """Wait until it ends, and return why it failed; raise `Failed` if it did not."""
        self.wait()
        require(self.process.returncode != 0, f"{self.job.name}: it should have failed, and ended without an error")
        return self._reason()

    def _reason(self) -> str:
        return failure(self.job, self.process.returncode, self.log)


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))

"""Processes that take turns in being timed.

Each piece of work has a process of its own, because the memory allocator and the peak of the memory belong to a process. Only one
works at a time, so that what else the machine does meets all of them alike.

    python -m benchmarks.speed.worker NAME THREADS

prints a line with the seconds of work and of CPU time for each line that it reads, and the peak of its memory at the end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import IO, Any, NamedTuple


class Figures(NamedTuple):
    """What was measured of one piece of work."""

    seconds: float
    """Median time of one turn."""
    cpu_seconds: float
    """Median CPU time of one turn."""
    megabytes: float
    """Peak memory of the process, less what it had after its imports; of a part of a step, and on a GPU, of its tensors."""


def take_turns(names: list[str], rounds: int, threads: int) -> dict[str, Figures]:
    """Let the work called ``names`` take turns, ``rounds`` times after one turn to warm up."""
    command = [sys.executable, "-m", "benchmarks.speed.worker"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    environment.setdefault("KINETO_LOG_LEVEL", "9")  # otherwise PyTorch's profiler prints that it finds no GPU
    with ExitStack() as stack:
        workers = {}
        for name in names:
            worker = subprocess.Popen(
                [*command, name, str(threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
            workers[name] = stack.enter_context(worker)
            _ask(worker, "ready")
        times: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for number in range(rounds + 1):
            for name, worker in workers.items():
                found = _ask(worker, "go")
                if number:
                    times[name].append(found)
        found_by = {}
        for name, worker in workers.items():
            peak = _ask(worker, "end")["megabytes"]
            seconds, cpu = (median(turn[key] for turn in times[name]) for key in ("seconds", "cpu_seconds"))
            found_by[name] = Figures(seconds, cpu, peak)
    return found_by


def _ask(worker: subprocess.Popen[str], word: str) -> dict[str, Any]:
    send: IO[str] = worker.stdin  # type: ignore[assignment]
    receive: IO[str] = worker.stdout  # type: ignore[assignment]
    send.write(f"{word}\n")
    send.flush()
    answer = receive.readline()
    if not answer:
        raise RuntimeError(f"{' '.join(map(str, worker.args))} ended; see its message above")  # type: ignore[arg-type]
    found: dict[str, Any] = json.loads(answer)
    return found


def _megabytes(which: str) -> float:
    """Return the resident memory of this process now ("VmRSS") or at its peak ("VmHWM")."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[which].split()[0]) / 1024


def _tensors(work: Callable[[], Any]) -> float:
    """Return the megabytes of the tensors that exist together at the peak of ``work``, as `max_memory_allocated` on a GPU."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        result = work()
    del result
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = (event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return max(accumulate(changes), default=0) / 2**20


def main(name: str, threads: str) -> None:
    """Do the work called ``name`` whenever a line asks for it."""
    import torch

    from benchmarks.speed.subjects import SIDED, prepare

    torch.set_num_threads(int(threads))
    on_gpu, part = name.endswith("@cuda"), name.partition(":")[0] in SIDED
    before = _megabytes("VmRSS")
    work = prepare(name)
    for line in sys.stdin:
        answer: dict[str, float] = {}
        if line.strip() == "go":
            start, cpu = time.perf_counter(), time.process_time()
            work()
            answer = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
        elif line.strip() == "end":
            on_cpu = _tensors if part else lambda _: _megabytes("VmHWM") - before
            answer = {"megabytes": torch.cuda.max_memory_allocated() / 2**20 if on_gpu else on_cpu(work)}
        print(json.dumps(answer), flush=True)
        if line.strip() == "end":
            return


if __name__ == "__main__":
    main(*sys.argv[1:])

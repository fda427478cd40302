"""Measure the bytes of the batches that a real loader holds, and compare them with `pretrain.data.in_flight`.

    python -m benchmarks.speed.in_flight [--batch 64] [--size 224] [--workers 2] [--json FILE]

The loader of a run takes one batch and then waits until all workers have nothing left to do. What lies in /dev/shm is counted by
the files there that the processes hold open. What a worker holds while it makes a batch is the largest of many samples of its own
memory, less what it had when it was idle at the start.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from tabulate import tabulate

from benchmarks.input_rate import photos
from pixbench.files import write_json
from pixbench.paths import CONFIGS
from pretrain.config import parse
from pretrain.data.in_flight import in_flight
from pretrain.data.loader import Batches, ViewLoader
from pretrain.data.order import EpochOrder
from pretrain.data.sources import open_source
from pretrain.data.two_views import TwoViews
from pretrain.settings import RunConfig

SAMPLE_S = 0.01
"""Seconds between two samples of the memory of the workers."""
SETTLED_S = 3.0
"""Seconds in which the workers do nothing if the loader is full."""
IDLE = 0.03
"""CPU seconds that count as nothing: workers look now and then whether they are still needed."""


def handed_over() -> int:
    """Return the bytes of the files in /dev/shm that this process and its children hold open, each counted once."""
    files: dict[int, int] = {}
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        for link in Path(f"/proc/{process.pid}/fd").iterdir():
            try:
                if os.readlink(link).startswith("/dev/shm/torch_"):
                    about = os.stat(link)
                    files[about.st_ino] = 512 * about.st_blocks
            except OSError:  # closed meanwhile
                continue
    return sum(files.values())


def own_memory(process: int) -> int:
    """Return the bytes of a process that belong to no file, with its share of what it has in common with others."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0
    return 1024 * sum(map(int, re.findall(r"^Pss_Anon: +(\d+) kB", text, re.MULTILINE)))


class Peaks(threading.Thread):
    """Sample `own_memory` of all children of this process until `stop`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.first: dict[int, int] = {}
        self.most: dict[int, int] = {}
        self._stop_asked = threading.Event()

    def run(self) -> None:
        """Sample."""
        while not self._stop_asked.wait(SAMPLE_S):
            for child in psutil.Process().children():
                if now := own_memory(child.pid):
                    self.first.setdefault(child.pid, now)
                    self.most[child.pid] = max(now, self.most.get(child.pid, 0))

    def stop(self) -> list[int]:
        """Stop, and return for each child how much its memory grew."""
        self._stop_asked.set()
        self.join()
        return [most - self.first[pid] for pid, most in self.most.items()]


def filled(config: RunConfig, root: Path) -> Iterator[int]:
    """Yield the bytes that have been handed over once the loader is full, while its workers still live."""
    source, data = open_source(root, "flat"), config.data
    views = TwoViews(source, size=data.image_size, scale=(data.min_scale, 1.0), recipe=data.recipe, seed=0, cache=False)
    order = Batches(EpochOrder(len(source)), config.batch_size, seed=0, first=0, last=100)
    loader = iter(ViewLoader(views, order, workers=data.workers))
    held = next(loader)  # in use by a step
    worked, before = cpu_seconds(), -1.0
    while worked - before > IDLE:
        time.sleep(SETTLED_S)
        worked, before = cpu_seconds(), worked
    yield handed_over()
    del held


def cpu_seconds() -> float:
    """Return the time that the children of this process have computed."""
    return sum(sum(child.cpu_times()[:2]) for child in psutil.Process().children())


def measure(config: RunConfig) -> dict[str, Any]:
    """Return what was measured and what the formulas say, in bytes of each worker."""
    with tempfile.TemporaryDirectory() as folder:
        files = photos()
        for number in range(config.batch_size):
            (Path(folder) / f"{number}.jpg").write_bytes(files[number % len(files)])
        peaks = Peaks()
        peaks.start()
        (shared,) = filled(config, Path(folder))
        grown = peaks.stop()
    said, workers = in_flight(config, 1, gpu=False), config.data.workers
    return {
        **{"batch": said.batch, "workers": workers, "image_size": config.data.image_size, "images": config.batch_size},
        **{"shared": shared / workers, "shared_formula": said.shared / workers},
        **{"making": max(grown), "making_formula": said.making / workers},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64, help="images in a process's part of a batch")
    parser.add_argument("--size", type=int, default=224, help="side of a view in pixels")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    args = parser.parse_args()
    config = parse(["--config", str(CONFIGS / "pretrain" / "pixpro_100ep.yaml")])
    data = replace(config.data, image_size=args.size, workers=args.workers)
    found = measure(replace(config, data=data, batch_size=args.batch))
    rows = [
        (what, f"{found[key] / 2**20:.1f}", f"{found[f'{key}_formula'] / 2**20:.1f}")
        for key, what in (("shared", "finished batches in /dev/shm"), ("making", "while it makes a batch"))
    ]
    print(tabulate(rows, ("of each worker", "measured (MiB)", "formula (MiB)"), disable_numparse=True))
    if args.json:
        write_json(args.json, found)


if __name__ == "__main__":
    main()

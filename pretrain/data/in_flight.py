"""Bytes of the batches on their way from the data workers to the training processes, and whether a machine has room for them.

Shapes: B images in a process's part of a batch, S view size. A view is (3, S, S) uint8, as `pretrain.data.loader` hands it over.
`python -m benchmarks.speed.in_flight` compares these numbers with a real loader.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import psutil

from pretrain.settings import RunConfig

PREFETCH = 2
"""Batches that each data worker prepares ahead."""
SHARED = Path("/dev/shm")
"""File system in memory through which workers hand over their batches."""
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


class InFlight(NamedTuple):
    """The most bytes that all loaders of one machine hold at a time."""

    batch: int
    """One process's part of a batch: two views of B images, and their local crops."""
    shared: int
    """Finished batches in /dev/shm: `PREFETCH` for each worker, and one in use for each process."""
    making: int
    """What the workers hold while each makes a batch: its samples, and the tensors that they are copied into."""
    pinned: int
    """Copies from which a GPU reads. PyTorch keeps this memory, and rounds each tensor up to a power of two."""

    @property
    def memory(self) -> int:
        """All of it: what is in /dev/shm counts as memory, too."""
        return self.shared + self.making + self.pinned


def in_flight(config: RunConfig, processes: int, here: int | None = None, gpu: bool = True) -> InFlight:
    """Return what the loaders of a run of ``config`` hold on one machine.

    Args:
        config: settings of the run.
        processes: number of training processes.
        here: how many of them are on this machine; None for all.
        gpu: whether batches are copied to a GPU.
    """
    here, workers = processes if here is None else here, config.data.workers
    images, data = config.batch_size // processes, config.data
    view, local = images * 3 * data.image_size**2, images * 3 * data.local_crops * data.local_size**2
    batches = here * (workers * PREFETCH + 1)  # and the one that is in use
    return InFlight(
        batch=2 * view + local,
        shared=batches * (2 * view + local) if workers else 0,
        making=here * max(1, workers) * 2 * (2 * view + local),
        pinned=batches * sum(1 << (size - 1).bit_length() for size in (view, view, local) if size) if gpu else 0,
    )


def shortages(config: RunConfig, processes: int, here: int | None = None, gpu: bool = True) -> list[str]:
    """Return a sentence with advice for each place of this machine that is too small for the batches in flight."""
    need = in_flight(config, processes, here, gpu)
    workers = f"{config.data.workers} data workers for each of {here or processes} processes"
    places = ((f"{SHARED} has", need.shared, free_shared()), ("this machine has", need.memory, free_memory()))
    return [
        f"{place} {readable(free)} free, but {workers} may hold {readable(wanted)} of batches; "
        f"{fitting(config, processes, here, gpu)}"
        for place, wanted, free in places
        if wanted > free
    ]


def fitting(config: RunConfig, processes: int, here: int | None = None, gpu: bool = True) -> str:
    """Return what to do so that the batches in flight fit into this machine."""
    shared, memory = free_shared(), free_memory()
    for workers in range(config.data.workers - 1, 0, -1):
        fewer = replace(config, data=replace(config.data, workers=workers))
        need = in_flight(fewer, processes, here, gpu)
        if need.shared <= shared and need.memory <= memory:
            return f"lower data.workers to {workers}"
    return "lower batch_size, or take a machine with more memory"


def free_shared() -> int:
    """Return the free bytes of /dev/shm; more than enough where there is none."""
    if not SHARED.is_dir():
        return 1 << 62
    about = os.statvfs(SHARED)
    return about.f_bavail * about.f_frsize


def free_memory() -> int:
    """Return the bytes of memory that this process may still use: what is available, and at most the limit of its cgroup."""
    return min([psutil.virtual_memory().available, *_limits()])


def _limits() -> list[int]:
    """Return the memory limits of the cgroups of this process (containers and Slurm set them), of both versions."""
    found = []
    try:
        lines = OWN_CGROUPS.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        base, name = CGROUPS / controllers, "limit_in_bytes" if controllers else "max"
        folder = base / path.lstrip("/")
        for place in (folder, *folder.parents):
            if place.is_relative_to(base):
                found += _number(place / f"memory.{name}")
    return found


def _number(path: Path) -> list[int]:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return []
    return [int(text)] if text.isdigit() else []


def readable(count: float) -> str:
    """Return so many bytes in GiB, or in MiB if they are few."""
    if count < 2**30:
        return f"{count / 2**20:.0f} MiB"
    return f"{count / 2**30:.{0 if count >= 10 * 2**30 else 1}f} GiB"

"""Measure the memory that a run takes."""

from __future__ import annotations

import time
from contextlib import suppress

import psutil
import torch

RARELY = 1000
"""After a measurement, the next one waits so many times as long as it took, so all of them take at most 0.1 % of the time."""


class Memory:
    """Memory of this process in GB: the peak of its tensors on a GPU, otherwise what it and its workers hold now.

    Memory that several processes share, such as images in a cache, counts once where the system says how much that is (PSS,
    on Linux). Adding it up takes about 20 ms for each gigabyte, so the last figure is repeated for a while.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._next, self._last = device, 0.0, 0.0

    def gigabytes(self) -> float:
        """Return the memory in GB (10⁹ bytes). It does not wait for a GPU."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 1e9
        if (began := time.monotonic()) >= self._next:
            own = psutil.Process()
            self._last = sum(_held(process) for process in (own, *own.children(recursive=True))) / 1e9
            ended = time.monotonic()
            self._next = ended + RARELY * (ended - began)
        return self._last


def _held(process: psutil.Process) -> int:
    with suppress(psutil.Error):  # a worker has ended meanwhile, or belongs to another user
        full = process.memory_full_info()
        return getattr(full, "pss", full.rss)
    return 0

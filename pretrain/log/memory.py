"""Measure the memory that a run takes."""

from __future__ import annotations

import time

import torch

from pixbench.usage import held

RARELY = 1000
"""After a measurement, the next one waits so many times as long as it took, so all of them take at most 0.1 % of the time."""


class Memory:
    """Memory of this process in GB: the peak of its tensors on a GPU, otherwise what it and its workers hold now.

    Adding the latter up takes time (`pixbench.usage.held`), so the last figure is repeated for a while.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._next, self._last = device, 0.0, 0.0

    def gigabytes(self) -> float:
        """Return the memory in GB (10⁹ bytes). It does not wait for a GPU."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 1e9
        if (began := time.monotonic()) >= self._next:
            self._last = held() / 1e9
            ended = time.monotonic()
            self._next = ended + RARELY * (ended - began)
        return self._last

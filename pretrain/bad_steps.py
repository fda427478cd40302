"""Count the steps that were skipped because their loss or a gradient was not finite."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class BadSteps:
    """How many steps were skipped. The counts are saved in the checkpoint, so a run that is continued counts on.

    Every process counts the same, because the loss is the mean over the processes, and so are the gradients.
    """

    most: int
    """Number of bad steps in a row with which a run still goes on."""
    total: int = 0
    in_a_row: int = 0
    """Number of bad steps up to the last counted step; 0 if that one was good."""

    def count(self, bad: bool) -> None:
        """Count one more step."""
        self.in_a_row = self.in_a_row + 1 if bad else 0
        self.total += bad

    @property
    def too_many(self) -> bool:
        """Whether the run must stop."""
        return self.in_a_row > self.most

    def state(self) -> dict[str, int]:
        """Return what a checkpoint holds."""
        return {"total": self.total, "in_a_row": self.in_a_row}


@dataclass
class LateFlags:
    """The flags of the last steps, on their way from the device: they are read `LAG` steps later, when the host need not wait.

    The lag does not depend on time, so all processes read the flag of a step at the same moment.
    """

    _waiting: deque[tuple[int, Tensor, torch.cuda.Event | None]] = field(default_factory=deque)

    LAG = 2

    def add(self, step: int, flag: Tensor) -> None:
        """Begin to fetch ``flag``, a bool tensor of step ``step``."""
        if not flag.is_cuda:
            self._waiting.append((step, flag, None))
            return
        copy = torch.empty_like(flag, device="cpu", pin_memory=True).copy_(flag, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        self._waiting.append((step, copy, arrived))

    def read(self, everything: bool) -> Iterator[tuple[int, bool]]:
        """Yield (step, flag) of the steps that are old enough, or of all with ``everything``. Each comes once."""
        while self._waiting:
            _, flag, arrived = self._waiting[0]
            if arrived is not None and not everything and len(self._waiting) <= self.LAG:
                return
            step, flag, arrived = self._waiting.popleft()
            if arrived is not None:
                arrived.synchronize()
            yield step, bool(flag)

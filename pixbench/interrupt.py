"""Stopping a run on purpose: finish the step, save, leave."""

from __future__ import annotations

import atexit
import mmap
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from types import FrameType, TracebackType
from typing import Any


def numbers() -> list[int]:
    """The signals that ask a run to stop: Ctrl-C, a scheduler's polite end, a closed terminal unless `nohup` wished otherwise."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM] if ignored else [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


_over = mmap.mmap(-1, 1)
"""Shared with all workers: 1 once this process ends. Python then ends what workers there still are, by SIGTERM."""


def shielded(loader: Any) -> Any:
    """A DataLoader whose workers, which are still to be started, leave it to the parent when to stop.

    These signals often reach every process of a run. PyTorch lets its workers die of SIGTERM, and the parent would then
    report a dead worker instead of saving.
    """
    atexit.register(_over.__setitem__, 0, 1)  # here, after multiprocessing has registered what is to come later
    loader.worker_init_fn = partial(_shield, loader.worker_init_fn)
    return loader


def _shield(begin: Callable[[int], None] | None, worker: int) -> None:
    for number in numbers():
        signal.signal(number, lambda *_: os._exit(0) if _over[0] else None)
    if begin:
        begin(worker)


class StopSignal:
    """Turns the first SIGINT, SIGTERM or SIGHUP into a wish to stop; one that comes later stops at once.

    Later means two seconds: torchrun passes on a Ctrl-C that the terminal has already sent to every process.
    """

    def __init__(self) -> None:
        self.wished = 0.0
        """When the first signal came; 0 as long as none did."""
        self.everywhere = False
        """The processes have agreed to stop before the next step."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        self._before = {number: signal.signal(number, self._note) for number in numbers()}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.wished and time.monotonic() - self.wished > 2:
            raise KeyboardInterrupt
        self.wished = self.wished or time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

"""Stopping a run on purpose: finish the step, save, leave."""

from __future__ import annotations

import signal
import time
from types import FrameType, TracebackType
from typing import Any


class StopSignal:
    """Turns the first SIGINT or SIGTERM into a wish to stop; one that comes later stops at once.

    Later means two seconds: torchrun passes on a Ctrl-C that the terminal has already sent to every process.
    """

    def __init__(self) -> None:
        self.wished = 0.0
        """When the first signal came; 0 as long as none did."""
        self.everywhere = False
        """The processes have agreed to stop before the next step."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
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

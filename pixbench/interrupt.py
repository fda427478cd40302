"""Stop a run on request: finish the step, save, and exit. Or only save, and go on."""

from __future__ import annotations

import atexit
import mmap
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType, TracebackType
from typing import Any


def stop_signals() -> list[int]:
    """Return the signals that ask a run to stop.

    SIGINT comes from Ctrl-C, SIGTERM from a scheduler, and SIGHUP from a closed terminal. `nohup` makes a run ignore SIGHUP.
    """
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM] if ignored else [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


_over = mmap.mmap(-1, 1)
"""Flag shared with all workers: 1 as soon as this process exits. Python then ends the remaining workers with
SIGTERM, and the workers must not ignore that SIGTERM."""


def shielded(loader: Any) -> Any:
    """Make the workers of a DataLoader ignore stop signals, and return the loader. Call it before the workers start.

    These signals often reach every process of a run. By default, PyTorch's workers die of SIGTERM, and the main process
    would then report a dead worker instead of saving.
    """
    atexit.register(_over.__setitem__, 0, 1)  # after multiprocessing's own exit function, so that it runs first
    loader.worker_init_fn = partial(_shield, loader.worker_init_fn)
    return loader


def _shield(begin: Callable[[int], None] | None, worker: int) -> None:
    for number in stop_signals():
        signal.signal(number, lambda *_: os._exit(0) if _over[0] else None)
    if begin:
        begin(worker)


STOPPING = b"\nstopping: this step is finished and saved first; a second Ctrl-C ends the run at once, unsaved\n"


class StopSignal:
    """Record the first SIGINT, SIGTERM or SIGHUP as a request to stop. A later signal stops the process at once.

    "Later" means more than two seconds after the first, because torchrun forwards a Ctrl-C that the terminal has already
    sent to every process.
    """

    def __init__(self) -> None:
        self.asked_at = 0.0
        """Time of the first signal (`time.monotonic`); 0 if there was none."""
        self.agreed = False
        """Whether the processes have agreed to stop before the next step."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        self._before = {number: signal.signal(number, self._note) for number in stop_signals()}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked_at and time.monotonic() - self.asked_at > 2:
            raise KeyboardInterrupt
        if not self.asked_at and os.environ.get("RANK", "0") == "0":
            with suppress(OSError):  # the terminal may be gone
                os.write(2, STOPPING)  # print fails in the middle of another print
        self.asked_at = self.asked_at or time.monotonic()

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class SaveSignal:
    """Record a SIGUSR1 as a request to save a checkpoint and to go on. Without it, SIGUSR1 would end the process.

    Data workers inherit the handler, in which nothing happens to them.
    """

    def __init__(self) -> None:
        self.agreed = False
        """Whether the processes have agreed to save before the next step."""
        self._asked = False
        self._before: Any = None

    def take(self) -> bool:
        """Return whether there was a signal since the last call."""
        if not self._asked:
            return False
        self._asked = False  # only after it was seen: a signal that comes now counts for the next call
        return True

    def __enter__(self) -> SaveSignal:
        self._before = signal.signal(signal.SIGUSR1, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGUSR1, self._before)

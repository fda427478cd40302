"""Lines that a fine-tuning run prints now and then, the same in both frameworks."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from pretrain.files import note_progress

LINES = 10
"""Progress lines of a short run; a long one prints at least one every `MOST_S` seconds."""
MOST_S = 60.0


class Lines:
    """Of a run of ``total`` iterations in ``folder`` that begins, or goes on, after ``first`` of them."""

    def __init__(self, say: Callable[[str], None], folder: str | Path, first: int, total: int) -> None:
        self._say, self._folder, self._first, self._total = say, folder, first, total
        self._began = self._last = time.monotonic()
        if 0 < first < total:
            say(f"going on from iteration {first} of {total}")

    def pace(self, done: int) -> float:
        """Seconds an iteration so far."""
        return (time.monotonic() - self._began) / max(1, done - self._first)

    def tick(self, done: int, loss_and_rate: Callable[[], tuple[float, float]]) -> None:
        """Call it after each iteration, in one process; ``loss_and_rate`` is asked only if a line is due."""
        total, pace, now = self._total, self.pace(done), time.monotonic()
        note_progress(self._folder, done, total, pace)
        if done < total and done % max(1, total // LINES) and now - self._last < MOST_S:
            return
        self._last, (loss, rate) = now, loss_and_rate()
        left = timedelta(seconds=round(pace * (total - done)))
        self._say(
            f"iteration {done:>{len(str(total))}}/{total}  loss {loss:.3f}  lr {rate:.5f}  {pace:.2f} s/it  {left} left"
        )

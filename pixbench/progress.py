"""Report how far work is: in `progress.json`, in the progress lines that a fine-tuning run prints, and in counts of files."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO

from pixbench.curve import CURVE_FILE, POINTS, cut_back, note_point
from pixbench.files import finite, write_json

PROGRESS = "progress.json"
PROGRESS_S = 3.0
"""Seconds between two updates of `progress.json`."""

LINES = 10
"""Number of progress lines of a short run. A long run prints at least one line every `MOST_S` seconds."""
MOST_S = 60.0
LINE_S = 10.0
"""Seconds between the lines that stand for a progress bar if there is no terminal."""


class ProgressLines:
    """Progress lines of a run in ``folder`` that starts after iteration ``first`` and ends after iteration ``total``.

    The learning curve of the run is noted too.
    """

    def __init__(self, say: Callable[[str], None], folder: str | Path, first: int, total: int) -> None:
        self._say, self._folder, self._first, self._total = say, folder, first, total
        self._curve = Path(folder) / CURVE_FILE
        cut_back(self._curve, first)
        self._began = self._last = time.monotonic()
        if 0 < first < total:
            say(f"going on from iteration {first} of {total}")

    def pace(self, done: int) -> float:
        """Return the seconds per iteration so far."""
        return (time.monotonic() - self._began) / max(1, done - self._first)

    def measured(self, done: int, metrics: dict[str, float]) -> None:
        """Note the ``metrics`` of an evaluation after iteration ``done`` in the curve."""
        note_point(self._curve, done, metrics)

    def tick(self, done: int, loss_and_rate: Callable[[], tuple[float, float]]) -> None:
        """Update the progress. Call it after each iteration, in one process.

        ``loss_and_rate`` is called only for a line and for a point of the curve.
        """
        total, pace, now = self._total, self.pace(done), time.monotonic()
        note_progress(self._folder, done, total, pace)
        if done % max(1, total // POINTS) == 0 or done == total:
            loss, rate = loss_and_rate()
            note_point(self._curve, done, {"loss": loss, "lr": rate})
        if done < total and done % max(1, total // LINES) and now - self._last < MOST_S:
            return
        self._last, (loss, rate) = now, loss_and_rate()
        left = timedelta(seconds=round(pace * (total - done)))
        self._say(
            f"iteration {done:>{len(str(total))}}/{total}  loss {loss:.3f}  lr {rate:.5f}  {pace:.2f} s/it  {left} left"
        )


@contextmanager
def counting(total: int, title: str, unit: str) -> Iterator[Callable[[int], object]]:
    """Show on stderr how many of ``total`` are done: a bar in a terminal, otherwise a line every `LINE_S` seconds.

    Yield the function that counts further ones.
    """
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=total, desc=title, unit=f" {unit}", leave=False, delay=1, mininterval=1) as bar:
            yield bar.update
        return
    done, began = 0, time.monotonic()
    last = began

    def count(more: int) -> None:
        nonlocal done, last
        done, now = done + more, time.monotonic()
        if now - last < LINE_S:
            return
        last, left = now, timedelta(seconds=round((now - began) / done * (total - done)))
        show(f"{title}: {done} of {total} {unit}, {left} left", sys.stderr)

    yield count


def show(text: str, stream: TextIO) -> None:
    """Print ``text`` on ``stream``. A terminal that is gone, or a reader that stopped, must not end a run."""
    with screen_may_be_gone():
        print(text, file=stream, flush=True)


@contextmanager
def screen_may_be_gone() -> Iterator[None]:
    """Ignore errors of the screen in the block, which does nothing else than to write there."""
    with suppress(OSError, ValueError):  # ValueError: the stream is closed
        yield


def note_progress(folder: str | os.PathLike[str], done: int, total: int, pace: float, **values: float) -> None:
    """Write ``folder/progress.json``: the finished steps, their total, the seconds left and the best ``values`` so far.

    Call it after every step, in one process of a run. It writes every `PROGRESS_S` seconds, and always at the end or when
    ``values`` (for example the metrics of a validation) are given. ``pace`` is in seconds per step.
    """
    path = Path(folder) / PROGRESS
    with suppress(OSError):  # an error here must not stop the run
        if not values and done < total and path.exists() and time.time() - path.stat().st_mtime < PROGRESS_S:
            return
        best = read_progress(folder).get("best", {})
        best |= {
            name: max(value, best.get(name) or value) for name, value in finite(values).items() if value is not None
        }
        write_json(path, {"done": done, "total": total, "left_s": round((total - done) * pace, 1), "best": best})


def read_progress(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what `note_progress` wrote last, or {} if there is nothing to read."""
    try:
        found = json.loads((Path(folder) / PROGRESS).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError, RecursionError):
        return {}

"""What a run tells while it goes: log.jsonl, TensorBoard, and a progress bar (or a line now and then)."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from tqdm import tqdm

from pixbench.files import finite, write_text
from pixbench.progress import note_progress

JSONL = "log.jsonl"
LINE_SECONDS = 10.0
"""Seconds between progress lines where there is no terminal to draw a bar on."""


class RunLog:
    """Logs into ``folder`` the steps after ``first``, up to ``total``; lines of later steps than ``first`` are removed.

    ``seconds``: how long the run trained before it was continued.
    """

    def __init__(
        self, folder: Path, *, first: int, total: int, steps_per_epoch: int, batch_size: int, seconds: float
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter  # a second of imports

        _cut_back(folder / JSONL, first)
        self.total, self.steps_per_epoch, self.batch_size = total, steps_per_epoch, batch_size
        self._path = folder / JSONL
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first + 1)
        self._bar = tqdm(total=total, initial=first, unit="step", disable=not sys.stderr.isatty(), dynamic_ncols=True)
        self._first, self._began = first, time.monotonic()
        self._start = self._began - seconds
        self._last_step, self._last_time = first, self._began
        self._last_line = 0.0

    @property
    def seconds(self) -> float:
        """How long the run has trained, the time before it was continued included."""
        return time.monotonic() - self._start

    def tick(self, step: int) -> None:
        """Step ``step`` is done, one more than before."""
        self._bar.update()
        pace = (time.monotonic() - self._began) / (step - self._first)
        note_progress(self._path.parent, step, self.total, pace)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Log what step ``step`` (the first is 1) gave: "loss", "lr" and whatever else the method reports."""
        now = time.monotonic()
        pace = (step - self._last_step) / max(now - self._last_time, 1e-9)  # steps a second
        self._last_step, self._last_time = step, now
        epoch, images_per_s = step / self.steps_per_epoch, pace * self.batch_size
        record = {"step": step, "epoch": round(epoch, 4), **values, "images_per_s": round(images_per_s, 2)}
        with open(self._path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(finite({**record, "time": round(self.seconds, 2)})) + "\n")
        for name in (*values, "images_per_s"):
            self._board.add_scalar(name, record[name], step)
        text = f"loss {values['loss']:.4f}, lr {values['lr']:.3g}, {images_per_s:.0f} images/s"
        self._bar.set_description(f"epoch {epoch:.1f}, {text}")
        if self._bar.disable and (now - self._last_line >= LINE_SECONDS or step == self.total):
            self._last_line = now
            epochs = self.total // self.steps_per_epoch
            left = tqdm.format_interval((self.total - step) / pace)
            print(f"epoch {epoch:.1f}/{epochs}, step {step}/{self.total}, {text}, {left} left", flush=True)

    def close(self) -> None:
        self._bar.close()
        self._board.close()


def _cut_back(path: Path, step: int) -> None:
    """Drop the lines of ``path`` that are of later steps than ``step``, and a last line that is not whole."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] > step:
                break
        except (ValueError, KeyError, TypeError):
            break
        kept.append(f"{line}\n")
    write_text(path, "".join(kept))

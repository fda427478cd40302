"""Log a run while it trains: log.jsonl, TensorBoard, and a progress bar (or progress lines)."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from tqdm import tqdm

from pixbench.file_versions import STEP_LOG
from pixbench.files import finite, write_text
from pixbench.progress import note_progress

LINE_SECONDS = 10.0
"""Seconds between progress lines if there is no terminal for a progress bar."""


class StepLog:
    """Log the steps after ``first``, up to ``total``, in ``folder``. Old lines of steps after ``first`` are removed.

    ``seconds`` is the time that the run had trained before it was continued.
    """

    def __init__(
        self, folder: Path, *, first: int, total: int, steps_per_epoch: int, batch_size: int, seconds: float
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter  # the import takes a second

        _cut_back(folder / STEP_LOG, first)
        self.total, self.steps_per_epoch, self.batch_size = total, steps_per_epoch, batch_size
        self._path = folder / STEP_LOG
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first + 1)
        self._bar = tqdm(total=total, initial=first, unit="step", disable=not sys.stderr.isatty(), dynamic_ncols=True)
        self._first, self._began = first, time.monotonic()
        self._start = self._began - seconds
        self._last_step, self._last_time = first, self._began
        self._last_line = 0.0

    @property
    def seconds(self) -> float:
        """Training time of the run in seconds, including the time before it was continued."""
        return time.monotonic() - self._start

    def tick(self, step: int) -> None:
        """Update the progress after step ``step``. Call it after every step."""
        self._bar.update()
        pace = (time.monotonic() - self._began) / (step - self._first)
        note_progress(self._path.parent, step, self.total, pace)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Log the values of step ``step`` (the first is 1): "loss", "lr" and the other values that the method returns."""
        now = time.monotonic()
        pace = (step - self._last_step) / max(now - self._last_time, 1e-9)  # steps per second
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
        """Close the progress bar and the TensorBoard log."""
        self._bar.close()
        self._board.close()


def _cut_back(path: Path, step: int) -> None:
    """Remove the lines of steps after ``step`` from ``path``, and an incomplete last line."""
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

"""Log a run while it trains: log.jsonl, TensorBoard, and a progress bar (or progress lines)."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pixbench.file_versions import STEP_LOG
from pixbench.files import finite, write_text
from pixbench.progress import note_progress
from pretrain.data.views import Views
from pretrain.run import Run
from pretrain.watcher import Watcher

LINE_SECONDS = 10.0
"""Seconds between progress lines if there is no terminal for a progress bar."""


class StepLog(Watcher):
    """Log the steps of ``run`` that follow, in its folder. Old lines of these steps are removed."""

    def __init__(self, run: Run) -> None:
        from torch.utils.tensorboard import SummaryWriter  # the import takes a second

        first, total = run.step, run.total_steps
        self._path = run.out / STEP_LOG
        _cut_back(self._path, first)
        self._board = SummaryWriter(str(run.out / "tensorboard"), purge_step=first + 1)
        self._bar = tqdm(total=total, initial=first, unit="step", disable=not sys.stderr.isatty(), dynamic_ncols=True)
        self._first, self._began = first, time.monotonic()
        self._start = self._began - run.seconds
        self._last_step, self._last_time = first, self._began
        self._last_line = 0.0
        self._recovered = {"recovered": str(run.recovered)} if run.recovered else {}  # for the first line

    @property
    def seconds(self) -> float:
        """Training time of the run in seconds, including the time before it was continued."""
        return time.monotonic() - self._start

    def after_step(self, run: Run, views: Views, values: dict[str, Any]) -> None:
        """Update the progress, and every `log_every` steps log the values: "loss", "lr" and those of the method."""
        step = run.step
        self._bar.update()
        note_progress(run.out, step, run.total_steps, (time.monotonic() - self._began) / (step - self._first))
        if is_logged(run):
            self._write(run, {name: float(value) for name, value in values.items()})
        run.seconds = self.seconds

    def _write(self, run: Run, values: dict[str, float]) -> None:
        now, step, total = time.monotonic(), run.step, run.total_steps
        pace = (step - self._last_step) / max(now - self._last_time, 1e-9)  # steps per second
        self._last_step, self._last_time = step, now
        epoch, images_per_s = step / run.steps_per_epoch, pace * run.config.batch_size
        if run.bad_steps.total:
            values["bad_steps"] = run.bad_steps.total
        record = {"step": step, "epoch": round(epoch, 4), **values, "images_per_s": round(images_per_s, 2)}
        if run.skipped:
            record["skipped"] = len(run.skipped)
        with open(self._path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(finite({**record, "time": round(self.seconds, 2), **self._recovered})) + "\n")
        self._recovered = {}
        for name in (*values, "images_per_s"):
            self._board.add_scalar(name, record[name], step)
        text = f"loss {values['loss']:.4f}, lr {values['lr']:.3g}, {images_per_s:.0f} images/s"
        if run.skipped:
            text += f", {len(run.skipped)} skipped"
        self._bar.set_description(f"epoch {epoch:.1f}, {text}")
        if self._bar.disable and (now - self._last_line >= LINE_SECONDS or step == total):
            self._last_line = now
            left = tqdm.format_interval((total - step) / pace)
            print(f"epoch {epoch:.1f}/{run.config.epochs}, step {step}/{total}, {text}, {left} left", flush=True)

    def close(self) -> None:
        """Close the progress bar and the TensorBoard log."""
        self._bar.close()
        self._board.close()


def is_logged(run: Run) -> bool:
    """Return whether the last finished step has a line in the log."""
    return run.step == 1 or run.step % run.config.log_every == 0 or run.step == run.total_steps


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

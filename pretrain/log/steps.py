"""Log a run while it trains: log.jsonl, TensorBoard, the screen, and trackers."""

from __future__ import annotations

import time
from typing import Any

from pixbench.curve import cut_back, note_point
from pixbench.file_versions import STEP_LOG
from pixbench.progress import note_progress
from pretrain.data.loader import ViewLoader
from pretrain.data.views import Views
from pretrain.log.memory import Memory
from pretrain.log.pictures import is_due, picture
from pretrain.log.screen import Screen, tell
from pretrain.log.trackers import Reports
from pretrain.log.view_samples import keep_views
from pretrain.methods.base import MomentumMethod
from pretrain.run import Run
from pretrain.watcher import Watcher

COLLAPSED = 0.05
"""Feature spread below which features are nearly equal; 1 is that of features that are uniform on a sphere."""


class StepLog(Watcher):
    """Log the steps of ``run`` that follow, in its folder. Old lines of these steps are removed.

    ``loader`` gives the run its batches.
    """

    def __init__(self, run: Run, loader: ViewLoader) -> None:
        from torch.utils.tensorboard import SummaryWriter  # the import takes a second

        first, total = run.step, run.total_steps
        self._run, self._loader = run, loader
        self._path = run.out / STEP_LOG
        cut_back(self._path, first)
        self._board = SummaryWriter(str(run.out / "tensorboard"), purge_step=first + 1)
        self._screen, self._memory, self._reports = (
            Screen(first, total, run.config.epochs),
            Memory(run.device),
            Reports(run),
        )
        self._first, self._began = first, time.monotonic()
        self._start = self._began - run.seconds
        self._last_step, self._last_time, self._last_wait = first, 0.0, loader.waited
        self._warned = False
        self._recovered = {"recovered": str(run.recovered)} if run.recovered else {}  # for the first line

    @property
    def seconds(self) -> float:
        """Training time of the run in seconds, including the time before it was continued."""
        return time.monotonic() - self._start

    def _stepping(self) -> float:
        """Return the seconds since this log began that went into steps: what speed and time left are computed from."""
        return time.monotonic() - self._began - self._run.aside

    def after_step(self, run: Run, views: Views, values: dict[str, Any]) -> None:
        """Update the progress, and log the values if they are due: every `log_every` steps, and with each k-NN accuracy."""
        step = run.step
        self._screen.step(run.aside)
        note_progress(run.out, step, run.total_steps, self._stepping() / (step - self._first))
        if is_logged(run) or "knn" in values:
            self._write(run, {name: float(value) for name, value in values.items()})
        if step == 1:
            began = time.monotonic()
            keep_views(run, views)
            run.aside += time.monotonic() - began
        if is_due(run):
            self._board.add_image("views", picture(run.config, views), step, dataformats="HWC")
        run.seconds = self.seconds

    def _write(self, run: Run, values: dict[str, float]) -> None:
        now, step = self._stepping(), run.step
        busy = max(now - self._last_time, 1e-9)  # seconds of the steps since the last line
        pace, waited = (step - self._last_step) / busy, self._loader.waited - self._last_wait
        self._last_step, self._last_time, self._last_wait = step, now, self._loader.waited
        if isinstance(run.method, MomentumMethod):
            values["momentum"] = run.method.momentum_encoder.momentum()
        if run.bad_steps.total:
            values["bad_steps"] = run.bad_steps.total
        if run.skipped:
            values["skipped"] = len(run.skipped)
        values["images_per_s"] = round(pace * run.config.batch_size, 2)
        values["data_wait"] = round(min(waited / busy, 1), 4)
        values["memory_gb"] = round(self._memory.gigabytes(), 3)
        record = {"step": step, "epoch": round(step / run.steps_per_epoch, 4), **values, "time": round(self.seconds, 2)}
        note_point(self._path, step, {**record, **self._recovered})
        self._recovered = {}
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        self._reports.send(step, values)
        self._screen.show({**record, "steps_per_s": pace})
        if values.get("feature_std", 1) < COLLAPSED and not self._warned:
            self._warned = True
            tell(
                f"warning: the features have nearly collapsed: feature_std is {values['feature_std']:.3g} at step {step} (0: all "
                "equal, 1: spread evenly); if it stays there, the run learns nothing: lower optimizer.base_lr or look at the "
                "views (docs/watching.md)"
            )

    def close(self) -> None:
        """Close the progress bar, the TensorBoard log and the trackers."""
        self._screen.close()
        self._board.close()
        self._reports.close(finished=self._run.step == self._run.total_steps)


def is_logged(run: Run) -> bool:
    """Return whether the last finished step has a line in the log."""
    return run.step == 1 or run.step % run.config.log_every == 0 or run.step == run.total_steps

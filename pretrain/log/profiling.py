"""Profile a few steps of a run: a trace for Perfetto, Chrome or TensorBoard, and a table of the slowest operations."""

from __future__ import annotations

import os
import time
from typing import Any

from tabulate import tabulate
from torch.profiler import ProfilerActivity, profile, schedule

from pixbench.files import atomic_path, make_folder
from pretrain.data.views import Views
from pretrain.log.screen import tell
from pretrain.run import Run
from pretrain.watcher import Watcher

WARM_UP = 10
"""Number of steps before the first profiled one; the first steps of a process are slower than the others."""
ROWS = 10
NAME_WIDTH = 50


class Profiler(Watcher):
    """Profile `config.profile` steps of ``run`` after `WARM_UP` steps, or as many as are left."""

    def __init__(self, run: Run) -> None:
        left = run.total_steps - run.step
        steps = min(run.config.profile, left - 1)
        self._profile: profile | None = None
        if steps < 1:
            tell("nothing is profiled: there is only one step left, and the first one is not like the others")
            return
        before = min(WARM_UP, left - steps)
        self._device = run.device.type
        self._first, self._last = run.step + before + 1, run.step + before + steps
        self._path = run.out / "profile" / f"steps_{self._first}_to_{self._last}.pt.trace.json"
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._device == "cuda" else [])]
        self._profile = profile(
            activities=activities,
            schedule=schedule(wait=before - 1, warmup=1, active=steps, repeat=1),
            on_trace_ready=self._write,
            acc_events=True,  # there is one cycle only; otherwise it warns that it forgets those before
        )
        if self._device == "cpu":
            os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # otherwise PyTorch's profiler prints that it finds no GPU
        self._profile.start()

    def after_step(self, run: Run, views: Views, values: dict[str, Any]) -> None:
        """Count the step; after the last one to profile, write the trace and print the table."""
        if self._profile is None:
            return
        began = time.monotonic()
        self._profile.step()
        if run.step >= self._last:
            self.close()
        run.aside += time.monotonic() - began

    def _write(self, done: profile) -> None:
        make_folder(self._path.parent)
        with atomic_path(self._path) as part:
            done.export_chrome_trace(str(part))
        on_device = self._device == "cuda"
        averages = [(_time(each, on_device), each) for each in done.key_averages() if "ProfilerStep" not in each.key]
        whole = sum(time for time, _ in averages) or 1
        rows = [
            (average.key[:NAME_WIDTH], average.count, time / 1000, f"{time / whole:.0%}")
            for time, average in sorted(averages, key=lambda pair: -pair[0])[:ROWS]
        ]
        table = tabulate(rows, ("operation", "calls", f"ms on the {self._device}", "share"), floatfmt=".1f")
        tell(f"profile of the steps {self._first} to {self._last}: {self._path} (open it in ui.perfetto.dev)\n{table}")

    def close(self) -> None:
        """End the profile; write what there is if it has begun."""
        if self._profile is not None:
            ended, self._profile = self._profile, None
            ended.stop()


def _time(average: Any, on_device: bool) -> float:
    """Return the microseconds that an operation took itself, without those that it called."""
    return average.self_device_time_total if on_device else average.self_cpu_time_total

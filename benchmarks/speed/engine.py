"""Measure what the engine and its log add to the bare training step.

    python -m benchmarks.speed.engine --data.root DIR [--blocks 20] [any option of `pretrain`]

Two runs take turns, step by step: one by `pretrain.engine.fit`, with all that watches it by default, and a bare loop over the
same batches with the same step. A block is `log_every` steps, so that each has one line of the log.

It prints the medians of the blocks' times, and their ratio ("engine"). "engine alone" is the time that the engine spends neither
in the step nor waiting for data; other programs on the machine disturb it less. What comes once in some epochs is in none of the
blocks and has a time of its own.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed import options
from pixbench.interrupt import SaveSignal
from pretrain import engine
from pretrain.data.loader import ViewLoader
from pretrain.data.views import Views
from pretrain.engine import watch
from pretrain.log.online_knn import OnlineKNN
from pretrain.log.pictures import picture
from pretrain.run import Run, batches, setup
from pretrain.saver import Saver
from pretrain.settings import RunConfig
from pretrain.step import train_step
from pretrain.watcher import Watcher


class Turns:
    """Stands in for the engine's step: makes one bare step of ``other`` before each step, and times both apart."""

    def __init__(self, other: Run) -> None:
        self.other, self.batches = other, iter(_loader(other))
        self.seconds: dict[str, list[float]] = {"engine": [], "bare": [], "engine alone": []}
        self.last: Views | None = None
        self._resumed = self._returned = self._waited = 0.0
        self._loader: ViewLoader | None = None

    def watch(self, run: Run, loader: ViewLoader, saver: Saver) -> list[Watcher]:
        """Remember what the engine takes its batches from, and return the engine's watchers."""
        self._loader = loader
        return watch(run, loader, saver)

    def __call__(self, run: Run, views: Views) -> dict[str, Any]:
        """Make the step of ``run``, which the engine asks for, after one of the other run."""
        began = _now(run)
        waited = self._loader.waited if self._loader else 0.0
        if self._resumed:
            self.seconds["engine"].append(began - self._resumed)
            self.seconds["engine alone"].append(began - self._returned - (waited - self._waited))
        self.last = next(self.batches)
        train_step(self.other, self.last)
        self.other.step += 1
        self._resumed = _now(run)
        if len(self.seconds["engine"]) == len(self.seconds["bare"]):
            self.seconds["bare"].append(self._resumed - began)
        values = train_step(run, views)
        self._returned, self._waited = _now(run), waited
        return values


def _now(run: Run) -> float:
    if run.device.type == "cuda":
        torch.cuda.synchronize(run.device)
    return time.perf_counter()


def _loader(run: Run) -> ViewLoader:
    sampler = batches(run.config, run.order, 0, run.total_steps)
    return ViewLoader(engine.open_views(run), sampler, workers=run.config.data.workers)


def compare(config: RunConfig, blocks: int) -> None:
    """Train two runs of ``config``, one by the engine; print both times of a step, and the ratio."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    steps = (blocks + 1) * config.log_every  # the first block warms up
    run = setup(config, device)
    epochs = -(-(steps + 1) // run.steps_per_epoch)
    config = replace(config, epochs=epochs, checkpoint_every=epochs)  # writing one is measured elsewhere
    run, other = setup(config, device), setup(replace(config, out=f"{config.out}-bare"), device)
    other.model.train()
    turns = Turns(other)
    before = engine.train_step, engine.watch
    engine.train_step, engine.watch = turns, turns.watch
    try:
        with SaveSignal() as save:
            engine.fit(run, save)
    finally:
        engine.train_step, engine.watch = before
    medians = {}
    for name, seconds in turns.seconds.items():
        whole = [sum(seconds[i : i + config.log_every]) for i in range(config.log_every, steps, config.log_every)]
        medians[name] = 1000 * statistics.median(whole[:blocks]) / config.log_every
    for name, median in medians.items():
        print(f"{name:12} {median:8.3f} ms per step, {median / medians['bare']:.4f} of the bare step")
    views = turns.last
    assert views is not None
    if config.log.views_every:
        once(f"a picture of views, every {config.log.views_every} epochs", lambda: picture(config, views))
    if config.log.knn_every:
        knn = OnlineKNN(run)
        run.step = run.steps_per_epoch * config.log.knn_every
        once(f"a k-NN accuracy, every {config.log.knn_every} epochs", lambda: knn.after_step(run, views, {}))


def once(what: str, work: Callable[[], Any]) -> None:
    """Call ``work`` twice and print the seconds of the second time."""
    work()
    began = time.perf_counter()
    work()
    print(f"{what}: {time.perf_counter() - began:.2f} s")


def main(argv: Sequence[str] | None = None) -> None:
    """Compare the runs of one config."""
    parser = options.parser("engine", __doc__, epilog=options.SETTINGS)
    parser.add_argument("--blocks", type=options.positive, default=20, metavar="N", help="blocks to time (default: 20)")
    args, words = parser.parse_known_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        compare(options.run_settings(words, Path(folder) / "run"), args.blocks)


if __name__ == "__main__":
    options.run(main, "engine")

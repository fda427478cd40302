"""Measure how much time a run loses for each checkpoint that it writes while it trains.

    python -m benchmarks.speed.checkpoints --data.root DIR [--scale paper] [--rounds 5] [--json FILE]

Two windows of the same number of steps take turns: in one of them a checkpoint is written, in the other none. The difference of
their median times is what a checkpoint costs, the steps that the writing thread slows down included. For comparison, the last
column is the time of a checkpoint for which the run waits. The paper scale has the published network and image size, with 8
images a step on a CPU.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed import options
from pixbench.files import write_json
from pretrain.config import parse
from pretrain.data.loader import ViewLoader
from pretrain.data.views import Views
from pretrain.engine import open_views
from pretrain.run import Run, batches, setup
from pretrain.saver import Saver
from pretrain.step import train_step

SCALES = {
    "mini": (*options.MINI, "--data.cache=false", "--epochs=1000"),
    "paper": ("--batch_size=8", "--precision=fp32", "--data.cache=false"),
}
EVERY = 500
"""Number of steps between two checkpoints for which the share of lost time is printed."""


def prepare(scale: str, root: str, out: str) -> tuple[Run, Views]:
    """Return the run of PixPro at ``scale`` in the folder ``out``, and its first batch."""
    config = parse([*options.PIXPRO, *SCALES[scale], "--data.root", root, "--out", out, "--data.workers=0"])
    run = setup(config, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    views = next(iter(ViewLoader(open_views(run), batches(config, run.order, 0, 1))))
    run.model.train()
    return run, views


def step(run: Run, views: Views) -> None:
    """Make one step and wait until it is complete."""
    float(train_step(run, views)["loss"])
    run.step += 1


def window(run: Run, views: Views, steps: int, saver: Saver | None) -> tuple[float, float]:
    """Return the seconds of ``steps`` steps, with a checkpoint at their start if there is a ``saver``, and those of its copy."""
    began = time.perf_counter()
    if saver is not None:
        saver.save(run)
    copied = time.perf_counter()
    for _ in range(steps):
        step(run, views)
    if saver is not None:
        saver.finish()
    return time.perf_counter() - began, copied - began


def measure(scale: str, root: str, rounds: int) -> dict[str, Any]:
    """Return the medians of ``rounds`` rounds in seconds."""
    with tempfile.TemporaryDirectory() as out:
        run, views = prepare(scale, root, out)
        saver = Saver(run)
        step(run, views)
        saver.save(run)  # the first copy allocates its memory
        saver.finish()
        size = run.latest.stat().st_size
        began = time.perf_counter()
        step(run, views)
        one = time.perf_counter() - began
        began = time.perf_counter()
        saver.save(run)
        saver.finish()
        steps = max(3, round(3 * (time.perf_counter() - began) / one))  # long enough for the thread to end
        with_save, without, copies, waits = [], [], [], []
        for _ in range(rounds):
            without.append(window(run, views, steps, None)[0])
            seconds, copy = window(run, views, steps, saver)
            with_save.append(seconds)
            copies.append(copy)
            step(run, views)
            began = time.perf_counter()
            saver.save(run)
            saver.finish()
            waits.append(time.perf_counter() - began)
        saver.close()
    one = statistics.median(without) / steps
    lost = statistics.median(with_save) - statistics.median(without)
    return {
        "scale": scale,
        "device": run.device.type,
        "checkpoint_bytes": size,
        "step_s": one,
        "copy_s": statistics.median(copies),
        "lost_s": lost,
        "share_at_one_in_500": lost / (EVERY * one),
        "waiting_s": statistics.median(waits),
    }


def main() -> None:
    """Measure the scales on the command line and print a line for each."""
    parser = options.parser("checkpoints", __doc__)
    parser.add_argument(
        "--data.root", dest="root", required=True, metavar="DIR", help="images, as in pixbench pretrain"
    )
    parser.add_argument("--scale", choices=list(SCALES), help="size of network and images (default: both)")
    parser.add_argument("--rounds", type=options.positive, default=5, metavar="N", help="pairs of windows (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    args = parser.parse_args()
    found = [measure(scale, args.root, args.rounds) for scale in ([args.scale] if args.scale else SCALES)]
    for each in found:
        print(
            f"{each['scale']} ({each['device']}): {each['checkpoint_bytes'] / 1e6:.0f} MB, step {each['step_s']:.3f} s; "
            f"copy {each['copy_s']:.3f} s, lost in all {each['lost_s']:.3f} s = {each['lost_s'] / each['step_s']:.2f} steps, "
            f"{each['share_at_one_in_500']:.2%} at one in {EVERY}; waiting for it would take {each['waiting_s']:.3f} s"
        )
    if args.json:
        write_json(args.json, found)


if __name__ == "__main__":
    options.run(main, "checkpoints")

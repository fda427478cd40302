"""Measure a pre-training step and the loading of its images, for your own images and settings, and compare values of a setting.

    python -m benchmarks.speed.pretrain_step --data.root DIR [--compare SETTING=A,B] [--rounds 12] [any option of `pretrain`]

It prints the images/s of the steps of one process, the images/s of one data worker, and how many workers (`data.workers`) keep
up with the steps. With --compare, the values A, B, ... of SETTING (for example channels_last=false,true) take turns, step by
step. It then also prints the ratio of the median times of the first value and the last one.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.speed import options
from pretrain.data.loader import ViewLoader
from pretrain.engine import open_views
from pretrain.run import batches, setup
from pretrain.step import train_step


def variant(words: Sequence[str], out: Path) -> tuple[Callable[[], None], Callable[[], None], int]:
    """Prepare the run with the options ``words``.

    Returns:
        A function that runs one training step, a function that loads one batch as a data worker does, in one thread, and the
        number of images in a batch.
    """
    config = options.run_settings([*words, "--data.workers=0"], out)
    run = setup(config, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    endless = batches(config, run.order, 0, sys.maxsize)  # however long the comparison takes
    loader = iter(ViewLoader(open_views(run), endless, workers=0))
    batch = next(loader)
    run.model.train()

    def step() -> None:
        float(train_step(run, batch)["loss"])  # reading the loss waits for the device

    def load() -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        next(loader)
        torch.set_num_threads(threads)

    return step, load, config.batch_size


def compare(name: str, work: list[Callable[[], None]], labels: list[str], images: int, rounds: int) -> list[float]:
    """Call the functions in ``work`` in turn; print and return the images/s of each; print the ratio of the medians."""
    seconds: list[list[float]] = [[] for _ in work]
    for turn in range(rounds + 2):
        for times, call in zip(seconds, work, strict=True):
            start = time.perf_counter()
            call()
            if turn >= 2:  # the first two warm up
                times.append(time.perf_counter() - start)
    medians = [statistics.median(times) for times in seconds]
    rates = [images / median for median in medians]
    listed = ", ".join(f"{label} {rate:.1f} images/s".strip() for label, rate in zip(labels, rates, strict=True))
    print(f"{name}: {listed}" + (f"; ratio {medians[0] / medians[-1]:.2f}" if len(work) > 1 else ""), flush=True)
    return rates


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the settings on the command line, or compare the variants of each ``--compare``."""
    parser = options.parser("pretrain_step", __doc__, epilog=options.SETTINGS)
    parser.add_argument(
        "--compare", action="append", metavar="SETTING=A,B", help="setting whose values are compared; may be repeated"
    )
    parser.add_argument(
        "--rounds", type=options.positive, default=12, metavar="N", help="steps to time, after two (default: 12)"
    )
    args, words = parser.parse_known_args(argv)
    for setting in args.compare or [""]:
        key, _, values = setting.partition("=")
        labels = [f"{key}={value}" for value in values.split(",")] if setting else [""]
        with tempfile.TemporaryDirectory() as out:
            made = [variant([*words, *[f"--{label}"] * bool(label)], Path(out)) for label in labels]
        images = made[0][2]
        computed = compare("step", [step for step, _, _ in made], labels, images, args.rounds)
        loaded = compare("data, one worker", [load for _, load, _ in made], labels, images, args.rounds)
        needed = (
            f"{label} {math.ceil(one / other)}".strip()
            for label, one, other in zip(labels, computed, loaded, strict=True)
        )
        print(f"data workers that keep up with the step: {', '.join(needed)}")


if __name__ == "__main__":
    options.run(main, "pretrain_step")

"""Compare the time of a pre-training step, and of loading its data, between values of a setting.

    python -m benchmarks.speed.pretrain_step --data-root DIR/imagenet [--config pixpro_100ep] [--rounds 12] [SETTING=A,B ...]

Each SETTING is a dotted pre-training setting with the values to compare (default: channels_last=false,true). The
variants take turns, step by step. Printed are the median images/s of each variant, and the ratio of the median times of the
first and the last one.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from pixbench.paths import CONFIGS
from pretrain.config import parse
from pretrain.data.loader import ViewLoader
from pretrain.engine import open_views
from pretrain.run import batches, setup
from pretrain.step import train_step


def variant(config_name: str, root: str, out: Path, setting: str) -> tuple[Callable[[], None], Callable[[], None], int]:
    """Prepare the mini run of ``config_name`` with ``setting``.

    Returns:
        A function that runs one training step, a function that loads one batch, and the number of images in a batch.
    """
    files = [
        word for name in (config_name, "mini") for word in ("--config", str(CONFIGS / "pretrain" / f"{name}.yaml"))
    ]
    config = parse([*files, "--data.root", root, "--out", str(out), "--data.workers=0", f"--{setting}"])
    run = setup(config, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    endless = batches(config, run.order, 0, sys.maxsize)  # however long the comparison takes
    loader = iter(ViewLoader(open_views(run), endless, workers=0))
    batch = next(loader)
    run.model.train()

    def step() -> None:
        float(train_step(run, batch)["loss"])  # reading the loss waits for the device

    return step, lambda: next(loader) and None, config.batch_size


def compare(name: str, work: list[Callable[[], None]], labels: list[str], images: int, rounds: int) -> None:
    """Call the functions in ``work`` in turn; print the images/s of each and the ratio of the medians."""
    seconds: list[list[float]] = [[] for _ in work]
    for turn in range(rounds + 2):
        for times, call in zip(seconds, work, strict=True):
            start = time.perf_counter()
            call()
            if turn >= 2:  # the first two warm up
                times.append(time.perf_counter() - start)
    medians = [statistics.median(times) for times in seconds]
    rates = ", ".join(f"{label} {images / median:.1f} images/s" for label, median in zip(labels, medians, strict=True))
    print(f"{name:5} {rates}; ratio {medians[0] / medians[-1]:.2f}")


def main() -> None:
    """Compare the variants of each setting on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", default=["channels_last=false,true"])
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--config", default="pixpro_100ep")
    parser.add_argument("--rounds", type=int, default=12)
    args = parser.parse_args()
    for setting in args.settings:
        key, _, values = setting.partition("=")
        labels = [f"{key}={value}" for value in values.split(",")]
        with tempfile.TemporaryDirectory() as out:
            made = [variant(args.config, args.data_root, Path(out), label) for label in labels]
        compare("step", [step for step, _, _ in made], labels, made[0][2], args.rounds)
        compare("data", [draw for _, draw, _ in made], labels, made[0][2], args.rounds)


if __name__ == "__main__":
    main()

"""Measure how fast pre-training is on this machine, as ratios to the plain implementation in `benchmarks.speed.reference`.

    python -m benchmarks.speed [input] [loss] [ppm] [step] [mini] [options] [gpu_loss] [gpu_ppm] [gpu_step] [--rounds 9]
                               [--into FILE]

Without names, all are measured, those of the GPU if there is one. This takes about ten minutes on two cores; leave the machine
alone meanwhile. The work of one line takes turns within one run, each in a process of its own. The results are printed, and
nothing is written without --into.

The published figures are made with `--into docs/speed.json`: `scripts/generate_docs.py` makes the tables of docs/speed.md from
that file. `benchmarks/speed/README.md` explains each line.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.input_rate import PHOTOS
from benchmarks.speed import options
from benchmarks.speed.page import ENOUGH, plot, table
from benchmarks.speed.worker import take_turns
from pixbench.errors import did_you_mean
from pixbench.files import write_json


class Pair(NamedTuple):
    """One line of the table: this project's work against other work."""

    ours: str
    other: str
    title: str
    time: float | None = None
    """Bound of the ratio of times."""
    memory: float | None = None
    """Bound of the ratio of peak memory."""
    threads: int = 1
    images: int = 0
    """Number of images that pass through the input pipeline in one turn."""


ROUNDS = 9
"""Turns of each piece of work in the published figures."""
SIDES = {7: 32, 14: 32, 28: 32, 56: 4}
"""Cells on a side of a map, and the batch that the dense reference can hold in 16 GB."""
GPU_SIDES = {7: 128, 14: 128, 28: 128, 56: 16}
"""The same on a GPU of 24 GB; 128 is the published batch of one GPU."""


def _by_cells(name: str, title: str, time: float, memory: float, device: str = "") -> list[Pair]:
    """Return a line for each number of cells; ``time`` and ``memory`` are the bounds at 28 × 28 cells."""
    return [
        Pair(
            f"{name}_ours:{side}:{batch}{device}",
            f"{name}_reference:{side}:{batch}{device}",
            f"{title}, {side} × {side} cells, batch {batch}",
            time={7: 1.0, 28: time}.get(side),
            memory={28: memory}.get(side),
        )
        for side, batch in (GPU_SIDES if device else SIDES).items()
    ]


GROUPS: dict[str, list[Pair]] = {
    "input": [
        Pair(
            "input_opencv",
            "input_reference",
            "32 JPEGs to two views with boxes, backend opencv",
            time=1 / 3,
            images=PHOTOS,
        ),
        Pair("input_crops", "input_reference", "without colours (augment.device cuda)", images=PHOTOS),
        Pair("input_pil", "input_reference", "backend pil", images=PHOTOS),
    ],
    "loss": _by_cells("loss", "loss and gradient", time=0.4, memory=0.3),
    "ppm": _by_cells("ppm", "PPM and gradient", time=0.5, memory=0.5),
    "step": [
        Pair(
            "step_ours",
            "step_reference",
            "step of PixPro, R50, 224 pixels, batch 8, fp32",
            time=0.75,
            memory=0.8,
            threads=2,
        ),
        Pair("step_bf16", "step_reference", "the same with bf16", time=0.5, threads=2),
    ],
    "mini": [Pair("mini_ours", "mini_reference", "step of PixPro at mini scale, batch 64, fp32", threads=1)],
    "options": [
        Pair("step_recomputed", "step_ours", "activation checkpointing, against the step without", threads=2),
        Pair("step_accumulated", "step_ours", "accumulate 2, against the step without", threads=2),
    ],
}
GPU_GROUPS: dict[str, list[Pair]] = {
    "gpu_loss": _by_cells("loss", "loss and gradient", time=0.4, memory=0.3, device="@cuda"),
    "gpu_ppm": _by_cells("ppm", "PPM and gradient", time=0.5, memory=0.5, device="@cuda"),
    "gpu_step": [
        Pair(
            "step_fp16@cuda",
            "step_reference_fp16@cuda",
            "step of PixPro, R50, 224 pixels, batch 64, fp16, against the reference with fp16",
            time=0.75,
            memory=0.8,
        ),
        Pair("step_bf16@cuda", "step_reference_fp16@cuda", "bf16, against the reference with fp16", time=0.75),
        Pair("step_ours@cuda", "step_reference@cuda", "fp32, against the reference with fp32", time=0.9),
    ],
}
"""What is measured on a GPU. Convolutions and products are those of PyTorch's defaults: with fp32, only convolutions use TF32."""


def measure(group: str, rounds: int) -> list[dict[str, Any]]:
    """Measure the lines of ``group``; lines with the same other work share its process and its turns."""
    lines, waiting = [], list((GROUPS | GPU_GROUPS)[group])
    while waiting:
        pairs = [pair for pair in waiting if pair.other == waiting[0].other]
        waiting = [pair for pair in waiting if pair not in pairs]
        names = list(dict.fromkeys([pairs[0].other, *(pair.ours for pair in pairs)]))
        print(f"measuring: {'; '.join(pair.title for pair in pairs)}", file=sys.stderr, flush=True)
        found = take_turns(names, rounds, pairs[0].threads)
        for pair in pairs:
            ours, other = found[pair.ours], found[pair.other]
            lines.append(
                {
                    **pair._asdict(),
                    "rounds": rounds,
                    "seconds": ours.seconds,
                    "other_seconds": other.seconds,
                    "ratio": ours.seconds / other.seconds,
                    "cpu_ratio": ours.cpu_seconds / other.cpu_seconds,
                    "megabytes": ours.megabytes,
                    "memory_ratio": ours.megabytes / other.megabytes,
                }
            )
    return lines


def group_name(text: str) -> str:
    """Read the name of a group of lines."""
    if text not in (known := GROUPS | GPU_GROUPS):
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(known)}{did_you_mean(text, known)}")
    if text in GPU_GROUPS and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError(
            f"{text} needs a CUDA device, and PyTorch finds none (`pixbench doctor` says why)"
        )
    return text


def machine() -> dict[str, Any]:
    """Describe the machine in words that mean something elsewhere."""
    able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    kinds = [name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16") if able.get(name)]
    return {"cpu": able.get("cpu_name", platform.processor()), "cores": able.get("num_physical_cores"), "has": kinds}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print; with ``--into``, store too."""
    parser = options.parser("", __doc__)
    parser.add_argument(
        "names",
        nargs="*",
        type=group_name,
        metavar="NAME",
        help=f"what to measure, one or more of {', '.join(GROUPS | GPU_GROUPS)} (default: all)",
    )
    parser.add_argument(
        "--rounds",
        type=options.positive,
        default=ROUNDS,
        metavar="N",
        help="turns of each piece of work after one to warm up; the median counts (default: %(default)s, as published)",
    )
    parser.add_argument(
        "--into",
        type=options.results,
        metavar="FILE",
        help="add the figures to this JSON file, and draw the plot of loss and PPM beside it (default: write nothing)",
    )
    args = parser.parse_args(argv)
    for group in args.names or [*GROUPS, *(GPU_GROUPS if torch.cuda.is_available() else ())]:
        lines = measure(group, args.rounds)
        print(f"\n{table(lines)}\n\nmedian of {args.rounds} turn{'s' * (args.rounds > 1)}", end="")
        few = f", too few to compare with the aims; take {ENOUGH} or more, or {ROUNDS} as published"
        print(few if args.rounds < ENOUGH else "", flush=True)
        if args.into:
            store(group, lines, args.into)
            print(f"stored in {args.into}")


def store(group: str, lines: list[dict[str, Any]], path: Path) -> None:
    """Add ``lines`` to the JSON file ``path``, and draw the plot beside it once loss and PPM are there."""
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    about = {"date": date.today().isoformat(), "torch": torch.__version__, **machine()}
    if group in GPU_GROUPS:
        about["gpu"] = torch.cuda.get_device_name()
    stored = {**stored, group: {**about, "lines": lines}}
    write_json(path, stored)
    if {"loss", "ppm"} <= stored.keys():
        plot(stored, path.with_suffix(".png"))


if __name__ == "__main__":
    main()

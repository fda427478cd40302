"""Measure how fast pre-training is on this machine, as ratios to the plain implementation in `benchmarks.speed.reference`.

    python -m benchmarks.speed [input] [loss] [ppm] [step] [mini] [options] [--rounds 5] [--into docs/speed.json]

Without names, all are measured (about 15 minutes on two cores; leave the machine alone meanwhile). The work of one line takes
turns within one run, each in a process of its own. The results are printed and added to a JSON file, from which
`scripts/generate_docs.py` makes the tables of docs/speed.md; the plot beside the file is drawn anew.
`benchmarks/speed/README.md` explains each line.
"""

from __future__ import annotations

import argparse
import json
import platform
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.input_rate import PHOTOS
from benchmarks.speed.page import plot, table
from benchmarks.speed.worker import take_turns
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


SIDES = {7: 32, 14: 32, 28: 32, 56: 4}
"""Cells on a side of a map, and the batch that the dense reference can hold in 16 GB."""


def _by_cells(name: str, title: str, time: float, memory: float) -> list[Pair]:
    """Return a line for each of `SIDES`; ``time`` and ``memory`` are the bounds at 28 × 28 cells."""
    return [
        Pair(
            f"{name}_ours:{side}:{batch}",
            f"{name}_reference:{side}:{batch}",
            f"{title}, {side} × {side} cells, batch {batch}",
            time={7: 1.0, 28: time}.get(side),
            memory={28: memory}.get(side),
        )
        for side, batch in SIDES.items()
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


def measure(group: str, rounds: int) -> list[dict[str, Any]]:
    """Measure the lines of ``group``; lines with the same other work share its process and its turns."""
    lines, waiting = [], list(GROUPS[group])
    while waiting:
        pairs = [pair for pair in waiting if pair.other == waiting[0].other]
        waiting = [pair for pair in waiting if pair not in pairs]
        names = list(dict.fromkeys([pairs[0].other, *(pair.ours for pair in pairs)]))
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
            print(table(lines[-1:]), flush=True)
    return lines


def machine() -> dict[str, Any]:
    """Describe the machine in words that mean something elsewhere."""
    able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    kinds = [name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16") if able.get(name)]
    return {"cpu": able.get("cpu_name", platform.processor()), "cores": able.get("num_physical_cores"), "has": kinds}


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", choices=[[], *GROUPS], default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--into", type=Path, default=Path("docs/speed.json"))
    args = parser.parse_args()
    for group in args.groups or GROUPS:
        lines = measure(group, args.rounds)
        stored = json.loads(args.into.read_text(encoding="utf-8")) if args.into.exists() else {}
        about = {"date": date.today().isoformat(), "torch": torch.__version__, **machine()}
        stored = {**stored, group: {**about, "lines": lines}}
        write_json(args.into, stored)
        if {"loss", "ppm"} <= stored.keys():
            plot(stored, args.into.with_suffix(".png"))
    print(f"stored in {args.into}")


if __name__ == "__main__":
    main()

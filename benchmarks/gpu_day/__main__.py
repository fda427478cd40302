"""Run on one machine with GPUs what no test on a CPU can show, and write one report.

    scripts/gpu_day.sh [--out DIR] [--minutes 60] [--only NAME ...] [--again NAME ...] [--list]
    scripts/gpu_day.sh --on-cpu

Each step runs commands of this project on generated data and checks how they end; a failure does not stop the others. Started
again, only the steps that have not passed run. docs/gpu_day.md explains the steps and the report.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from benchmarks.commands import PIXBENCH, finite
from benchmarks.gpu_day import report
from benchmarks.gpu_day.failures import FAILURES
from benchmarks.gpu_day.machine import describe
from benchmarks.gpu_day.software import EXCHANGE, SPEED, TESTS
from benchmarks.gpu_day.step import Failed, Place, Step
from benchmarks.gpu_day.training import IMAGES, ONE_AND_ALL, PRECISIONS, SCALING
from benchmarks.gpu_day.transfers import PACKING, PROTOCOLS
from benchmarks.miniworld.generate import LEAST
from pixbench.errors import UserError, did_you_mean, explain, run_command
from pixbench.lock import owned

STEPS = [EXCHANGE, TESTS, ONE_AND_ALL, *FAILURES, PACKING, *PRECISIONS, SCALING, SPEED, *PROTOCOLS]
"""In this order: what most depends on comes first."""
WORLD_S = 600
"""Time limit for generating the data."""


def main(argv: Sequence[str] | None = None, steps: Sequence[Step] = STEPS) -> int:
    """Run ``steps`` as the command line ``argv`` says, and return the exit code: 0 if none failed or was left out, else 1."""
    parser = argparse.ArgumentParser(
        prog="scripts/gpu_day.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/gpu_day"), metavar="DIR", help="default: runs/gpu_day")
    parser.add_argument("--minutes", type=finite, default=60, help="no step starts that may take longer (default: 60)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these steps; protocol-* and the like work too")
    parser.add_argument("--again", nargs="+", metavar="NAME", default=[], help="also these, if they have passed before")
    parser.add_argument("--on-cpu", action="store_true", help="try it without GPUs: what can run, at the smallest size")
    parser.add_argument("--list", action="store_true", help="print the steps and stop")
    args = parser.parse_args(argv)
    return run_command(lambda: day(args, steps), name="gpu_day", continues=True)


def day(args: argparse.Namespace, steps: Sequence[Step]) -> int:
    """Run the chosen steps, print a line for each, and write the report, also after Ctrl-C."""
    only = chosen(steps, args.only or ["*"])
    again = {step.name for step in chosen(steps, args.again)}
    if args.list:
        print(listed(only, on_cpu=args.on_cpu))
        return 0
    gpus, out = 0 if args.on_cpu else count_gpus(), args.out.resolve()
    if out.exists() and any(out.iterdir()) and not (out / report.FACTS).exists():
        raise UserError(f"{out} holds other files; choose an empty folder with --out")
    end = time.monotonic() + 60 * args.minutes
    machine = describe(gpus)
    with owned(out):
        known = report.read(out)
        outcomes = {step.name: known.get(step.name, {"status": "not run"}) for step in steps}
        for step in steps:
            if (outcome := outcomes[step.name])["status"] == "not run":
                outcome["reason"] = "" if step in only else outcome.get("reason") or "not asked for (--only)"
        report.write(out, machine, steps, outcomes)
        try:
            data = make_world(out, gpus)
            for step in only:
                before = outcomes[step.name]
                if before["status"] == "passed" and before["on"] == machine["on"] and step.name not in again:
                    print(f"{step.name}: passed before", flush=True)
                    continue
                outcomes[step.name] = {"status": "not run", "reason": "interrupted"}
                outcomes[step.name] = outcome = {**attempt(step, out, data, gpus, end), "on": machine["on"]}
                outcome["commit"] = machine["commit"]
                print(f"{step.name}: {outcome['status']}  {outcome['reason']}".rstrip(), flush=True)
        finally:
            archive = report.write(out, machine, steps, outcomes)
            print(f"{out / report.REPORT}; to send back: {archive}", flush=True)
    found = Counter(outcomes[step.name]["status"] for step in only)
    print(", ".join(f"{number} {status}" for status, number in found.items()))
    return 1 if found["failed"] or found["not run"] else 0


def attempt(step: Step, out: Path, data: Path, gpus: int, end: float) -> dict[str, Any]:
    """Run one step and return its outcome: status, seconds, reason and figures. ``end`` is when the whole day is over."""
    began = time.monotonic()
    if reason := step.reason_to_skip(gpus):
        return {"status": "skipped", "reason": reason}
    if began + 60 * step.minutes > end:
        return {"status": "not run", "reason": f"{step.minutes:g} minutes may be too much for the rest of --minutes"}
    print(f"{step.name}: {step.proves} …", flush=True)
    place = Place(out / "steps" / step.name, data, gpus, began + 60 * step.minutes)
    shutil.rmtree(place.folder, ignore_errors=True)
    status, reason = "passed", ""
    try:
        step.run(place)
    except Failed as error:
        status, reason = "failed", str(error)
    except Exception as error:
        status, reason = "failed", explain(error)
    return {"status": status, "reason": reason, "figures": place.table, "seconds": round(time.monotonic() - began, 1)}


def listed(steps: Sequence[Step], on_cpu: bool) -> str:
    """Return a line for each of the ``steps``, with its time limit, what it shows, and what it needs."""
    width = max(len(step.name) for step in steps)
    lines = []
    for step in steps:
        skipped = step.reason_to_skip(0) if on_cpu else ""
        needs = f" (needs {step.gpus} GPUs)" if step.gpus > 1 and not on_cpu else ""
        says = f"skipped: {skipped}" if skipped else f"{step.proves}{needs}"
        lines.append(f"{step.name:{width}}  {step.minutes:>3g} min at most  {says}")
    run = [step for step in steps if not (on_cpu and step.reason_to_skip(0))]
    return "\n".join([*lines, f"time limits of {len(run)} steps: {sum(step.minutes for step in run):g} minutes"])


def chosen(steps: Sequence[Step], patterns: Sequence[str]) -> list[Step]:
    """Return the steps whose names fit one of the ``patterns``; raise UserError for one that fits none."""
    names = [step.name for step in steps]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(f"there is no step {pattern!r}{did_you_mean(pattern, names)} (--list prints all)")
    return [step for step in steps if any(fnmatchcase(step.name, pattern) for pattern in patterns)]


def count_gpus() -> int:
    """Return the number of GPUs; raise UserError if there are none."""
    if not (found := torch.cuda.device_count()):
        raise UserError("this machine has no CUDA device; --on-cpu tries what can run without")
    return found


def make_world(out: Path, gpus: int) -> Path:
    """Generate the data of all steps, unless it is there, and return its folder."""
    images = max(512, IMAGES * gpus) if gpus else LEAST
    place = Place(out / "steps" / "data", out / f"data_{images}", gpus, time.monotonic() + WORLD_S)
    try:
        place.run(
            "mini",
            [*PIXBENCH, "data", "mini", "--world=shapes", f"--root={place.data}", f"--images={images}"],
            place.data,
        )
    except Failed as error:
        raise UserError(f"the data could not be generated: {error}") from error
    return place.data


if __name__ == "__main__":
    sys.exit(main())

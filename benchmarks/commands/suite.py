"""`pixbench suite`: run rows × protocols × seeds and write the tables."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.commands import DATA_ROOT, PIXBENCH, finite
from benchmarks.jobs import Records
from benchmarks.suite import plan, read_suite
from pixbench.errors import UserError
from pixbench.files import write_text
from pixbench.lock import owned

if TYPE_CHECKING:
    from benchmarks.tables.options import Options

REPORT = "report.html"
TRAINING = ("pretrain", "transfer")
"""Commands whose jobs use GPUs."""


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("suite", help="run rows × protocols × seeds and write the tables")
    parser.add_argument("suite", type=Path, help="suite file, e.g. configs/suites/demo.yaml")
    parser.add_argument("--out", type=Path, help="output folder (default: runs/<suite name>)")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help=DATA_ROOT)
    parser.add_argument(
        "--launcher", choices=["local", "slurm"], default="local", help="how the jobs are run (default: local)"
    )
    parser.add_argument(
        "--jobs-at-a-time",
        type=int,
        help="number of jobs at a time (default: as many as the GPUs allow, or the suite's jobs_at_a_time)",
    )
    parser.add_argument("--gpus", metavar="N|LIST", help="number of GPUs of this machine to use, or a list: 0,1,2,3")
    parser.add_argument(
        "--gpus-per-run", type=int, metavar="N", help="number of GPUs of each training run (default: all)"
    )
    parser.add_argument(
        "--array-limit",
        type=int,
        metavar="N",
        help="with --launcher slurm: number of jobs of each job array that run at the same time",
    )
    parser.add_argument(
        "--stall-minutes",
        type=finite,
        default=120,
        metavar="M",
        help="end a job that writes nothing for M minutes (default: 120; 0: never)",
    )
    parser.add_argument("--on-cpu", action="store_true", help="run a suite of paper scale on a machine without GPUs")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and stop")
    parser.add_argument(
        "--check",
        action="store_true",
        help="find the mistakes of all jobs without training, print their cost, and stop",
    )
    parser.set_defaults(run=run, continues=lambda args: not args.check and not args.dry_run)


def devices(text: str | None, imagined: bool = False) -> list[str]:
    """Return the names of the GPUs that ``text`` asks for, as a number or a list.

    Raises UserError if this machine does not have them, unless they are only ``imagined`` (for a dry run).
    """
    if text is None or text == "0":
        return []
    if imagined:
        return [str(number) for number in range(int(text))] if text.isdigit() else text.split(",")
    import torch

    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    there = chosen.split(",") if chosen else [str(number) for number in range(torch.cuda.device_count())]
    wanted = text.split(",") if "," in text else there[: int(text)] if text.isdigit() else [text]
    if (text.isdigit() and len(wanted) != int(text)) or not wanted or not set(wanted) <= set(there):
        raise UserError(f"--gpus {text}: this machine shows {len(there)} CUDA devices ({', '.join(there) or 'none'})")
    return wanted


def check_gpu(suite: Path) -> None:
    """Raise UserError if this machine has no GPU: each row of a suite of paper scale would take months."""
    import torch

    if not torch.cuda.is_available():
        raise UserError(
            f"{suite} has paper scale, but this machine has no CUDA device; run it on a machine with GPUs, submit it to "
            "a cluster with --launcher slurm, try configs/suites/demo.yaml, or add --on-cpu to run it on the CPU"
        )


def run(args: argparse.Namespace) -> int:
    """Run the suite, write tables and report, or only print its commands (--dry-run); return 1 if a job failed, else 0."""
    from benchmarks.launch.interfaces import Launcher
    from benchmarks.launch.scheduler import run_jobs
    from benchmarks.tables import show, write_tables
    from benchmarks.tables.options import Options

    for option, least in (("jobs_at_a_time", 1), ("gpus_per_run", 1), ("array_limit", 1), ("stall_minutes", 0)):
        if (value := getattr(args, option)) is not None and value < least:
            raise UserError(f"--{option.replace('_', '-')} {value:g} is not possible; choose {least} or more")
    suite = read_suite(args.suite)
    out = (args.out or Path("runs") / args.suite.stem).resolve()
    data_root = args.data_root.resolve() if args.data_root else None
    records, stall_s = Records(out / "jobs"), 60 * args.stall_minutes
    launcher: Launcher
    if args.launcher == "slurm":
        from benchmarks.launch.slurm import Slurm
        from benchmarks.launch.slurm_block import check, without, wrong
        from benchmarks.launch.slurm_options import options_of

        if not args.check:  # it tells all mistakes
            check(suite.slurm)
        launcher, how = Slurm(records, out, suite.slurm, stall_s, args.array_limit), "by Slurm"
        block = without(suite.slurm, wrong(suite.slurm))
        each = {
            command: args.gpus_per_run or options_of(block, command).get("gpus_per_node", 0) for command in TRAINING
        }
    else:
        from benchmarks.launch.local import Local

        gpus = devices(args.gpus, imagined=args.dry_run or args.check)
        each = dict.fromkeys(TRAINING, args.gpus_per_run or len(gpus))
        if each["pretrain"] > len(gpus):
            raise UserError(f"--gpus-per-run {args.gpus_per_run} needs as many GPUs; give them with --gpus")
        at_a_time = args.jobs_at_a_time or (len(gpus) // each["pretrain"] if gpus else suite.jobs_at_a_time)
        launcher, how = Local(records, out / "logs", at_a_time, gpus, stall_s), f"{at_a_time} at a time"
    if args.check:
        from benchmarks.commands.suite_check import check_suite

        return check_suite(suite, out, data_root, each, on_slurm=args.launcher == "slurm")
    jobs = [replace(job, gpus=each.get(job.command_name, 0)) for job in plan(suite, out, data_root, PIXBENCH)]
    if args.dry_run:
        print("\n".join(shlex.join(job.argv()) for job in jobs))
        return 0
    if args.data_root and not args.data_root.is_dir():
        raise UserError(f"--data-root: there is no folder {args.data_root}; correct it, or make that folder")
    left = not all(map(records.done, jobs))  # tables alone need no GPU
    if left and suite.scale == "paper" and args.launcher == "local" and not args.on_cpu:
        check_gpu(args.suite)
    print(f"{args.suite}: {len(jobs)} jobs, {how}, into {out}", flush=True)
    with owned(out, partial(os.kill, os.getpid(), signal.SIGINT)):  # stops its jobs, too, if the lock is lost
        states = run_jobs(jobs, records, launcher)
        try:
            measured = [
                name.split("/")[1] for name in states if name.startswith("transfer/") and states[name] == "done"
            ]
            if order := [label for label in suite.rows if label in measured]:
                options = Options(order, interval=suite.interval)
                show(write_tables(out / "runs", out, options))
                print(write_report(out, options))
        finally:  # which jobs failed is said even if no table can be made
            print(f"{args.suite}: {dict(Counter(states.values()))}; results and tables in {out}")
            failed = [job for job in jobs if states[job.name] != "done"]
            for job in failed:
                print(f"  {job.name}: {states[job.name]}  {records.read(job).get('reason', '')}".rstrip())
    return 1 if failed else 0


def write_report(out: Path, options: Options) -> str:
    """Write `report.html` of all results in ``out``. Return what to say of it: a suite does not fail because of its report."""
    from benchmarks.report.page import page
    from benchmarks.report.section import read_contents

    try:
        write_text(out / REPORT, page(read_contents([out], options)))
    except UserError as error:
        return f"no report: {error}"
    return f"report with charts and pictures, to open in a browser: {out / REPORT}"

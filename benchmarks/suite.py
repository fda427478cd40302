"""A suite: rows (initialisations) × protocols × seeds, from data to tables, as jobs that start the other commands."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import yaml

from benchmarks.jobs import Job, Records
from pretrain.errors import UserError, did_you_mean
from pretrain.lock import owned
from transfer.protocols import CONFIGS, find_protocol, table_of

PIXBENCH = (sys.executable, "-m", "benchmarks.cli")
TRAINING = ("pretrain", "transfer")
"""Kinds of jobs that use GPUs."""


@dataclass(frozen=True)
class Row:
    """One initialisation to measure: pre-trained here (``pretrain``), a file (``weights``), or what ``init`` says."""

    pretrain: tuple[str, ...] = ()
    """Config files, later ones win; relative to `configs/`."""
    set: dict[str, Any] = field(default_factory=dict)
    """Dotted pre-training settings on top of the files."""
    weights: str = ""
    """A file of any known format; relative to where the suite is started."""
    init: Literal["random", "supervised"] = "random"
    freeze: Literal["none", "trunk"] = "none"
    """"none", or "trunk": only what the protocol adds to it is trained."""


@dataclass(frozen=True)
class Suite:
    rows: dict[str, Row]
    protocols: tuple[str, ...]
    scale: Literal["paper", "mini"]
    seeds: tuple[int, ...] = (0,)
    mini: dict[str, Any] | None = None
    """Options of `pixbench data mini`; the world is generated below the output folder unless a data root is given."""
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)
    """protocol -> its framework's config keys to set, for every row alike; recorded as deviations."""
    workers: int = 1
    """Jobs at a time on this machine; each gets its share of the cores."""
    slurm: dict[str, Any] = field(default_factory=dict)
    """Options of sbatch for all jobs, and below data, pretrain, convert and transfer for those; see docs/launching.md."""


def read_suite(path: Path) -> Suite:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: no UTF-8, or no such day
        raise UserError(f"the suite {path} cannot be read: {error}") from error
    if isinstance(content, dict) and isinstance(rows := content.get("rows"), dict):
        content["rows"] = {str(label): _row(row or {}, f"{path}, row {label}") for label, row in rows.items()}
    suite: Suite = _parsed(Suite, content, str(path))
    if suite.workers < 1:
        raise UserError(f"{path}: workers is {suite.workers}; it must be 1 or more")
    for name in [*suite.protocols, *suite.overrides]:
        find_protocol(str(name))
    return suite


def _row(content: Any, where: str) -> Row:
    row: Row = _parsed(Row, content, where)
    if sum(content.get(key) is not None for key in ("pretrain", "weights", "init")) > 1:
        raise UserError(f"{where}: give one of pretrain, weights and init, not several")
    return row


def _parsed(cls: Any, content: Any, where: str) -> Any:
    """``content`` as a ``cls``, if that is what it is. A key without a value counts as left out."""
    from jsonargparse import ArgumentError, ArgumentParser

    known = [f.name for f in fields(cls)]
    if not isinstance(content, dict):
        raise UserError(f"{where}: expected settings ({', '.join(known)}), found {content!r}")
    for key in [key for key in content if key not in known]:
        raise UserError(
            f"{where}: there is no setting {key!r}{did_you_mean(str(key), known)} (known: {', '.join(known)})"
        )
    given = {key: value for key, value in content.items() if value is not None}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls)
    try:
        values = parser.parse_object(deepcopy(given)).as_dict()
    except ArgumentError as error:
        text = re.sub(r"Parser key |a typing\.(?=Literal)|<class '(\w+)'>", r"\1", " ".join(str(error).split()))
        raise UserError(f"{where}: {text}") from error
    # what may hold anything stays as written: the parser would take the word "1e-3" for a number
    return cls(**values | {key: value for key, value in given.items() if isinstance(value, dict)})


def plan(suite: Suite, out: Path, data_root: Path | None) -> list[Job]:
    """All jobs of a suite, in an order in which none comes before what it waits for.

    Raises `UserError` if there is neither a data root nor a mini world to generate, or if a row's files are not there.
    """
    jobs: dict[str, Job] = {}
    ready: tuple[str, ...] = ()
    if data_root is None:
        if suite.mini is None and suite.scale == "mini":
            raise UserError(
                "this suite has no data: add the key `mini: {}` to have a small world drawn, or say where data lie with "
                "--data-root"
            )
        if suite.mini is None:
            raise UserError("this suite runs on real data: say where it lies with --data-root")
        data_root, ready = out / "data", ("data",)
        mini = {f"--{key}": value for key, value in suite.mini.items()}
        jobs["data"] = Job("data", (*PIXBENCH, "data", "mini", *_words({"--root": data_root, **mini})), data_root)
    for label, row in suite.rows.items():
        if row.weights and not Path(row.weights).exists():
            raise UserError(f"row {label}: there is no file {row.weights} here ({Path.cwd()}); correct its `weights:`")
        if row.pretrain:
            jobs[f"pretrain/{label}"] = _pretrain_job(label, row, out, data_root, ready)
    transfers: list[Job] = []
    for label, row in suite.rows.items():
        for name in suite.protocols:
            start, after = ("--weights", row.weights) if row.weights else ("--init", row.init), ready
            if row.pretrain:
                convert = _convert_job(label, find_protocol(name).layout, out)
                jobs[convert.name] = convert
                start, after = ("--weights", str(convert.output)), (convert.name,)
            for seed in suite.seeds:
                options = {"--data-root": data_root, "--scale": suite.scale, "--seed": seed, "--label": label}
                options |= {"--freeze": row.freeze} if row.freeze != "none" else {}
                changes = [("--set", f"{key}={json.dumps(v)}") for key, v in suite.overrides.get(name, {}).items()]
                words = (*start, *_words(options), *(word for change in changes for word in change))
                transfers.append(_transfer_job(f"{label}/{name}/seed{seed}", words, out, after))
    return [*jobs.values(), *transfers]


def _words(options: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(word) for pair in options.items() for word in pair)


def _pretrain_job(label: str, row: Row, out: Path, data_root: Path, after: tuple[str, ...]) -> Job:
    files = tuple(CONFIGS / name for name in row.pretrain)
    for path in files:
        if not path.is_file():
            raise UserError(f"row {label}: there is no config {path}")
    folder = out / "pretrain" / label
    configs = [word for path in files for word in ("--config", str(path))]
    places = _words({"--data.root": data_root / "imagenet", "--out": folder})
    command = (sys.executable, "-m", "pretrain", *configs, *places, *(f"--{k}={v}" for k, v in row.set.items()))
    return Job(f"pretrain/{label}", command, folder / "checkpoint.pth", after, files)


def _convert_job(label: str, layout: str, out: Path) -> Job:
    target, _, variant = layout.partition("_")
    path = out / "weights" / f"{label}_{layout}.{'pkl' if target == 'detectron2' else 'pth'}"
    options = {"--to": target} | ({"--layout": variant} if variant else {}) | {"-o": path}
    checkpoint = out / "pretrain" / label / "checkpoint.pth"
    command = (*PIXBENCH, "convert", str(checkpoint), *_words(options))
    return Job(f"convert/{label}/{layout}", command, path, (f"pretrain/{label}",))


def _transfer_job(place: str, words: tuple[str, ...], out: Path, after: tuple[str, ...]) -> Job:
    """``place``: row/protocol/seed."""
    protocol, folder = find_protocol(place.split("/")[1]), out / "runs" / place
    command = (*PIXBENCH, "transfer", protocol.name, *words, "--out", str(folder))
    inputs = protocol.config, table_of(protocol.framework)
    return Job(f"transfer/{place}", command, folder / "result.json", after, inputs)


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    parser = subparsers.add_parser("suite", help="run methods × protocols × seeds and write the tables")
    parser.add_argument("suite", type=Path, help="suite file, e.g. configs/suites/demo.yaml")
    parser.add_argument("--out", type=Path, help="folder of everything it makes (default: runs/<suite name>)")
    parser.add_argument("--data-root", type=Path, help="folder with imagenet, VOC2007, VOC2012, coco, cityscapes")
    parser.add_argument("--launcher", choices=["local", "slurm"], default="local", help="who runs the jobs")
    parser.add_argument(
        "--workers", type=int, help="jobs at a time (default: as many as find GPUs, or the suite's number)"
    )
    parser.add_argument("--gpus", metavar="N|LIST", help="how many GPUs of this machine to use, or which: 0,1,2,3")
    parser.add_argument("--gpus-per-run", type=int, metavar="N", help="GPUs of each training run (default: all)")
    parser.add_argument(
        "--stall-minutes",
        type=float,
        default=120,
        metavar="M",
        help="end a job that writes nothing for M (120; 0: never)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands and stop")
    parser.set_defaults(run=run)


def devices(text: str | None, imagined: bool = False) -> list[str]:
    """The names of the GPUs that ``text`` asks for: a number of them, or a list; UserError if they are not there.

    If only ``imagined``, they need not be.
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


def run(args: argparse.Namespace) -> int:
    from benchmarks.launch.loop import Launcher, run_jobs
    from benchmarks.tables import write_tables

    for option, least in (("workers", 1), ("gpus_per_run", 1), ("stall_minutes", 0)):
        if (value := getattr(args, option)) is not None and value < least:
            raise UserError(f"--{option.replace('_', '-')} {value:g} is not possible; choose {least} or more")
    suite = read_suite(args.suite)
    out = (args.out or Path("runs") / args.suite.stem).resolve()
    jobs = plan(suite, out, args.data_root.resolve() if args.data_root else None)
    records, stall_s = Records(out / "jobs"), 60 * args.stall_minutes
    launcher: Launcher
    if args.launcher == "slurm":
        from benchmarks.launch.slurm import Slurm, options_of

        launcher, how = Slurm(records, out, suite.slurm, stall_s), "by Slurm"
        each = {kind: args.gpus_per_run or options_of(suite.slurm, kind).get("gpus_per_node", 0) for kind in TRAINING}
        if not all(isinstance(gpus, int) for gpus in each.values()):
            raise UserError(f"{args.suite}: gpus_per_node must be a number; name a type with gres and --gpus-per-run")
    else:
        from benchmarks.launch.local import Local

        gpus = devices(args.gpus, imagined=args.dry_run)
        each = dict.fromkeys(TRAINING, args.gpus_per_run or len(gpus))
        if each["pretrain"] > len(gpus):
            raise UserError(f"--gpus-per-run {args.gpus_per_run} needs as many GPUs; name them with --gpus")
        workers = args.workers or (len(gpus) // each["pretrain"] if gpus else suite.workers)
        launcher, how = Local(records, out / "logs", workers, gpus, stall_s), f"{workers} at a time"
    jobs = [replace(job, gpus=each.get(job.kind, 0)) for job in jobs]
    if args.dry_run:
        print("\n".join(" ".join(job.argv()) for job in jobs))
        return 0
    if args.data_root and not args.data_root.is_dir():
        raise UserError(f"--data-root: there is no folder {args.data_root}; correct it, or make that folder")
    print(f"{args.suite}: {len(jobs)} jobs, {how}, into {out}", flush=True)
    with owned(out, partial(os.kill, os.getpid(), signal.SIGINT)):  # its jobs are to be stopped, too
        states = run_jobs(jobs, records, launcher)
        if any(state == "done" for name, state in states.items() if name.startswith("transfer/")):
            print(write_tables(out / "runs", out, tuple(suite.rows)))
    failed = [job for job in jobs if states[job.name] != "done"]
    print(f"{args.suite}: {dict(Counter(states.values()))}; results and tables in {out}")
    for job in failed:
        print(f"  {job.name}: {states[job.name]}  {records.read(job).get('reason', '')}".rstrip())
    return 1 if failed else 0

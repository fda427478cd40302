"""A suite: rows (initialisations) × protocols × seeds, from data to tables, as jobs that start the other commands."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from benchmarks.jobs import Job, Records
from benchmarks.launch.local import run_jobs
from pretrain.errors import UserError
from transfer.protocols import CONFIGS, SCALES, find_protocol, table_of

PIXBENCH = (sys.executable, "-m", "benchmarks.cli")


@dataclass(frozen=True)
class Row:
    """One initialisation to measure: pre-trained here (``pretrain``), a file (``weights``), or random (neither)."""

    pretrain: tuple[str, ...] = ()
    """Config files, later ones win; relative to `configs/`."""
    set: dict[str, Any] = field(default_factory=dict)
    """Dotted pre-training settings on top of the files."""
    weights: str | None = None


@dataclass(frozen=True)
class Suite:
    rows: dict[str, Row]
    protocols: tuple[str, ...]
    scale: str
    seeds: tuple[int, ...] = (0,)
    mini: dict[str, Any] | None = None
    """Options of `pixbench data mini`; the world is generated below the output folder unless a data root is given."""
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)
    """protocol -> its framework's config keys to set, for every row alike; recorded as deviations."""
    workers: int = 1
    """Jobs at a time on this machine; each gets its share of the cores."""


def read_suite(path: Path) -> Suite:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"the suite {path} cannot be read: {error}") from error
    values = _checked(Suite, content, str(path))
    if values["scale"] not in SCALES:
        raise UserError(f"{path}: scale is {values['scale']!r}; it must be one of {', '.join(SCALES)}")
    rows = {}
    for label, row in values["rows"].items():
        entry = _checked(Row, row or {}, f"{path}, row {label}")
        if entry.get("weights") and entry.get("pretrain"):
            raise UserError(f"{path}, row {label}: give either weights or pretrain, not both")
        rows[label] = Row(**{**entry, "pretrain": tuple(entry.get("pretrain", ()))})
    for name in [*values["protocols"], *values.get("overrides", {})]:
        find_protocol(name)
    seeds = tuple(values.get("seeds", (0,)))
    return Suite(**{**values, "rows": rows, "protocols": tuple(values["protocols"]), "seeds": seeds})


def _checked(cls: type, content: Any, where: str) -> dict[str, Any]:
    """``content`` if it is a mapping with only and all the keys that ``cls`` wants."""
    if not isinstance(content, dict):
        raise UserError(f"{where}: expected a mapping of settings, found {type(content).__name__}")
    known = {f.name: f for f in fields(cls)}
    unknown = sorted(set(content) - set(known))
    missing = [
        n for n, f in known.items() if n not in content and f.default is MISSING and f.default_factory is MISSING
    ]
    if unknown or missing:
        raise UserError(
            f"{where}: unknown keys {unknown or 'none'}, missing keys {missing or 'none'}; known: {sorted(known)}"
        )
    return content


def plan(suite: Suite, out: Path, data_root: Path | None, gpus: int = 0) -> list[Job]:
    """All jobs of a suite, in an order in which none comes before what it waits for.

    Raises `UserError` if there is neither a data root nor a mini world to generate.
    """
    jobs: list[Job] = []
    ready: tuple[str, ...] = ()
    if data_root is None:
        if suite.mini is None:
            raise UserError("this suite runs on real data: say where it lies with --data-root")
        data_root = out / "data"
        options = [word for key, value in suite.mini.items() for word in (f"--{key}", str(value))]
        command = (*PIXBENCH, "data", "mini", "--root", str(data_root), *options)
        jobs.append(Job("data", command, data_root, ()))
        ready = ("data",)
    for label, row in suite.rows.items():
        if row.pretrain:
            jobs.append(_pretrain_job(label, row, out, data_root, ready, gpus))
    transfers: list[Job] = []
    for label, row in suite.rows.items():
        for name in suite.protocols:
            weights, after = row.weights, ready
            if row.pretrain:
                convert = _convert_job(label, find_protocol(name).layout, out)
                if convert not in jobs:
                    jobs.append(convert)
                weights, after = str(convert.output), (convert.name,)
            for seed in suite.seeds:
                transfers.append(_transfer_job(suite, label, name, seed, weights, out, data_root, after, gpus))
    return jobs + transfers


def _pretrain_job(label: str, row: Row, out: Path, data_root: Path, after: tuple[str, ...], gpus: int) -> Job:
    files = tuple(CONFIGS / name for name in row.pretrain)
    for path in files:
        if not path.is_file():
            raise UserError(f"row {label}: there is no config {path}")
    start = (
        ("-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={gpus}", "-m", "pretrain")
        if gpus > 1
        else ("-m", "pretrain")
    )
    folder = out / "pretrain" / label
    configs = [word for path in files for word in ("--config", str(path))]
    settings = [f"--{key}={value}" for key, value in row.set.items()]
    command = (
        sys.executable,
        *start,
        *configs,
        "--data.root",
        str(data_root / "imagenet"),
        "--out",
        str(folder),
        *settings,
    )
    return Job(f"pretrain/{label}", command, folder / "checkpoint.pth", after, files)


def _convert_job(label: str, layout: str, out: Path) -> Job:
    target, _, variant = layout.partition("_")
    path = out / "weights" / f"{label}_{layout}.{'pkl' if target == 'detectron2' else 'pth'}"
    options = ("--layout", variant) if variant else ()
    command = (
        *PIXBENCH,
        "convert",
        str(out / "pretrain" / label / "checkpoint.pth"),
        "--to",
        target,
        *options,
        "-o",
        str(path),
    )
    return Job(f"convert/{label}/{layout}", command, path, (f"pretrain/{label}",))


def _transfer_job(
    suite: Suite,
    label: str,
    protocol: str,
    seed: int,
    weights: str | None,
    out: Path,
    data_root: Path,
    after: tuple[str, ...],
    gpus: int,
) -> Job:
    folder = out / "runs" / label / protocol / f"seed{seed}"
    init = ("--weights", weights) if weights else ("--init", "random")
    devices = ("--gpus", str(gpus)) if gpus > 1 else ()
    chosen = suite.overrides.get(protocol, {})
    settings = [word for key, value in chosen.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    command = (
        *(*PIXBENCH, "transfer", protocol, *init, "--data-root", str(data_root), "--scale", suite.scale),
        *("--seed", str(seed), "--label", label, "--out", str(folder), *settings, *devices),
    )
    return Job(
        f"transfer/{label}/{protocol}/seed{seed}",
        command,
        folder / "result.json",
        after,
        (find_protocol(protocol).config, table_of(find_protocol(protocol).framework)),
    )


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    parser = subparsers.add_parser("suite", help="run methods × protocols × seeds and write the tables")
    parser.add_argument("suite", type=Path, help="suite file, e.g. configs/suites/demo.yaml")
    parser.add_argument("--out", type=Path, help="folder of everything it makes (default: runs/<suite name>)")
    parser.add_argument("--data-root", type=Path, help="folder with imagenet, VOC2007, VOC2012, coco, cityscapes")
    parser.add_argument("--workers", type=int, help="jobs at a time (default: the suite's own number)")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs that each job uses; jobs then run one after another")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and stop")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from benchmarks.tables import write_tables

    suite = read_suite(args.suite)
    out = (args.out or Path("runs") / args.suite.stem).resolve()
    jobs = plan(suite, out, args.data_root.resolve() if args.data_root else None, args.gpus)
    if args.dry_run:
        print("\n".join(" ".join(job.command) for job in jobs))
        return 0
    workers = 1 if args.gpus > 1 else args.workers or suite.workers
    print(f"{args.suite}: {len(jobs)} jobs, {workers} at a time, into {out}", flush=True)
    states = run_jobs(jobs, Records(out / "jobs"), out / "logs", workers)
    if any(state == "done" for name, state in states.items() if name.startswith("transfer/")):
        print(write_tables(out / "runs", out, tuple(suite.rows)))
    failed = [name for name, state in states.items() if state != "done"]
    print(f"{args.suite}: {dict(Counter(states.values()))}; results and tables in {out}")
    for name in failed:
        print(f"  {name}: {states[name]}")
    return 1 if failed else 0

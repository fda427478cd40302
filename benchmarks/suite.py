"""A suite: rows (initialisations) × protocols × seeds, from data to tables, as jobs that start the other commands."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from benchmarks.jobs import Job
from pixbench.errors import UserError, did_you_mean
from pixbench.paths import CONFIGS
from transfer.protocols import find_protocol, table_of


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
    freeze: Literal["none", "backbone"] = "none"
    """"none", or "backbone": only what the protocol adds to it is trained."""


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


def plan(suite: Suite, out: Path, data_root: Path | None, pixbench: tuple[str, ...]) -> list[Job]:
    """Return all jobs of a suite, in an order in which none comes before what it waits for.

    Args:
        suite: what to run.
        out: folder of everything that the jobs make.
        data_root: folder of the data sets; None to have a mini world drawn.
        pixbench: the words that start `pixbench`, in front of each job's own.

    Raises:
        UserError: there is neither a data root nor a mini world to generate, or a row's files are not there.
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
        jobs["data"] = Job("data", ("data", "mini", *_words({"--root": data_root, **mini})), data_root)
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
                convert = _convert_job(label, find_protocol(name).weights_framework, out)
                jobs[convert.name] = convert
                start, after = ("--weights", str(convert.output)), (convert.name,)
            for seed in suite.seeds:
                options = {"--data-root": data_root, "--scale": suite.scale, "--seed": seed, "--label": label}
                options |= {"--freeze": row.freeze} if row.freeze != "none" else {}
                changes = [("--set", f"{key}={json.dumps(v)}") for key, v in suite.overrides.get(name, {}).items()]
                words = (*start, *_words(options), *(word for change in changes for word in change))
                transfers.append(_transfer_job(f"{label}/{name}/seed{seed}", words, out, after))
    return [replace(job, command=(*pixbench, *job.command)) for job in (*jobs.values(), *transfers)]


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
    command = ("pretrain", *configs, *places, *(f"--{k}={v}" for k, v in row.set.items()))
    return Job(f"pretrain/{label}", command, folder / "checkpoint.pth", after, files)


def _convert_job(label: str, framework: str, out: Path) -> Job:
    to, _, detector = framework.partition("_")
    path = out / "weights" / f"{label}_{framework}.{'pkl' if to == 'detectron2' else 'pth'}"
    options = {"--to": to} | ({"--detector": detector} if detector else {}) | {"-o": path}
    checkpoint = out / "pretrain" / label / "checkpoint.pth"
    command = ("convert", str(checkpoint), *_words(options))
    return Job(f"convert/{label}/{framework}", command, path, (f"pretrain/{label}",))


def _transfer_job(place: str, words: tuple[str, ...], out: Path, after: tuple[str, ...]) -> Job:
    """``place``: row/protocol/seed."""
    protocol, folder = find_protocol(place.split("/")[1]), out / "runs" / place
    command = ("transfer", protocol.name, *words, "--out", str(folder))
    inputs = protocol.config, table_of(protocol.framework)
    return Job(f"transfer/{place}", command, folder / "result.json", after, inputs)

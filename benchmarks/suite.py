"""Suites: rows (initialisations) × protocols × seeds, planned as jobs that run the other commands."""

from __future__ import annotations

import json
import math
import re
from copy import deepcopy
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from benchmarks.jobs import Job
from pixbench.errors import UserError, did_you_mean
from pixbench.file_versions import CHECKPOINT_FILE, RESULT_FILE
from pixbench.paths import CONFIGS, find_config
from transfer.datasets.classes import read_classes
from transfer.job import CACHE_GB
from transfer.protocols import Protocol, find_protocol, table_of
from transfer.weights.sources import SCHEMES, locate

TAKEN = {"out": "choose the folder with --out of the suite", "data.root": "give --data-root"}
"""Pre-training settings that a row cannot have -> what to do instead."""


@dataclass(frozen=True)
class Row:
    """One row of the tables. Its backbone is pre-trained (``pretrain``), read (``weights``) or given by ``init``."""

    pretrain: tuple[str, ...] = ()
    """Config files relative to `configs/`; later ones win."""
    set: dict[str, Any] = field(default_factory=dict)
    """Dotted pre-training settings that override the files."""
    weights: str = ""
    """A file of any known format; the path is relative to the current folder."""
    init: Literal["random", "supervised"] = "random"
    freeze: Literal["none", "backbone"] = "none"
    """What is not trained: "none", or "backbone" (only the layers that the protocol adds are trained)."""
    protocols: tuple[str, ...] | None = None
    """Protocols of this row, if it is not measured under all of the suite."""


@dataclass(frozen=True)
class Mini:
    """Options of `pixbench data mini`; what is left out has that command's default."""

    world: Literal["everyday", "shapes"] | None = None
    seed: int | None = None
    images: int | None = None
    workers: int | None = None


@dataclass(frozen=True)
class Suite:
    """The content of a suite file: which rows to measure under which protocols, and how to run the jobs."""

    rows: dict[str, Row]
    protocols: tuple[str, ...]
    scale: Literal["paper", "mini"]
    seeds: tuple[int, ...] = (0,)
    frozen_seeds: tuple[int, ...] | None = None
    """Seeds of frozen protocols, whose numbers hardly depend on them; None for ``seeds``."""
    mini: dict[str, Any] | None = None
    """Options of `pixbench data mini`, which generates data below the output folder if no data root is given."""
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)
    """protocol -> config keys of its framework, set in every row and recorded as deviations."""
    classes: dict[str, str] = field(default_factory=dict)
    """protocol -> file with a user's own classes (`pixbench transfer --classes`), relative to the current folder."""
    interval: Literal["seeds", "images"] = "seeds"
    """Of what the intervals in the table are, as with `pixbench table --interval`."""
    jobs_at_a_time: int = 1
    """Number of jobs that run at the same time on this machine; the cores are divided among them."""
    features_gb: float = CACHE_GB
    """Most that the features of frozen protocols may take, in GB; all jobs share them."""
    slurm: dict[str, Any] = field(default_factory=dict)
    """Options of sbatch for all jobs; options of one command are below its name, e.g. pretrain (docs/launching.md)."""

    def protocols_of(self, label: str) -> tuple[str, ...]:
        """Return the protocols under which the row ``label`` is measured."""
        own = self.rows[label].protocols
        return self.protocols if own is None else own

    def seeds_of(self, protocol: Protocol) -> tuple[int, ...]:
        """Return the seeds of the runs under ``protocol``."""
        return self.seeds if protocol.kind != "frozen" or self.frozen_seeds is None else self.frozen_seeds


class Loader(yaml.SafeLoader):
    """YAML without numbers of base 60: a time such as 24:00:00 stays a text instead of becoming 86400."""


def _whole(loader: Loader, node: yaml.ScalarNode) -> int | str:
    return node.value if ":" in node.value else loader.construct_yaml_int(node)


Loader.add_constructor("tag:yaml.org,2002:int", _whole)


def read_suite(path: Path) -> Suite:
    """Read and check a suite file; raise UserError if it cannot be read or has a wrong setting."""
    path = find_config(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: not UTF-8, or an impossible date
        raise UserError(f"the suite {path} cannot be read: {error}") from error
    if isinstance(content, dict) and isinstance(rows := content.get("rows"), dict):
        content["rows"] = {str(label): _row(row or {}, f"{path}, row {label}") for label, row in rows.items()}
    suite: Suite = _parsed(Suite, content, str(path))
    rows = {f"row {label}: protocols": row.protocols or () for label, row in suite.rows.items()}
    once = {"protocols": suite.protocols, "seeds": suite.seeds, "frozen_seeds": suite.frozen_seeds or (), **rows}
    for key, values in once.items():
        if twice := [value for place, value in enumerate(values) if value in values[:place]]:
            raise UserError(f"{path}: {key} has {twice[0]!r} twice; give each once")
    for key, seeds in {"seeds": suite.seeds, "frozen_seeds": suite.frozen_seeds}.items():
        if seeds == ():
            raise UserError(
                f"{path}: {key} is empty, so nothing would be measured; give at least one, or leave the key out"
            )
    if suite.mini:
        _check_mini(suite.mini, f"{path}: mini")
    if suite.jobs_at_a_time < 1:
        raise UserError(f"{path}: jobs_at_a_time is {suite.jobs_at_a_time}; it must be 1 or more")
    if not 0 < suite.features_gb < math.inf:
        raise UserError(f"{path}: features_gb is {suite.features_gb:g}; it must be more than 0, and finite")
    for name in [*suite.protocols, *suite.overrides, *suite.classes]:
        find_protocol(str(name))
    for key, names in {**rows, "overrides": suite.overrides, "classes": suite.classes}.items():
        if unused := [name for name in names if name not in suite.protocols]:
            raise UserError(f"{path}: {key} has {unused[0]}, which is not among the protocols of this suite")
    return suite


def _check_mini(content: dict[str, Any], where: str) -> None:
    from benchmarks.miniworld.generate import World

    mini: Mini = _parsed(Mini, content, where)
    try:
        World(**{key: value for key in ("seed", "images") if (value := getattr(mini, key)) is not None})
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _row(content: Any, where: str) -> Row:
    label = where.rpartition(", row ")[2]
    if not label or not label.isprintable() or label[0] in "-." or set(label) & set("/\\"):
        raise UserError(
            f"{where}: the label {label!r} cannot name a folder; begin it with a letter or number, and leave out / and \\"
        )
    row: Row = _parsed(Row, content, where)
    if taken := [key for key in row.set if key in TAKEN]:
        raise UserError(
            f"{where}: {taken[0]} cannot be set, because the suite gives each row its own; {TAKEN[taken[0]]}"
        )
    if sum(content.get(key) is not None for key in ("pretrain", "weights", "init")) > 1:
        raise UserError(f"{where}: give one of pretrain, weights and init, not several")
    return row


def _parsed(cls: Any, content: Any, where: str) -> Any:
    """Convert ``content`` to a ``cls``, or raise UserError. A key without a value counts as left out."""
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
    # dicts with arbitrary content stay as written: the parser would convert the string "1e-3" to a number
    return cls(**values | {key: value for key, value in given.items() if isinstance(value, dict)})


def plan(suite: Suite, out: Path, data_root: Path | None, pixbench: tuple[str, ...]) -> list[Job]:
    """Return all jobs of a suite; each job comes after the jobs that it waits for.

    Args:
        suite: the suite to run.
        out: output folder of all jobs.
        data_root: folder of the data sets; None to generate a mini world.
        pixbench: command that starts `pixbench`, put in front of the arguments of each job.

    Raises:
        UserError: there is neither a data root nor a mini world to generate, or a file of a row does not exist.
    """
    jobs: dict[str, Job] = {}
    ready: tuple[str, ...] = ()
    if data_root is None:
        if suite.mini is None and suite.scale == "mini":
            raise UserError(
                "this suite has no data: add the key `mini: {}` to generate a mini world, or give the data folder "
                "with --data-root"
            )
        if suite.mini is None:
            raise UserError("this suite needs real data: give its folder with --data-root")
        data_root, ready = out / "data", ("data",)
        mini = {f"--{key}": value for key, value in suite.mini.items()}
        jobs["data"] = Job("data", ("data", "mini", *_words({"--root": data_root, **mini})), data_root)
    for label, row in suite.rows.items():
        if row.weights and not row.weights.startswith(SCHEMES) and not Path(row.weights).exists():
            raise UserError(f"row {label}: there is no file {row.weights} here ({Path.cwd()}); correct its `weights:`")
        if row.weights.startswith("zoo:"):
            try:
                locate(row.weights)
            except UserError as error:
                raise UserError(f"row {label}: {error}") from None
        if row.pretrain:
            jobs[f"pretrain/{label}"] = _pretrain_job(label, row, out, data_root, ready)
    transfers: list[Job] = []
    for label, row in suite.rows.items():
        for name in suite.protocols_of(label):
            protocol = find_protocol(name)
            start, after = _start(label, suite, protocol, out, ready)
            if row.pretrain and protocol.weights_framework:
                convert = _convert_job(label, protocol.weights_framework, out)
                jobs[convert.name] = convert
                start, after = ("--weights", str(convert.output)), (convert.name,)
            if protocol.framework == "frozen":
                start += _words({"--cache": out / "features", "--cache-gb": suite.features_gb})
            for seed in suite.seeds_of(protocol):
                options = {"--data-root": data_root, "--scale": suite.scale, "--seed": seed, "--label": label}
                options |= {"--freeze": row.freeze} if row.freeze != "none" else {}
                options |= (
                    {"--classes": read_classes(Path(suite.classes[name])).source} if name in suite.classes else {}
                )
                changes = [("--set", f"{key}={json.dumps(v)}") for key, v in suite.overrides.get(name, {}).items()]
                words = (*start, *_words(options), *(word for change in changes for word in change))
                files = (Path(suite.classes[name]),) if name in suite.classes else ()
                job = _transfer_job(f"{label}/{name}/seed{seed}", words, out, after, files)
                transfers.append(replace(job, weights=row.weights))
    return [replace(job, command=(*pixbench, *job.command)) for job in (*jobs.values(), *transfers)]


def _start(
    label: str, suite: Suite, protocol: Protocol, out: Path, ready: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the words that name the backbone of a row, without conversion, and the jobs that must be done before.

    For a frozen protocol a random backbone is like that of the first row with weights, because stride,
    width and pixels move its numbers.
    """
    row = suite.rows[label]
    if found := _weights(label, row, out):
        return ("--weights", found), (f"pretrain/{label}",) if row.pretrain else ready
    words: tuple[str, ...] = ("--init", row.init)
    like = like_row(suite) if protocol.kind == "frozen" and row.init == "random" else None
    if like is None:
        return words, ready
    after = (f"pretrain/{like}",) if suite.rows[like].pretrain else ready
    return (*words, "--like", _weights(like, suite.rows[like], out)), after


def like_row(suite: Suite) -> str | None:
    """Return the label of the first row with weights, which random backbones are like; None if there is none."""
    return next((label for label, row in suite.rows.items() if row.pretrain or row.weights), None)


def _weights(label: str, row: Row, out: Path) -> str:
    """Return the file that holds the weights of a row as they are, or ""."""
    return str(out / "pretrain" / label / CHECKPOINT_FILE) if row.pretrain else row.weights


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
    return Job(f"pretrain/{label}", command, folder / CHECKPOINT_FILE, after, files)


def _convert_job(label: str, framework: str, out: Path) -> Job:
    to, _, detector = framework.partition("_")
    path = out / "weights" / f"{label}_{framework}.{'pkl' if to == 'detectron2' else 'pth'}"
    options = {"--to": to} | ({"--detector": detector} if detector else {}) | {"-o": path}
    command = ("convert", str(out / "pretrain" / label / CHECKPOINT_FILE), *_words(options))
    return Job(f"convert/{label}/{framework}", command, path, (f"pretrain/{label}",))


def _transfer_job(
    place: str, words: tuple[str, ...], out: Path, after: tuple[str, ...], files: tuple[Path, ...]
) -> Job:
    """Return the transfer job of ``place`` (row/protocol/seed); its result depends on ``files`` too."""
    protocol, folder = find_protocol(place.split("/")[1]), out / "runs" / place
    command = ("transfer", protocol.name, *words, "--out", str(folder))
    inputs = protocol.config, table_of(protocol.framework), *files
    return Job(f"transfer/{place}", command, folder / RESULT_FILE, after, inputs)

"""Collect the results of finished runs, in groups that may stand in one table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.published import published, title
from benchmarks.results.reading import Results, check_folders, read_all
from benchmarks.statistics.intervals import Samples
from pixbench.errors import UserError, listed
from pixbench.file_versions import RESULT_FILE
from transfer.protocols import KINDS, NEUTRAL, NOT_SET, Protocol, leaves, protocols
from transfer.run_folder import row_of, short

NO_REASON = "the evaluation gave no number"
"""Said of an undefined metric whose result has no reason."""


@dataclass
class Entry:
    """All runs of one row under one protocol at one scale."""

    runs: list[dict[str, Any]] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    """The `result.json` of each run."""

    def values(self, metric: str) -> list[float]:
        """Return one number per seed; NaN if the run measured none (recorded as null)."""
        found = [run["metrics"].get(metric) for run in self.runs]
        return [math.nan if value is None else float(value) for value in found]

    def samples(self, metric: str) -> Samples:
        """Return (seed of pre-training, seed of the evaluation) -> number; "" for a row that is a single pre-training run."""
        keys = [(run.get("joined", ""), seed_of(run)) for run in self.runs]
        return dict(zip(keys, self.values(metric), strict=True))

    @property
    def seeds(self) -> str:
        """How many seeds there are: "3", or "2 × 3" for three evaluations of each of two pre-training seeds."""
        joined = {run["joined"] for run in self.runs if "joined" in run}
        return f"{len(joined)} × {len(self.runs) / len(joined):g}" if joined else str(len(self.runs))

    def undefined(self, metric: str) -> str:
        """Return why a seed has no number of ``metric``; "" if all have one."""
        without = [run for run, value in zip(self.runs, self.values(metric), strict=True) if math.isnan(value)]
        reasons = dict.fromkeys(
            (run.get("evaluation") or {}).get("undefined", {}).get(metric, NO_REASON) for run in without
        )
        some = f"in {len(without)} of {len(self.runs)} seeds, " if without and len(self.runs) > 1 else ""
        return f"{metric}: {some}{'; '.join(reasons)}" if without else ""

    @property
    def deviations(self) -> tuple[str, ...]:
        """Deviations from the protocol in any of the runs, each once."""
        return tuple(sorted({text for run in self.runs for text in run["deviations"]}))


class Task(NamedTuple):
    """What a run measured. Results of different tasks never share a column."""

    protocol: str
    classes: tuple[str, ...] = ()
    """A user's own classes; empty for those of the protocol."""

    @property
    def about(self) -> Protocol:
        """The protocol."""
        return protocols()[self.protocol]

    @property
    def own(self) -> str:
        """What is added to the heading of a column if the classes are a user's own."""
        if not self.classes:
            return ""
        more = f" and {len(self.classes) - 3} more" if len(self.classes) > 3 else ""
        return f" on own classes ({', '.join(self.classes[:3])}{more})"


@dataclass
class Group:
    """All results of one kind at one scale: label -> task -> entry. Those of different groups never share a table."""

    scale: str
    kind: str
    """A key of `transfer.protocols.KINDS`."""
    rows: dict[str, dict[Task, Entry]] = field(default_factory=dict)

    def tasks(self) -> list[Task]:
        """Return the tasks that have results, in the order of `configs/protocols/`."""
        order, used = list(protocols()), {task for entries in self.rows.values() for task in entries}
        return sorted(used, key=lambda task: (order.index(task.protocol), task.classes))

    def measured(self, task: Task) -> list[str]:
        """Return the metrics that any result of ``task`` holds, in the order of the protocol."""
        found = {
            name
            for entries in self.rows.values()
            if task in entries
            for run in entries[task].runs
            for name in run["metrics"]
        }
        return [name for name in task.about.metrics if name in found]

    def title(self, label: str) -> str:
        """Return the title of a row; its label if another row has the same title."""
        own = self._title(label)
        alike = (other for other in self.rows if other != label and own in (other, title(other)))
        return label if any(self._title(other) == own for other in alike) else own

    def _title(self, label: str) -> str:
        """Return the title of the label of a row, unless it names another network than that of its results."""
        if label not in published():
            return title(label)
        runs = (run for entry in self.rows[label].values() for run in entry.runs)
        return title(label) if all(map(published()[label].titled, runs)) else label


def collect(runs: Path | Sequence[Path]) -> tuple[list[Group], list[str]]:
    """Read every result below ``runs``, one folder or several, and return what `grouped` makes of them.

    Raises:
        UserError: see `grouped`; or there is no result.
    """
    folders = [runs] if isinstance(runs, Path) else [*runs]
    check_folders(folders)
    results = read_all(folders, heavy=True)
    groups, left_out = grouped(results, folders)
    if not groups:
        raise UserError(
            f"no finished transfer run of a known protocol below {listed(map(str, folders))}; run `pixbench transfer`, `pixbench "
            "probe` or `pixbench suite` first" + (f"; {results.summary()}" if results.left_out else "")
        )
    return groups, left_out


def grouped(results: Results, folders: Sequence[Path]) -> tuple[list[Group], list[str]]:
    """Return the ``results`` below ``folders`` in groups, and one line per run that is left out.

    A file that is damaged, foreign, of another schema or changed by hand is left out too; a last line counts such files.
    Groups of full scale come first; of each scale, what was fine-tuned comes before what was frozen. The weight files of a row
    may differ between protocols, because one backbone is converted for each framework.

    Raises:
        UserError: two results of one row, protocol and scale have the same seed, or other weights or settings.
    """
    groups: dict[tuple[str, str], Group] = {}
    left_out: list[str] = []
    seen: dict[tuple[Any, ...], Path] = {}
    starts: dict[tuple[str, ...], tuple[str | None, Path, dict[str, Any]]] = {}

    def short_name(path: Path) -> Path:
        return path.parent.relative_to(folders[0]) if len(folders) == 1 and folders[0].is_dir() else path.parent

    for path, result in results.found:
        if (kind := result.get("kind")) not in KINDS:
            continue
        if result["status"] != "ok":
            left_out.append(f"{short_name(path)}: {result.get('reason', 'failed')}")
            continue
        if result["protocol"] not in protocols():
            left_out.append(f"{short_name(path)}: there is no protocol {result['protocol']} any more")
            continue
        label = row_of(result)
        task = Task(result["protocol"], tuple(result.get("classes") or ()))
        key = (label, result["protocol"] + task.own, result["scale"], seed_of(result))
        if key in seen:
            same = "imported from the same log" if result["seed"] is None else f"with seed {key[3]}; a seed counts once"
            raise UserError(
                f"{path} and {seen[key]} are both {label!r} of {key[1]} at {key[2]} scale {same}: remove one of them, or repeat "
                "the command of one with another --label"
            )
        seen[key] = path
        start = (result.get("weights") or {}).get("sha256") or result.get("like")
        before, where, first = starts.setdefault(key[:3], (start, path, result))
        settings = "; ".join(_other_settings(first, result))
        if start != before or settings:
            differ = "start from other weights" if start != before else f"have other settings ({settings})"
            raise UserError(
                f"{path} and {where} are both {label!r} of {result['protocol']}, but {differ}: repeat the command of one "
                "with another --label, or remove one of them"
            )
        group = groups.setdefault((result["scale"], kind), Group(result["scale"], kind))
        entry = group.rows.setdefault(label, {}).setdefault(task, Entry())
        entry.runs.append(result)
        entry.paths.append(path)
    left_out += [f"{short_name(file.path)}: {RESULT_FILE} {file.reason}" for file in results.left_out]
    left_out += [results.summary()] if results.left_out else []
    kinds = list(KINDS)
    order = sorted(groups, key=lambda key: (key[0] != "paper", key[0], kinds.index(key[1])))
    return [groups[key] for key in order], left_out


def seed_of(run: dict[str, Any]) -> int | str:
    """Return what tells a run from the others of its row: its seed; if that is not known, the digest of the log it is from."""
    if run["seed"] is not None:
        return int(run["seed"])
    return str((run.get("imported") or run).get("sha256") or run["digest"])


def _other_settings(first: dict[str, Any], run: dict[str, Any]) -> Iterator[str]:
    """Yield what a user has set differently in ``run`` than in ``first``, except what changes no metric, and seeds.

    What only one of them has set is compared with the resolved config of the other. Configs are not compared as a whole: they
    also hold what follows from the machine, such as the part of a batch for each process.
    """
    overrides = first.get("overrides") or {}, run.get("overrides") or {}
    # if both have set the same, nothing is asked of a config, whose hundreds of keys take time
    alike = overrides[0].keys() == overrides[1].keys()
    before, now = (_settings(result, with_config=not alike) for result in (first, run))
    set_by_user = {**overrides[0], **overrides[1]}
    options = "freeze", "accumulate"
    digests, read = first.get("files") or {}, run.get("files") or {}
    for key in (*options, *set_by_user):
        if key.endswith((*NEUTRAL, "seed")):
            continue
        if key in digests and key in read:  # the same list may be in another place
            name, then, today = f"content of {key}", digests[key], read[key]
        else:
            name, then, today = key, before.get(key, NOT_SET), now.get(key, NOT_SET)
        if then != today:
            yield f"{name} {short(today)} instead of {short(then)}"


def _settings(run: dict[str, Any], with_config: bool) -> dict[str, Any]:
    """Return the settings of a result by their dotted keys, and the options that are no settings of the framework."""
    accumulate = (run.get("scaling") or {}).get("accumulate", 1)
    options = {"freeze": run.get("freeze", "none"), "accumulate": accumulate}
    config = dict(leaves(run.get("config") or {})) if with_config else {}
    return config | (run.get("overrides") or {}) | options


def columns(used: Iterable[Task], also: Callable[[Task], Iterable[str]] = lambda _: ()) -> list[tuple[Task, str, str]]:
    """Return (task, metric, heading) of each column: those of the protocol, and those of the metrics that ``also`` returns."""
    heads = {
        task: task.about.columns | {name: f"{task.protocol} {name}" for name in also(task)} | task.about.columns
        for task in used
    }
    return [(task, metric, head + task.own) for task, found in heads.items() for metric, head in found.items()]

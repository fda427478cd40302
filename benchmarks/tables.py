"""Comparison tables in the form of the paper's Table 1, made only from `result.json` files and `published.yaml`."""

from __future__ import annotations

import csv
import io
import math
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tabulate import tabulate

from benchmarks.published import Published, published, title
from pixbench.errors import UserError, did_you_mean
from pixbench.file_versions import RESULT_FILE
from pixbench.files import write_text
from pixbench.results import read_result
from transfer.protocols import Protocol, protocols

BEGIN, END = "<!-- table -->", "<!-- end of table -->"


@dataclass
class Entry:
    """All runs of one row under one protocol at one scale."""

    runs: list[dict[str, Any]] = field(default_factory=list)

    def values(self, metric: str) -> list[float]:
        """Return one number per seed; NaN if the run measured none (recorded as null)."""
        found = [run["metrics"].get(metric) for run in self.runs]
        return [math.nan if value is None else float(value) for value in found]

    def text(self, metric: str) -> str:
        """Return the mean, with the standard deviation if there are several seeds; "–" if there is no run."""
        values = self.values(metric)
        if not values:
            return "–"
        mean, spread = mean_std(values)
        return f"{mean:.1f}" if spread is None else f"{mean:.1f} ± {spread:.1f}"

    @property
    def deviations(self) -> tuple[str, ...]:
        """Deviations from the protocol in any of the runs, each once."""
        return tuple(sorted({text for run in self.runs for text in run["deviations"]}))


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Return mean and sample standard deviation (None for a single value); both are NaN if any value is NaN."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


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
class Scale:
    """All results at one scale: label -> task -> entry."""

    name: str
    rows: dict[str, dict[Task, Entry]] = field(default_factory=dict)

    def tasks(self) -> list[Task]:
        """Return the tasks that have results, in the order of `configs/protocols/`."""
        order, used = list(protocols()), {task for entries in self.rows.values() for task in entries}
        return sorted(used, key=lambda task: (order.index(task.protocol), task.classes))


def collect(runs: Path) -> tuple[dict[str, Scale], list[str]]:
    """Read every transfer result below ``runs``; return the scales by name, and one line per run that is left out.

    The weight files of a row may differ between protocols, because one backbone is converted for each framework.

    Raises:
        UserError: there is no result, or two of one row, protocol and scale have the same seed or different weights.
    """
    scales: dict[str, Scale] = {}
    left_out: list[str] = []
    seen: dict[tuple[Any, ...], Path] = {}
    starts: dict[tuple[str, ...], tuple[str | None, Path]] = {}
    for path in sorted(runs.rglob(RESULT_FILE)):
        result = read_result(path)
        if result.get("kind") != "transfer":
            continue
        if result["status"] != "ok":
            left_out.append(f"{path.parent.relative_to(runs)}: {result.get('reason', 'failed')}")
            continue
        if result["protocol"] not in protocols():
            left_out.append(f"{path.parent.relative_to(runs)}: there is no protocol {result['protocol']} any more")
            continue
        label = result.get("label") or result["init"]
        task = Task(result["protocol"], tuple(result.get("classes") or ()))
        key = (label, result["protocol"] + task.own, result["scale"], result["seed"])
        if key in seen:
            raise UserError(
                f"{path} and {seen[key]} are both {key}; a seed counts once: remove one of them, or repeat the command "
                "of one with another --label"
            )
        seen[key] = path
        start = (result.get("weights") or {}).get("sha256")
        before, where = starts.setdefault(key[:3], (start, path))
        if start != before:
            raise UserError(
                f"{path} and {where} are both {label!r} of {result['protocol']}, but start from other weights: repeat "
                "the command of one with another --label, or remove one of them"
            )
        scale = scales.setdefault(result["scale"], Scale(result["scale"]))
        scale.rows.setdefault(label, {}).setdefault(task, Entry()).runs.append(result)
    if not seen:
        raise UserError(
            f"no finished transfer run of a known protocol below {runs}; run `pixbench transfer` or `pixbench suite` first"
        )
    return scales, left_out


def columns(used: Iterable[Task]) -> list[tuple[Task, str, str]]:
    """Return (task, metric, heading) of each column."""
    return [(task, metric, head + task.own) for task in used for metric, head in task.about.columns.items()]


class Footnotes:
    """Letters for sets of deviations; equal sets of one protocol get the same letter."""

    def __init__(self) -> None:
        self.letters: dict[tuple[Task, tuple[str, ...]], str] = {}

    def mark(self, task: Task, deviations: tuple[str, ...]) -> str:
        """Return the mark of ``deviations``, for example " [a]"; empty if there are none."""
        if not deviations:
            return ""
        index = len(self.letters)
        letter = string.ascii_lowercase[index % 26] * (1 + index // 26)
        return f" [{self.letters.setdefault((task, deviations), letter)}]"

    def lines(self) -> list[str]:
        """Return the lines that explain the letters; a deviation with several letters comes once, after all of its letters."""
        letters: dict[str, list[str]] = {}
        for (_, deviations), letter in self.letters.items():
            for text in deviations:
                letters.setdefault(text, []).append(f"[{letter}]")
        texts: dict[str, list[str]] = {}
        for text, found in letters.items():
            texts.setdefault(" ".join(found), []).append(text)
        return [f"{found}: {'; '.join(texts[found])}" for found in sorted(texts, key=lambda f: (-len(f), f))]


def render(scale: Scale, order: Sequence[str] = ()) -> str:
    """Return the Markdown table of one scale with footnotes; at paper scale, with published numbers in brackets."""
    heads = columns(scale.tasks())
    notes, body = Footnotes(), []
    shared = {task: _shared_deviations(scale, task) for task, _, _ in heads}
    marks = {task: notes.mark(task, texts) for task, texts in shared.items()}
    labels = [label for label in order if label in scale.rows] + [label for label in scale.rows if label not in order]
    for label in labels:
        line = [title(label)]
        for task, metric, _ in heads:
            entry = scale.rows[label].get(task, Entry())
            text = entry.text(metric)
            if entry.deviations != shared[task]:
                text += notes.mark(task, entry.deviations)
            if scale.name == "paper" and label in published() and not task.classes:
                text += f" ({published()[label].values.get(task.protocol, {}).get(metric, '–')})"
            line.append(text)
        body.append(line)
    seeds = sorted({len(entry.runs) for entries in scale.rows.values() for entry in entries.values()})
    about = f"{' to '.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))} fine-tuning seed(s) for each number"
    if scale.name == "paper":
        beside = " (published in brackets)" if any(not task.classes for task, _, _ in heads) else ""
        intro = f"## Measured at full scale{beside}\n\nMean ± standard deviation, {about}."
    else:
        intro = (
            f"## Measured at {scale.name} scale\n\n**Not comparable with any published number**: small pictures, a narrow "
            f"backbone and short schedules. It shows that the whole path runs. {about}."
        )
    table = _markdown(body, [head + marks[task] for task, _, head in heads])
    footer = "\n".join(f"- {line}" for line in notes.lines())
    return f"{intro}\n\n{table}\n" + (f"\nDeviations from the published protocols:\n\n{footer}\n" if footer else "")


def _shared_deviations(scale: Scale, task: Task) -> tuple[str, ...]:
    """Return the deviations of a column if all its entries have the same; else none, and each entry gets its own mark."""
    found = {entries[task].deviations for entries in scale.rows.values() if task in entries}
    return found.pop() if len(found) == 1 else ()


def _markdown(body: list[list[str]], heads: list[str]) -> str:
    return tabulate(body, ["Pre-training", *heads], tablefmt="github", disable_numparse=True)


def render_published(names: Iterable[str]) -> str:
    """Return a separate table with the published numbers of these protocols and their sources."""
    heads = columns([Task(name) for name in names])
    rows = [row for row in published().values() if any(task.protocol in row.values for task, _, _ in heads)]
    body = [[row.title, *(_published(row, task.protocol, metric) for task, metric, _ in heads)] for row in rows]
    table = _markdown(body, [head for _, _, head in heads])
    sources = list(dict.fromkeys(text for row in rows for text in row.sources.values()))
    lines = "\n".join(f"- [{index}] {text}" for index, text in enumerate(_all_sources(), 1) if text in sources)
    return f"## Published, full scale\n\n{table}\n\n{lines}\n"


def _all_sources() -> list[str]:
    return list(dict.fromkeys(text for row in published().values() for text in row.sources.values()))


def _published(row: Published, protocol: str, metric: str) -> str:
    value = row.values.get(protocol, {}).get(metric)
    return "–" if value is None else f"{value:.1f} [{_all_sources().index(row.sources[protocol]) + 1}]"


def tidy_csv(scales: Iterable[Scale]) -> str:
    """Return CSV with a line per row, protocol and metric: measured values and, at full scale, those published."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow("scale label protocol metric mean std seeds published source deviations classes".split())
    for scale in scales:
        for label, entries in scale.rows.items():
            known = published().get(label) if scale.name == "paper" else None
            for task, entry in entries.items():
                for metric in task.about.metrics:
                    if task.classes and not any(metric in run["metrics"] for run in entry.runs):
                        continue  # it is not defined for a user's own classes
                    mean, spread = mean_std(entry.values(metric))
                    value = known.values.get(task.protocol, {}).get(metric, "") if known and not task.classes else ""
                    source = known.sources.get(task.protocol, "") if known and value != "" else ""
                    numbers = mean, spread, len(entry.runs), value, source, len(entry.deviations)
                    writer.writerow([scale.name, label, task.protocol, metric, *numbers, "; ".join(task.classes)])
    return out.getvalue()


def write_tables(runs: Path, out: Path, order: Sequence[str] = (), must_exist: bool = False) -> str:
    """Write ``out/table.md`` and ``out/table.csv`` from the results below ``runs`` and return the Markdown.

    Args:
        runs: folder with `result.json` files, at any depth.
        out: folder for the tables.
        order: labels of the rows that come first.
        must_exist: whether there must be a row for each label of ``order``.

    Raises:
        UserError: see `collect`; or there is no row for a label of ``order``.
    """
    scales, left_out = collect(runs)
    labels = list(dict.fromkeys(label for scale in scales.values() for label in scale.rows))
    for label in order if must_exist else ():
        if label not in labels:
            raise UserError(
                f"there is no row {label!r} below {runs}{did_you_mean(label, labels)} (rows: {', '.join(labels)})"
            )
    used = list(dict.fromkeys(t.protocol for scale in scales.values() for t in scale.tasks() if not t.classes))
    parts = [render(scales[name], order) for name in sorted(scales, reverse=True)]
    parts += [render_published(used)] if used else []
    if left_out:
        parts.append("## Runs left out\n\n" + "\n".join(f"- {line}" for line in left_out) + "\n")
    text = "# Transfer results\n\n" + "\n".join(parts)
    write_text(out / "table.md", text)
    write_text(out / "table.csv", tidy_csv(scales.values()))
    return text


def insert(text: str, document: Path) -> None:
    """Replace the text between the two table markers of a Markdown document."""
    try:
        content = document.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{document} cannot be read: {error}") from error
    head, begin, rest = content.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not end:
        raise UserError(f"{document} has no place for a table: add the lines {BEGIN} and {END} where it belongs")
    write_text(document, f"{head}{begin}\n{text.strip()}\n{end}{tail}")

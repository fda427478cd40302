"""The generated parts of docs/study.md and of the README's first screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tabulate import tabulate

from benchmarks.report.bars import write_bars
from benchmarks.report.section import Contents
from benchmarks.results.reading import Results, read_all
from benchmarks.study import collapse, findings, hours, outcome
from benchmarks.study.answers import HYPOTHESES, INSTANCE, MAIN, MEASURES, PIXPRO, Answer, answers, overall
from benchmarks.study.collapse import ABLATIONS
from benchmarks.study.findings import CONTROL
from benchmarks.tables import compared
from benchmarks.tables.agreement import agreement_document
from benchmarks.tables.beside import beside
from benchmarks.tables.collected import Group, grouped
from benchmarks.tables.formats.markdown import grid, with_notes
from benchmarks.tables.options import NO_BASELINE, Column, Options
from benchmarks.tables.pretraining import joined
from pixbench.errors import UserError
from pixbench.paths import STUDY

NOTHING = "*Not measured yet.*"
RUNNING = "*It is not complete yet; its page has what is measured so far.*"
"""Said on the first screen until there is a finding."""
FIGURE = "study.svg"
ORDER = (*MAIN[:3], "byol", "densecl", "pixcontrast", PIXPRO, INSTANCE, "pixpro_fpn_head", CONTROL)
HEADS = ("hypothesis", "difference", "measure", "value [95 %]", "p, Holm", "p, all pairs", "answer")
"""Of the table of answers."""


class Page:
    """All that is made from the results of the study.

    Args:
        study: folder of the results; a part that has none yet is said to be not measured.

    Raises:
        UserError: a result is damaged, so the page would rest on fewer of them than are kept.
    """

    def __init__(self, study: Path = STUDY) -> None:
        self.study = study
        self.group = self._group("finetuned", "frozen")

    def _group(self, *parts: str) -> Group | None:
        """Return the results of some parts, seeds of pre-training joined; None if there are none yet."""
        folders = [self.study / part for part in parts if (self.study / part / "runs").is_dir()]
        found, left_out = grouped(read_all(folders, heavy=True), folders) if folders else ([], [])
        if left_out:
            raise UserError(
                f"results of the study cannot be used; restore them, or run them again: {'; '.join(left_out)}"
            )
        both = beside([joined(one) for one in found])
        if not both:
            return None
        titles = {"supervised_s0": CONTROL} | (ABLATIONS if "ablations" in parts else {})
        rows = {titles.get(label, label.removesuffix("_s0")): row for label, row in both[0].rows.items()}
        return replace(both[0], rows=rows)

    def search(self) -> str:
        """Return the numbers of the search."""
        return outcome.table(self.study)

    def results(self) -> str:
        """Return all rows under all protocols."""
        return _table(self.group, ORDER)

    def ablations(self) -> str:
        """Return the ablations of PixPro under the frozen protocols."""
        return _table(self._group("ablations"), [*ABLATIONS.values()])

    def longer(self) -> str:
        """Return one run each of some rows that were fine-tuned ten times as long."""
        return _table(self._group("longer"), ORDER)

    def ranks(self) -> str:
        """Return the agreement between frozen and fine-tuned protocols (H6)."""
        if self.group is None or len({task.about.kind for task in self.group.tasks()}) < 2:
            return NOTHING
        document = agreement_document(self.group)
        found, table = document.records, document.tables[0]
        positive = sum(one["tau"] > 0 for one in found)
        clear = sum(one["low"] is not None and one["low"] > 0 for one in found)
        answer = f"τ is above 0 in {positive} of {len(found)} pairs, with its interval (without correction) in {clear}."
        return f"{table.intro}\n\n{grid(table)}\n\n{answer}"

    def tested(self) -> str:
        """Return the answers to H1 to H4, claim by claim and as a whole."""
        found = {one.name: [*answers(self.group, one)] if self.group else [] for one in HYPOTHESES}
        rows = [_row(name, answer) for name, claims in found.items() for answer in claims]
        if not rows:
            return NOTHING
        whole = [f"- **{name}** {overall(claims)}" for name, claims in found.items() if claims]
        return tabulate(rows, HEADS, tablefmt="github", disable_numparse=True) + "\n\n" + "\n".join(whole)

    def curves(self) -> str:
        """Return what shows a collapse, with and without the PPM (H5)."""
        return collapse.table(self.study / "ablations")

    def hours(self) -> str:
        """Return how many core-hours each part took."""
        return hours.table(self.study)

    def findings(self) -> str:
        """Return the findings in at most three sentences."""
        smallest = collapse.smallest(self.study / "ablations")
        found = findings.sentences(self.group, smallest) if self.group else []
        return "\n".join(f"- {sentence}" for sentence in found) if found else NOTHING

    @property
    def columns(self) -> list[tuple[Group, Column]]:
        """The charts of the main figure: a measure of the hypotheses each, as far as there are results."""
        if (group := self.group) is None:
            return []
        known = [measure for measure in MEASURES if measure.task in group.tasks()]
        return [(group, (measure.task, measure.metric, measure.title)) for measure in known]

    def write_figure(self, path: Path) -> None:
        """Write the main figure to ``path`` (.svg or .png), if there is one."""
        if self.columns:
            contents = Contents([], Results(), [self.columns[0][0]], options=Options(ORDER))
            write_bars(contents, self.columns, "Everyday mini world, quarter-width ResNet-50", path)

    def first_screen(self) -> str:
        """Return the main figure and the findings, for the README."""
        if (found := self.findings()) == NOTHING:
            return RUNNING
        return f"![The rows of the study under the measures of its hypotheses](docs/{FIGURE})\n\n{found}"


def _table(group: Group | None, order: Sequence[str]) -> str:
    if group is None:
        return NOTHING
    options = Options([label for label in order if label in group.rows], NO_BASELINE)
    table = compared([group], (), options, beside=True).tables[0]
    return f"{table.intro}\n\n{with_notes(table)}".rstrip()


def _row(name: str, answer: Answer) -> tuple[str, ...]:
    claim, p = answer.claim, [_written(found.p) for found in (answer.verdict, answer.strict)]
    return name, f"{claim.row} − {claim.other}", claim.measure.title, answer.difference, *p, answer.words


def _written(p: float | None) -> str:
    return "–" if p is None else f"{p:.3f}" if p >= 0.001 else "< 0.001"

"""The hypotheses of the study (docs/study.md) and what its results say about them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from benchmarks.statistics.comparisons import HIGHER, LOWER, NOISE, Verdict, compare, verdicts
from benchmarks.statistics.intervals import ENOUGH, Samples
from benchmarks.tables.collected import Group, Task

PIXPRO, INSTANCE = "pixpro", "pixpro_instance"
MAIN = ("random", "simclr", "moco_v2", PIXPRO, INSTANCE)
"""Rows with several pre-training runs; only these are tested."""


@dataclass(frozen=True)
class Measure:
    """A number that a hypothesis is about."""

    protocol: str
    metric: str
    title: str

    @property
    def task(self) -> Task:
        """What was measured."""
        return Task(self.protocol)


LOCALISATION = (
    Measure("voc_c4", "AP50", "VOC AP50"),
    Measure("cityscapes_fcn16s", "boundary_mIoU", "Cityscapes boundary mIoU"),
    Measure("voc12aug_incontext", "mIoU", "VOC in-context mIoU"),
)
IDENTITY = Measure("imagenet_probe", "linear_top1", "linear top-1")
MEASURES = (*LOCALISATION, IDENTITY)


@dataclass(frozen=True)
class Claim:
    """One comparison that a hypothesis is made of: ``row`` minus ``other``."""

    row: str
    other: str
    measure: Measure
    expected: str
    """`HIGHER` or `LOWER`; "" if it is only expected not to be lower."""


@dataclass(frozen=True)
class Hypothesis:
    """What was expected before the first run."""

    name: str
    claims: tuple[Claim, ...]


def _claims(row: str, others: Sequence[str], measures: Sequence[Measure], expected: str) -> tuple[Claim, ...]:
    return tuple(Claim(row, other, measure, expected) for other in others for measure in measures)


RIVALS = ("simclr", "moco_v2")
HYPOTHESES = (
    Hypothesis("H1", _claims(PIXPRO, ["random"], LOCALISATION, HIGHER)),
    Hypothesis("H2", _claims(PIXPRO, RIVALS, LOCALISATION, HIGHER)),
    Hypothesis("H3", _claims(PIXPRO, RIVALS, [IDENTITY], LOWER)),
    Hypothesis("H4", _claims(INSTANCE, [PIXPRO], [IDENTITY], HIGHER) + _claims(INSTANCE, [PIXPRO], LOCALISATION, "")),
)
"""Those with a test; docs/study.md has them in words."""


@dataclass(frozen=True)
class Answer:
    """A claim, and what was measured."""

    claim: Claim
    verdict: Verdict
    """Of ``claim.row`` minus ``claim.other``; p is corrected over the comparisons of ``claim.row`` with the other main rows."""
    strict: Verdict
    """The same, with p corrected over all pairs of main rows."""

    @property
    def untested(self) -> str:
        """Why there is no test, such as an undefined number; "" if there is one."""
        return self.verdict.comparison.reason

    @property
    def holds(self) -> bool | None:
        """Whether the claim holds; None if the two cannot be told apart at this size, or there is no test."""
        if self.untested or (self.claim.expected and self.verdict.mark == NOISE):
            return None
        return self.verdict.mark == self.claim.expected if self.claim.expected else self.verdict.mark != LOWER

    @property
    def difference(self) -> str:
        """The difference with its 95 % interval, in the unit of the measure."""
        test = self.verdict.comparison
        if math.isnan(test.difference):
            return "–"
        ends = "" if test.low is None or test.high is None else f" [{test.low:+.1f}, {test.high:+.1f}]"
        return f"{test.difference:+.1f}{ends}".replace("-", "−")

    @property
    def words(self) -> str:
        """The answer in words."""
        if self.untested:
            return f"no test: {self.untested}"
        if self.claim.expected:
            return {True: "holds", False: "the opposite", None: "not distinguishable"}[self.holds]
        return "no loss seen" if self.holds else "a loss"


def overall(found: Sequence[Answer]) -> str:
    """Return what the answers to a hypothesis come to: it holds if all its claims do."""
    held = sum(answer.holds is True for answer in found)
    word = "holds" if held == len(found) else "holds in part" if held else "is not confirmed"
    return f"{word} ({held} of {len(found)} comparisons)"


def answers(group: Group, hypothesis: Hypothesis) -> Iterator[Answer]:
    """Yield the answers to a hypothesis; claims whose rows have not enough pre-training runs yet have none.

    Args:
        group: fine-tuned and frozen results; rows that differ in the seed of pre-training alone are joined.
        hypothesis: one of `HYPOTHESES`.
    """
    for claim in hypothesis.claims:
        runs = _tested(group, claim.measure)
        if claim.row not in runs or claim.other not in runs:
            continue
        labels = sorted(runs, key=lambda label: label != claim.row)  # so its pairs are its row minus another
        pairs = {(row, other): compare(runs[row], runs[other]) for row, other in combinations(labels, 2)}
        mine = verdicts({pair: found for pair, found in pairs.items() if claim.row in pair})
        yield Answer(claim, mine[claim.row, claim.other], verdicts(pairs)[claim.row, claim.other])


def _tested(group: Group, measure: Measure) -> dict[str, Samples]:
    """Return label -> numbers of the main rows that have enough pre-training runs."""
    of = {label: group.rows[label].get(measure.task) for label in MAIN if label in group.rows}
    samples = {label: entry.samples(measure.metric) for label, entry in of.items() if entry is not None}
    return {label: found for label, found in samples.items() if len({run for run, _ in found}) >= ENOUGH}

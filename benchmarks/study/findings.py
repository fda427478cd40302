"""What the study has found, in three sentences for the README's first screen."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.published import title
from benchmarks.statistics.comparisons import HIGHER, LOWER
from benchmarks.statistics.intervals import over_seeds
from benchmarks.study import collapse
from benchmarks.study.answers import HYPOTHESES, IDENTITY, MAIN, MEASURES, PIXPRO, Answer, answers
from benchmarks.tables.collected import Group

CONTROL = "supervised control"


def sentences(group: Group, without_ppm: float | None) -> list[str]:
    """Return the findings, one sentence each; none for what is not measured yet.

    Args:
        group: fine-tuned and frozen results; rows that differ in the seed of pre-training alone are joined.
        without_ppm: smallest standard deviation of the projections in pre-training without the PPM, in parts of that of
            independent features; None if it is not known.
    """
    h1, h2, h3, h4 = ([*answers(group, hypothesis)] for hypothesis in HYPOTHESES)
    found = []
    if h1:
        found.append(f"**Localisation**: {_against(h1)}.")
    if h2 or h3:
        found.append(f"**Instance methods**: {_against([*h2, *h3])}{_fragile([*h1, *h2, *h3])}.")
    parts = [_instance(h4)] if h4 else []
    if without_ppm is not None:
        verb = "collapse" if without_ppm < collapse.COLLAPSED else "do not collapse"
        parts.append(
            f"without its propagation module PixPro's projections {verb} (standard deviation down to {without_ppm:.2f}, one run)"
        )
    if parts and (above := _above(group)):
        parts.append(f"above PixPro in all measures, but not tested (one run each): {', '.join(map(title, above))}")
    if parts:
        found.append(f"**Parts of PixPro**: {'; '.join(parts)}.")
    return found


def _fragile(found: Iterable[Answer]) -> str:
    """Name the differences that are none if p is corrected over all pairs of main rows."""
    lost = [answer for answer in found if answer.holds is not None and answer.strict.mark != answer.verdict.mark]
    names = ", ".join(f"{answer.claim.measure.title} against {title(answer.claim.other)}" for answer in lost)
    return f"; corrected over all pairs of these rows, {names} is not distinguishable either" if lost else ""


def _above(group: Group) -> list[str]:
    """Return the rows with too few pre-training runs for a test whose means are above PixPro's in all measures."""

    def means(label: str) -> list[float]:
        entries = group.rows.get(label, {})
        return [over_seeds(entries[m.task].samples(m.metric)).mean for m in MEASURES if m.task in entries]

    usual = means(PIXPRO)
    others = {label: means(label) for label in group.rows if label not in (*MAIN, CONTROL)}
    return [
        label
        for label, found in others.items()
        if len(found) == len(usual) == len(MEASURES) and all(a > b for a, b in zip(found, usual, strict=True))
    ]


def _against(found: Iterable[Answer]) -> str:
    """Say for each other row in what PixPro is above it, below it, or cannot be told apart."""
    others: dict[str, list[Answer]] = {}
    for answer in found:
        others.setdefault(answer.claim.other, []).append(answer)
    return "; ".join(f"against {title(other)}, PixPro is {_placed(mine)}" for other, mine in others.items())


def _placed(found: Iterable[Answer]) -> str:
    words = {HIGHER: "better in", LOWER: "worse in"}
    places: dict[str, list[str]] = {}
    for answer in found:
        place = "without a test in" if answer.untested else words.get(answer.verdict.mark, "not distinguishable in")
        places.setdefault(place, []).append(f"{answer.claim.measure.title} ({answer.difference})")
    return " and ".join(f"{place} {', '.join(measures)}" for place, measures in places.items())


def _instance(found: Iterable[Answer]) -> str:
    identity = [answer for answer in found if answer.claim.measure == IDENTITY]
    others = [answer for answer in found if answer.claim.measure != IDENTITY]
    lost = [answer.claim.measure.title for answer in others if answer.holds is False]
    untested = [answer.claim.measure.title for answer in others if answer.untested]
    gains = {True: "gains", False: "loses", None: "neither gains nor loses"}
    parts = [
        f"the instance branch {'has no test' if one.untested else f'{gains[one.holds]} distinguishably'} in {IDENTITY.title} "
        f"({one.difference})"
        for one in identity
    ]
    parts += [f"it loses {', '.join(lost)}"] if lost else []
    parts += [f"whether it loses {', '.join(untested)} is not known"] if untested else []
    return ", and ".join(
        [*parts, *(["no loss of localisation is seen"] if others and not lost and not untested else [])]
    )

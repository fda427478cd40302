"""Say in one line how runs differ from their protocol: the settings that a reader knows in words, the others by number."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from transfer.protocols import Protocol

CHANGED = re.compile(
    r"(?P<key>[A-Za-z_][\w.]*) (?P<now>\S*|\(.*?\))(?: \(content \w+\))?(?: instead of (?P<before>.+))?"
)
"""How `transfer.run.deviations` writes a setting. Sentences have no such key, see `_setting`."""
FEW = 2
"""So many other settings are named; of more, only the number is said."""
WIDTHS = {0.125: "eighth-width", 0.25: "quarter-width", 0.5: "half-width", 2: "double-width"}


def brief(protocol: Protocol, scale: str, deviations: Iterable[str]) -> str:
    """Return ``deviations`` in one line, for example "mini scale: 128-px images, quarter-width backbone".

    What the protocol itself changes in the public definition is counted; its page in the docs has it in full.
    """
    deviations = [*deviations]
    of_protocol = [text for text in deviations if text in protocol.differs]
    phrases, others, sentences = dict[str, None](), [], []
    for text in deviations:
        if text in of_protocol:
            continue
        if (setting := _setting(text)) is None:
            sentences.append(text)
        elif phrase := _phrase(*setting):
            phrases[phrase] = None
        else:
            others.append(text)
    order = sorted(phrases, key=lambda phrase: [bool(re.search(pattern, phrase)) for pattern in ORDER], reverse=True)
    parts = [*order, *sentences]
    if len(others) <= FEW:
        parts += [text.removeprefix("settings.") for text in others]
    else:
        parts.append(f"{len(others)} {'more' if phrases else 'other'} settings")
    if of_protocol:
        points = "1 point" if len(of_protocol) == 1 else f"{len(of_protocol)} points"
        parts.append(f"differs from the public definition in {points} (docs/protocols/{protocol.name}.md)")
    return f"{scale} scale: " * (scale != "paper") + ", ".join(parts)


def _setting(text: str) -> tuple[str, str, str] | None:
    """Return (key, value, published value) of a changed setting; None for a sentence."""
    found = CHANGED.fullmatch(text)
    if not found or not ("." in found["key"] or found["before"]):
        return None
    return found["key"], found["now"], found["before"] or ""


def _phrase(key: str, now: str, before: str) -> str:
    for pattern, write in PHRASES.items():
        if re.search(pattern, key):
            return write(now, before)
    return ""


def _numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?(?:e-?\d+)?", text)]


def _size(now: str, _: str) -> str:
    return f"{max(_numbers(now)):g}-px images" if _numbers(now) else ""


def _width(now: str, before: str) -> str:
    if not (_numbers(now) and _numbers(before)):
        return ""
    share = _numbers(now)[0] / _numbers(before)[0]
    return f"{WIDTHS.get(share, f'{share:.3g} × as wide')} backbone"


def _iterations(now: str, before: str) -> str:
    if not (_numbers(now) and _numbers(before)):
        return ""
    few, published = int(_numbers(now)[0]), int(_numbers(before)[0])
    return f"{few:,} of {published:,} iterations" if few < published else f"{few:,} instead of {published:,} iterations"


def _named(name: str) -> Callable[[str, str], str]:
    return lambda now, before: f"{name} {now} instead of {before}" if before else f"{name} {now}"


PHRASES: dict[str, Callable[[str, str], str]] = {
    r"MIN_SIZE_TEST$|data_preprocessor\.size$|^images\.size$": _size,
    r"RES2_OUT_CHANNELS$|backbone\.base_channels$": _width,
    r"MAX_ITER$|train_cfg\.max_iters$": _iterations,
    r"IMS_PER_BATCH$|base_batch_size$": _named("batch"),
    r"BASE_LR$|optimizer\.lr$": _named("learning rate"),
}
"""Ending of a setting's key -> how to say it. None of it is left out of the full list."""
ORDER = ("-px images$", "backbone$", "iterations$", "^batch")
"""What comes first in a line."""

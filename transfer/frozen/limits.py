"""Limits of the numbers in a config of a frozen protocol: an impossible one must not end in a result."""

from __future__ import annotations

import math
import operator


def need(
    config: object,
    *names: str,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    words: str = "",
) -> None:
    """Raise ValueError unless the numbers called ``names`` in ``config`` are finite and within the limits.

    Each number of a tuple counts; None, and a text where one is a choice, are possible.

    Args:
        config: the dataclass ``Images`` or ``Settings``, whose name in small letters is that of its part of a config file.
        names: of its fields.
        least: a number must not be smaller.
        above: a number must be larger.
        most: a number must not be larger.
        below: a number must be smaller.
        words: what is possible besides numbers, as a part of the sentence.
    """
    limits = [
        (text, limit, holds)
        for text, limit, holds in (
            ("of at least", least, operator.ge),
            ("above", above, operator.gt),
            ("of at most", most, operator.le),
            ("below", below, operator.lt),
        )
        if limit is not None
    ]
    for name in names:
        value = getattr(config, name)
        numbers = [some for some in (value if isinstance(value, tuple) else (value,)) if isinstance(some, int | float)]
        # compared with infinity, because the largest integers are no float
        finite = all(-math.inf < number < math.inf for number in numbers)
        if not finite or not all(holds(number, limit) for number in numbers for _, limit, holds in limits):
            kind = "numbers" if isinstance(value, tuple) else "a number"
            range_ = " and ".join(f"{text} {limit:g}" for text, limit, _ in limits)
            raise impossible(config, name, f"{words}{kind} {range_}")


def need_order(config: object, *names: str) -> None:
    """Raise ValueError unless the first of the two numbers called ``names`` is not larger than the second."""
    for name in names:
        low, high = getattr(config, name)
        if low > high:
            raise impossible(config, name, "the smaller number first")


def impossible(config: object, name: str, possible: str) -> ValueError:
    """Return the error for the value called ``name`` in ``config``, with what is ``possible``."""
    value = getattr(config, name)
    shown = list(value) if isinstance(value, tuple) else value
    return ValueError(f"{type(config).__name__.lower()}.{name} {shown} is not possible; give {possible}")

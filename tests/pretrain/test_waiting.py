"""The time that a loop waits for what it iterates over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pretrain.data import waiting
from pretrain.data.waiting import Timed


def test_time_waiting_is_that_of_the_source_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(waiting.time, "monotonic", lambda: now[0])

    def slow() -> Iterator[int]:
        for number in range(3):
            now[0] += 2
            yield number

    timed, seen = Timed(slow()), []
    for number in timed:
        seen.append(number)
        now[0] += 5
    assert (seen, timed.seconds) == ([0, 1, 2], 6)


def test_an_error_of_the_source_passes_through() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        list(Timed(broken()))

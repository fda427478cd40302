"""Check many files in several processes, with a progress bar."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

from pixbench.progress import counting
from transfer.datasets.report import Report

Item = TypeVar("Item")
PIECE = 256
"""Number of items that a process gets at a time. Fewer items than two pieces are checked in this process."""


def check_all(check: Callable[[Sequence[Item]], Report], items: Sequence[Item], title: str) -> Report:
    """Return the merged reports of ``check``, which gets ``items`` in pieces; the order of ``items`` decides what comes first.

    ``check`` must be a function of a module, so that other processes can call it.
    """
    pieces = [items[i : i + PIECE] for i in range(0, len(items), PIECE)]
    whole = Report()
    with counting(len(items), title, "files") as count:
        for piece, found in zip(pieces, _results(check, pieces), strict=True):
            whole.merge(found)
            count(len(piece))
    return whole


def _results(check: Callable[[Any], Report], pieces: list[Any]) -> Any:
    cores = len(os.sched_getaffinity(0))
    if len(pieces) < 2 or cores < 2:
        yield from map(check, pieces)
        return
    with ProcessPoolExecutor(min(cores, len(pieces)), multiprocessing.get_context("fork")) as pool:
        yield from pool.map(check, pieces)

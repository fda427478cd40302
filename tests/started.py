"""Processes that tests start: one that does not end is made to say where it is."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import psutil
import pytest

LIMIT_S = 300
"""On two cores that other tests use too."""


def output(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What ``process`` writes until it ends. After `LIMIT_S` the test fails with that, and with the stacks of all its Pythons.

    The latter come from Python's own fault handler, see `conftest.py`.
    """
    try:
        return process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        family = psutil.Process(process.pid).children(recursive=True)
        for each in [*family, process]:
            with suppress(psutil.Error):
                each.send_signal(signal.SIGABRT)
        psutil.wait_procs(family, timeout=10)
        for each in [*family, process]:
            with suppress(psutil.Error):
                each.kill()
        said = "\n".join(text or "" for text in process.communicate())
        pytest.fail(f"{process.args} had not ended after {LIMIT_S} s. It wrote:\n{said}")


def finished(words: Sequence[Any], **options: Any) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run`, with `output`."""
    process = subprocess.Popen(words, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    said = output(process)
    return subprocess.CompletedProcess(words, process.returncode, *said)

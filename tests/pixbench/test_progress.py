"""What a run notes of its progress for whoever watches it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from pixbench.progress import counting, note_progress, read_progress


def test_progress_is_kept_with_the_best_metrics(tmp_path: Path) -> None:
    assert read_progress(tmp_path) == {}
    note_progress(tmp_path, 5, 20, 2.0)
    note_progress(tmp_path, 6, 20, 2.0)  # too soon
    assert read_progress(tmp_path) == {"done": 5, "total": 20, "left_s": 30.0, "best": {}}
    note_progress(tmp_path, 10, 20, 2.0, mIoU=40.0, AP=float("nan"))
    note_progress(tmp_path, 20, 20, 2.0, mIoU=30.0)
    assert read_progress(tmp_path) == {"done": 20, "total": 20, "left_s": 0.0, "best": {"mIoU": 40.0}}


COUNTED = """
import time
from pixbench import progress
progress.LINE_S = 0.2
with progress.counting(30, "mini world", "scenes") as count:
    for _ in range(30):
        time.sleep(0.05)
        count(1)
"""


def test_without_a_terminal_a_count_is_a_line_now_and_then() -> None:
    done = subprocess.run([sys.executable, "-c", COUNTED], capture_output=True, text=True, timeout=60, check=True)
    assert "\r" not in done.stderr
    lines = done.stderr.splitlines()
    assert 1 <= len(lines) <= 8
    assert all(re.fullmatch(r"mini world: \d+ of 30 scenes, 0:00:0\d left", line) for line in lines), done.stderr


def test_short_work_says_nothing_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with counting(2, "mini world", "scenes") as count:
        count(1)
        count(1)
    assert capsys.readouterr().err == ""


def test_a_terminal_has_a_bar() -> None:
    ours, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    code = COUNTED.replace("0.05", "0.1")
    subprocess.run([sys.executable, "-c", code], stdout=terminal, stderr=terminal, timeout=60, check=True)
    said = os.read(ours, 1 << 16).decode()
    os.close(terminal)
    os.close(ours)
    assert "\rmini world:" in said

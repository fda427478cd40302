"""A folder has one owner; what a dead one left behind is taken over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pretrain import lock
from pretrain.errors import UserError
from pretrain.files import note_progress, read_progress
from pretrain.lock import owned

HOLDER = "import sys, time; from pretrain.lock import owned\nwith owned(sys.argv[1]): print('in', flush=True); time.sleep(60)"


def holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    return process


def test_one_owner_and_a_dead_one_is_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = holder(tmp_path)
    with pytest.raises(UserError, match=f"in use by process {process.pid} on "), owned(tmp_path):
        pass
    os.kill(process.pid, signal.SIGKILL)
    time.sleep(0.2)  # a zombie by now, which owns nothing
    with owned(tmp_path):
        assert f"taken over from process {process.pid} on " in capsys.readouterr().out
    process.wait()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("silent_s", "free"), [(10, False), (lock.STALE_S + 10, True)])
def test_another_machine_owns_it_as_long_as_its_heart_beats(tmp_path: Path, silent_s: float, free: bool) -> None:
    claim = tmp_path / ".owner.abc.json"
    claim.write_text(json.dumps({"host": "node7", "pid": os.getpid(), "machine": "another", "born": "1"}))
    os.utime(claim, (time.time() - silent_s,) * 2)
    if free:
        with owned(tmp_path):
            assert not claim.exists()
    else:
        with pytest.raises(UserError, match="on node7"), owned(tmp_path):
            pass
        assert claim.exists()


def test_who_is_taken_over_ends_at_once_and_saves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.05)
    lost = threading.Event()
    with owned(tmp_path, lost.set):
        next(tmp_path.glob(".owner.*")).unlink()
        assert lost.wait(10)
    code = f"""
from pretrain import lock
from pretrain.interrupt import StopSignal
lock.BEAT_S = 0.05
with lock.owned({str(tmp_path)!r}), StopSignal():
    import time, pathlib
    next(pathlib.Path({str(tmp_path)!r}).glob(".owner.*")).unlink()
    time.sleep(10)
    print("saved")
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True, text=True)
    assert done.returncode == 130
    assert "taken over by another process" in done.stdout
    assert "saved" not in done.stdout


def test_of_many_at_once_at_most_one_gets_in(tmp_path: Path) -> None:
    code = HOLDER.replace("time.sleep(60)", "time.sleep(3)")
    crowd = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.DEVNULL) for _ in range(4)]
    assert sum(process.wait(60) == 0 for process in crowd) <= 1


def test_progress_is_kept_with_the_best_metrics(tmp_path: Path) -> None:
    assert read_progress(tmp_path) == {}
    note_progress(tmp_path, 5, 20, 2.0)
    note_progress(tmp_path, 6, 20, 2.0)  # too soon
    assert read_progress(tmp_path) == {"done": 5, "total": 20, "left_s": 30.0, "best": {}}
    note_progress(tmp_path, 10, 20, 2.0, mIoU=40.0, AP=float("nan"))
    note_progress(tmp_path, 20, 20, 2.0, mIoU=30.0)
    assert read_progress(tmp_path) == {"done": 20, "total": 20, "left_s": 0.0, "best": {"mIoU": 40.0}}

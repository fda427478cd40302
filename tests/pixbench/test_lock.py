"""A folder has one owner; what a dead one left behind is taken over."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pixbench import lock
from pixbench.errors import UserError
from pixbench.lock import owned

pytestmark = pytest.mark.slow

HOLDER = "import sys, time; from pixbench.lock import owned\nwith owned(sys.argv[1]): print('in', flush=True); time.sleep(60)"


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
from pixbench import lock
from pixbench.interrupt import StopSignal
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


@pytest.mark.parametrize("damaged", [b"", b"\0" * 150, b"[]", b"{}"])
@pytest.mark.parametrize("old", [False, True])
def test_a_damaged_claim_counts_until_it_is_stale(tmp_path: Path, damaged: bytes, old: bool) -> None:
    claim = tmp_path / ".owner.abc.json"
    claim.write_bytes(damaged)
    if old:
        os.utime(claim, (time.time() - lock.STALE_S - 10,) * 2)
        with owned(tmp_path):
            assert not claim.exists()
    else:
        with (
            pytest.raises(UserError, match="in use by the unknown process that wrote"),
            owned(tmp_path),
        ):
            pass


def test_a_hidden_process_of_another_user_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with owned(tmp_path):
        monkeypatch.setattr(lock, "_born", lambda pid: "hidden")
        with pytest.raises(UserError, match="in use by process"), owned(tmp_path):
            pass


def test_a_file_system_that_is_away_for_a_while_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.01)
    beats = threading.Semaphore(0)

    def away(path: Path) -> None:
        beats.release()
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(os, "utime", away)
    lost = threading.Event()
    with owned(tmp_path, lost.set):
        assert all(beats.acquire(timeout=10) for _ in range(3))
    assert not lost.is_set()


def test_the_error_of_the_block_is_not_hidden_by_a_folder_that_is_gone(tmp_path: Path) -> None:
    def block(folder: Path) -> None:
        with owned(folder):
            shutil.rmtree(folder)
            folder.write_text("a file now")
            raise ValueError("the real error")

    with pytest.raises(ValueError, match="the real error"):
        block(tmp_path / "run")


def test_of_many_at_once_at_most_one_gets_in(tmp_path: Path) -> None:
    code = HOLDER.replace("time.sleep(60)", "time.sleep(3)")
    crowd = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.DEVNULL) for _ in range(4)]
    assert sum(process.wait(60) == 0 for process in crowd) <= 1

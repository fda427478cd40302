"""A folder has one owner; what a dead one left behind is taken over."""

from __future__ import annotations

import os
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


@pytest.mark.parametrize("beats", [True, False])
def test_another_machine_owns_it_as_long_as_its_heart_beats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beats: bool
) -> None:
    monkeypatch.setattr(lock, "LEASE_S", 1.0)
    monkeypatch.setattr(lock, "BEAT_S", 0.2)
    claim, done = tmp_path / lock.OWNER, threading.Event()
    claim.write_text(f"filelock/2\npid={os.getpid()}\nhost=node7\nmode=lease\ntoken=abc\nduration=1.0\nstart=1\n")

    def beat() -> None:
        while not done.wait(0.1):
            os.utime(claim)

    heart = threading.Thread(target=beat)
    if beats:
        heart.start()
        with pytest.raises(UserError, match="on node7"), owned(tmp_path):
            pass
        done.set()
        heart.join()
        assert "host=node7" in claim.read_text()
    else:
        with owned(tmp_path):
            assert "host=node7" not in claim.read_text()


TAKE = "claim.unlink(); claim.write_text('another')"  # what a process on another machine does


def test_who_is_taken_over_ends_at_once_and_saves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.05)
    lost, claim = threading.Event(), tmp_path / lock.OWNER
    with owned(tmp_path, lost.set):
        exec(TAKE)
        assert lost.wait(10)
    assert claim.read_text() == "another"  # is not ours to remove
    claim.unlink()
    code = f"""
import time, pathlib
from pixbench import lock
from pixbench.interrupt import StopSignal
lock.BEAT_S = 0.05
claim = pathlib.Path({str(claim)!r})
with lock.owned(claim.parent), StopSignal():
    {TAKE}
    time.sleep(10)
    print("saved")
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True, text=True)
    assert done.returncode == 130
    assert "taken over by another process" in done.stdout
    assert "saved" not in done.stdout


def test_of_many_at_once_one_gets_in(tmp_path: Path) -> None:
    code = HOLDER.replace("time.sleep(60)", "time.sleep(3)")
    crowd = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.DEVNULL) for _ in range(4)]
    assert sum(process.wait(60) == 0 for process in crowd) == 1

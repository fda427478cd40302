"""A terminal that closes, or a reader that stops, never ends a run of days."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from pixbench.file_versions import CHECKPOINT_FILE
from pretrain import checkpoint

pytestmark = pytest.mark.slow

REPO = Path(__file__).parents[2]
CONFIGS = [f"--config={REPO / 'configs/pretrain' / name}" for name in ("pixpro_100ep.yaml", "mini.yaml")]
TINY = ("--backbone.width=0.0625", "--data.image_size=32", "--method.hidden=16", "--method.dim=8", "--batch_size=8")


def words(root: Path, out: Path, *more: str) -> list[str]:
    quick = ("--log_every=1", "--data.cache=true", "--data.workers=0", "--checkpoint_every=1000", "--log.knn_every=1")
    places = (f"--data.root={root}", f"--out={out}")
    return [sys.executable, "-m", "pretrain", *CONFIGS, *TINY, *quick, *places, *more]


def steps(out: Path) -> int:
    path = out / "log.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_the_terminal_closes(image_tree: Callable[..., Path], tmp_path: Path) -> None:
    """It is the controlling terminal, so the run also gets SIGHUP."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def drain() -> None:
        with suppress(OSError):
            while os.read(ours, 4096):
                pass

    out = tmp_path / "run"
    process = subprocess.Popen(
        words(image_tree(2, 16), out, "--epochs=4000"),
        cwd=REPO,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        preexec_fn=take_terminal,
    )
    os.close(theirs)
    threading.Thread(target=drain, daemon=True).start()
    while steps(out) < 6:
        assert process.poll() is None
        time.sleep(0.05)
    os.close(ours)
    assert process.wait(timeout=60) == 130
    assert checkpoint.load(out / CHECKPOINT_FILE)["step"] >= 6
    assert not (out / "result.json").exists()


@pytest.mark.e2e
def test_the_reader_of_the_output_stops(image_tree: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(words(image_tree(2, 16), out, "--epochs=3"), cwd=REPO, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=120) == 0
    assert json.loads((out / "result.json").read_text())["status"] == "ok"


def test_a_request_to_save_before_anything_is_there_is_no_end(image_tree: Callable[..., Path], tmp_path: Path) -> None:
    """SIGUSR1 while PyTorch is still being imported."""
    script = (
        "import os, signal\nfrom pixbench.errors import run_command\n"
        "run_command(lambda: os.kill(os.getpid(), signal.SIGUSR1) or print('alive'), name='x')"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout == "alive\n"

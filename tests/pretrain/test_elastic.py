"""`torchrun` starts a run again after one of its processes was killed; nothing is lost and nothing is left."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from started import finished, output

from pixbench.file_versions import CHECKPOINT_FILE
from pretrain import checkpoint, earlier

pytestmark = pytest.mark.slow

REPO = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
SMALL = (
    *(
        "--config",
        str(REPO / "configs/pretrain/pixpro_100ep.yaml"),
        "--config",
        str(REPO / "configs/pretrain/mini.yaml"),
    ),
    *("--backbone.width", "0.0625", "--data.image_size", "32", "--method.hidden", "16", "--method.dim", "8"),
    *("--batch_size", "8", "--log_every", "1", "--epochs", "6", "--data.cache", "false", "--data.workers", "1"),
)


def start(root: Path, out: Path, *options: str, every: int = 4) -> subprocess.Popen[str]:
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *options)
    often = ("--checkpoint_every", "100", "--checkpoint_every_steps", str(every))
    words = (*torchrun, "-m", "pretrain", *SMALL, *often, "--data.root", str(root), "--out", str(out))
    return subprocess.Popen(
        words, cwd=REPO, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def steps(out: Path) -> list[int]:
    path = out / "log.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [int(line.partition('"step": ')[2].partition(",")[0]) for line in lines]


def rank_of(process: psutil.Process) -> str:
    try:
        return process.environ().get("RANK", "")
    except psutil.Error:
        return ""


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run that nothing happened to, beside its images."""
    folder = tmp_path_factory.mktemp("elastic")
    rng = np.random.default_rng(0)
    for number in range(24):
        path = folder / "images" / "train" / f"n{number % 2:08}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 36, 3), dtype=np.uint8)).save(path)
    process = start(folder / "images", folder / "straight")
    said = output(process)[0]
    assert process.returncode == 0, said
    return folder / "straight"


def wait_for_step(step: int, out: Path, process: subprocess.Popen[str]) -> None:
    while not steps(out) or steps(out)[-1] < step:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def assert_same_weights(straight: Path, out: Path) -> None:
    assert steps(out) == list(range(1, 19))
    contents = [checkpoint.load(folder / CHECKPOINT_FILE, verify=True) for folder in (straight, out)]
    for part in ("model", "optimizer", "step", "finished"):
        assert_equal(contents[0][part], contents[1][part])
    assert not list(out.rglob(".*"))  # neither claims of an owner nor parts of files


@pytest.mark.parametrize("killed", ["0", pytest.param("1", marks=pytest.mark.e2e)])
@pytest.mark.e2e
def test_a_run_whose_process_is_killed_goes_on_by_itself(killed: str, straight: Path, tmp_path: Path) -> None:
    """The process of rank 0 holds the folder of the run."""
    out = tmp_path / "run"
    process = start(straight.parent / "images", out, "--max-restarts=1")
    wait_for_step(6, out, process)
    agent = psutil.Process(process.pid)
    family = agent.children(recursive=True)  # data workers too
    next(child for child in agent.children() if rank_of(child) == killed).send_signal(signal.SIGKILL)
    said = output(process)[0]
    assert process.returncode == 0, said
    assert re.search(r"going on after step (4|8|12|16) of 18", said), said
    assert "defect" not in said
    assert_same_weights(straight, out)
    _gone, alive = psutil.wait_procs(family, timeout=20)
    assert not alive


@pytest.mark.e2e
def test_two_processes_save_at_the_same_step_and_pass_over_a_damaged_checkpoint(straight: Path, tmp_path: Path) -> None:
    """SIGUSR1 to one process; and all processes must go on from the same checkpoint."""
    out = tmp_path / "run"
    process = start(straight.parent / "images", out, every=100)
    wait_for_step(1, out, process)
    children = {rank_of(child): child for child in psutil.Process(process.pid).children()}
    children["1"].send_signal(signal.SIGUSR1)  # it is rank 0 that writes
    while not (out / CHECKPOINT_FILE).exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    first = checkpoint.load(out / CHECKPOINT_FILE, verify=True)["step"]
    wait_for_step(first + 2, out, process)
    process.send_signal(signal.SIGINT)
    said = output(process)[0]
    assert "interrupted" in said
    newest = out / CHECKPOINT_FILE
    newest.write_bytes(newest.read_bytes()[:-1000])
    assert earlier.earlier(out) == [out / "earlier" / earlier.name_of(first)]
    process = start(straight.parent / "images", out)
    said = output(process)[0]
    assert process.returncode == 0, said
    assert f"{newest} is damaged (" in said
    assert f"going on after step {first} of 18" in said
    assert_same_weights(straight, out)


STALE = """
import os, runpy
from pretrain import checkpoint
real = checkpoint.load
def load(path, **options):  # what the file system shows one machine
    return real(os.environ["STALE"] if os.environ["RANK"] == "1" else path, **options)
checkpoint.load = load
runpy.run_module("pretrain", run_name="__main__")
"""


@pytest.mark.e2e
def test_a_process_that_reads_an_older_checkpoint_stops_all(straight: Path, tmp_path: Path) -> None:
    older = max((straight / "earlier").glob("*.pth"))
    (tmp_path / "stale.py").write_text(STALE)
    before = (straight / CHECKPOINT_FILE).read_bytes()
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", tmp_path / "stale.py"]
    often = ("--checkpoint_every", "100", "--checkpoint_every_steps", "4")
    words += [*SMALL, *often, "--epochs", "7", "--data.root", straight.parent / "images", "--out", straight]
    environment = {**ENVIRONMENT, "STALE": str(older), "PYTHONPATH": str(REPO), "TMPDIR": str(tmp_path)}
    done = finished(words, cwd=REPO, env=environment)
    assert done.returncode != 0
    step = checkpoint.load(older)["step"]
    sentence = (
        f"the processes do not agree on this run: step is 18 in process 0 and {step} in process 1; give all machines"
    )
    assert done.stderr.count(sentence) == 2, done.stderr
    assert (straight / CHECKPOINT_FILE).read_bytes() == before


def assert_equal(left: Any, right: Any) -> None:
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_equal(left[key], right[key])
    elif isinstance(left, torch.Tensor):
        assert torch.equal(left, right)
    else:
        assert left == right

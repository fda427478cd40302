"""`torchrun` starts a run again after one of its processes was killed; nothing is lost and nothing is left."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from pixbench.file_versions import CHECKPOINT_FILE
from pretrain import checkpoint

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
    *("--checkpoint_every", "100", "--checkpoint_every_steps", "4"),
)


def start(root: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *options)
    words = (*torchrun, "-m", "pretrain", *SMALL, "--data.root", str(root), "--out", str(out))
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


@pytest.mark.parametrize("killed", ["0", pytest.param("1", marks=pytest.mark.e2e)])
def test_a_run_whose_process_is_killed_goes_on_by_itself(
    killed: str, image_tree: Callable[..., Path], tmp_path: Path
) -> None:
    root = image_tree(2, 12)
    straight = start(root, tmp_path / "straight")
    said = straight.communicate(timeout=120)[0]
    assert straight.returncode == 0, said

    out = tmp_path / "broken"
    broken = start(root, out, "--max-restarts=1")
    agent = psutil.Process(broken.pid)
    while not steps(out) or steps(out)[-1] < 6:
        assert broken.poll() is None, broken.communicate()[0]
        time.sleep(0.02)
    family = agent.children(recursive=True)  # data workers too
    victim = next(process for process in agent.children() if rank_of(process) == killed)
    victim.send_signal(signal.SIGKILL)
    said = broken.communicate(timeout=120)[0]
    assert broken.returncode == 0, said
    assert re.search(r"going on after step (4|8|12|16) of 18", said), said
    assert "defect" not in said

    assert steps(out) == list(range(1, 19))
    contents = [checkpoint.load(tmp_path / run / CHECKPOINT_FILE) for run in ("straight", "broken")]
    for part in ("model", "optimizer", "step", "finished"):
        assert_equal(contents[0][part], contents[1][part])
    assert not list(out.rglob(".*"))  # neither claims of an owner nor parts of files
    _gone, alive = psutil.wait_procs(family, timeout=20)
    assert not alive


def assert_equal(left: Any, right: Any) -> None:
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_equal(left[key], right[key])
    elif isinstance(left, torch.Tensor):
        assert torch.equal(left, right)
    else:
        assert left == right

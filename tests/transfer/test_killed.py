"""A fine-tuning run that is killed, again and again, still ends with all its iterations."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from started import output

from pixbench.progress import read_progress

pytestmark = pytest.mark.slow

REPO = Path(__file__).parents[2]
ITERATIONS = 40
DETECTRON2 = {
    **{"SOLVER.MAX_ITER": ITERATIONS, "SOLVER.STEPS": [30], "SOLVER.WARMUP_ITERS": 1, "SOLVER.CHECKPOINT_PERIOD": 5},
    **{"TEST.PRECISE_BN.NUM_ITER": 1, "INPUT.MIN_SIZE_TRAIN": [64], "INPUT.MIN_SIZE_TEST": 64},
}
MMSEG = {
    **{"train_cfg.max_iters": ITERATIONS, "train_cfg.val_interval": ITERATIONS, "param_scheduler.0.milestones": [30]},
    "default_hooks.checkpoint.interval": 5,
}


def starter(
    protocol: str, settings: dict[str, object], mini_root: Path, out: Path
) -> Callable[[], subprocess.Popen[str]]:
    places = ("--data-root", str(mini_root), "--out", str(out), "--init", "random", "--scale", "mini")
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    command = [sys.executable, "-m", "benchmarks.commands", "transfer", protocol, *places, *words]

    def start() -> subprocess.Popen[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            command,
            cwd=REPO,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    return start


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("protocol", "settings", "pattern"),
    [("coco_fpn_1x", DETECTRON2, "model_*.pth"), ("cityscapes_fcn16s", MMSEG, "iter_*.pth")],
)
def test_killed_runs_go_on(
    protocol: str, settings: dict[str, object], pattern: str, mini_root: Path, tmp_path: Path
) -> None:
    """Killed before the first checkpoint, in the middle and while it writes one."""
    out = tmp_path / "run"
    start = starter(protocol, settings, mini_root, out)
    moments = (
        lambda: (out / "job.json").exists(),
        lambda: len(list(out.glob(pattern))) >= 1,
        lambda: list(out.glob(".*.part.pth")),
    )
    for moment in moments:
        process, end = start(), time.monotonic() + 240
        while not moment():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < end
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    last = start()
    said = output(last)[0]
    assert last.returncode == 0, said
    assert "going on from iteration" in said or "trained before" in said  # if it was the last checkpoint it was writing
    result = json.loads((out / "result.json").read_text())
    assert (result["status"], result["iterations"], result["resumed"]) == ("ok", ITERATIONS, True)
    assert read_progress(out)["done"] == ITERATIONS
    assert not list(out.glob(".owner*"))


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("protocol", "settings", "period", "workers"),
    [
        ("coco_fpn_1x", DETECTRON2, "SOLVER.CHECKPOINT_PERIOD", "DATALOADER.NUM_WORKERS"),
        ("cityscapes_fcn16s", MMSEG, "default_hooks.checkpoint.interval", "train_dataloader.num_workers"),
    ],
)
def test_an_interrupted_run_saves_first(
    protocol: str,
    settings: dict[str, object],
    period: str,
    workers: str,
    number: signal.Signals,
    mini_root: Path,
    tmp_path: Path,
) -> None:
    """Asked to stop, as all its data workers are, long before the first periodic checkpoint, it loses no iteration."""
    out = tmp_path / "run"
    start = starter(protocol, {**settings, period: 10 * ITERATIONS, workers: 2}, mini_root, out)
    process, end = start(), time.monotonic() + 240
    while not 0 < read_progress(out).get("done", 0) < ITERATIONS:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.01)
    os.killpg(process.pid, number)
    said = output(process)[0]
    assert process.returncode == 130, said
    done = re.search(r"stopped and saved after iteration (\d+)", said)
    assert done, said
    assert not (out / "result.json").exists()
    said = output(start())[0]
    assert f"going on from iteration {done[1]} of {ITERATIONS}" in said
    assert json.loads((out / "result.json").read_text())["status"] == "ok"

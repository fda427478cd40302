"""One of two processes fails: the reason is printed and recorded at once, and no process is left.

Leaving a group of NCCL waits for the other processes, for up to the time limit of the group. Gloo does not wait, so here a
long sleep stands for it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.frameworks, pytest.mark.slow]

REPO = Path(__file__).parents[1]
LIMIT_S = 30

PROCESS = """
import os, resource, sys, time
import torch, torch.distributed as dist
from pixbench.errors import UserError, run_command

rank = int(os.environ["RANK"])
leave = dist.destroy_process_group
dist.destroy_process_group = lambda group=None: time.sleep(600) if group is None else leave(group)


def fails_in(rank_of_failure, owner, name, after, error):
    if rank != rank_of_failure:
        return
    real, calls = getattr(owner, name), []
    def failing(*args, **more):
        calls.append(1)
        if len(calls) > after:
            error()
        return real(*args, **more)
    setattr(owner, name, failing)


def out_of_memory():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def full_disk():  # no file may grow beyond a page
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


def broken():
    raise RuntimeError("the evaluator broke")


what, command = sys.argv[1], sys.argv[2:]
if command[0] == "pretrain":
    from pretrain import engine, saver
    if what == "memory":
        fails_in(1, engine, "train_step", 2, out_of_memory)
    if what == "memory at the start":
        from pretrain import run
        fails_in(1, run, "build_optimizer", 0, out_of_memory)
    if what == "disk":
        fails_in(0, saver.earlier, "save", 0, full_disk)
else:
    if what == "not finite":
        from transfer.segmentation import hooks
        fails_in(1, hooks, "_loss", 1, lambda: setattr(hooks, "_loss", lambda outputs: float("nan")))
    if what == "evaluation":
        from transfer.detection import trainer
        fails_in(0, trainer, "evaluator", 0, broken)
    if what == "memory":
        from transfer.detection import trainer
        fails_in(1, trainer.Accumulator, "run_step", 1, out_of_memory)
from benchmarks.commands.main import main
sys.argv = ["pixbench", *command]
sys.exit(main())
"""


def pretraining(root: Path, out: Path) -> list[str]:
    configs = [REPO / "configs/pretrain" / name for name in ("pixpro_100ep.yaml", "mini.yaml")]
    small = (
        "--backbone.width=0.0625",
        "--data.image_size=32",
        "--method.hidden=16",
        "--method.dim=8",
        "--batch_size=4",
    )
    words = [*(f"--config={path}" for path in configs), *small, "--data.workers=1", "--data.cache=false", "--epochs=3"]
    return ["pretrain", *words, f"--data.root={root / 'imagenet'}", f"--out={out}"]


def detection(root: Path, out: Path) -> list[str]:
    quick = {"SOLVER.MAX_ITER": 4, "SOLVER.IMS_PER_BATCH": 2, "TEST.PRECISE_BN.NUM_ITER": 1, "SOLVER.STEPS": [3]}
    return transfer("voc_c4", quick, root, out)


def segmentation(root: Path, out: Path) -> list[str]:
    quick = {"train_cfg.max_iters": 4, "train_cfg.val_interval": 4, "auto_scale_lr.base_batch_size": 2}
    return transfer("cityscapes_fcn16s", quick, root, out)


def transfer(protocol: str, settings: dict[str, object], root: Path, out: Path) -> list[str]:
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    return ["transfer", protocol, "--init=random", "--scale=mini", f"--data-root={root}", f"--out={out}", *words]


CASES = {
    "memory, pretraining": (pretraining, "the GPU has too little memory for this run"),
    "memory at the start, pretraining": (pretraining, "the GPU has too little memory for this run"),
    "disk, pretraining": (pretraining, "checkpoint "),
    "memory, detection": (detection, "the GPU has too little memory for this run"),
    "evaluation, detection": (detection, "detectron2 stopped (RuntimeError: the evaluator broke)"),
    "not finite, segmentation": (segmentation, "the loss became nan at iteration 3 of 4"),
}
DEFAULT = {"memory, pretraining", "evaluation, detection"}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in DEFAULT else pytest.mark.e2e) for case in CASES]
)
@pytest.mark.e2e
def test_the_reason_is_printed_and_recorded_at_once(case: str, mini_root: Path, tmp_path: Path) -> None:
    words, reason = CASES[case]
    script, out = tmp_path / "process.py", tmp_path / "run"
    script.write_text(PROCESS)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(REPO),
        "TMPDIR": str(tmp_path),
    }
    log = tmp_path / "log"
    command = [*torchrun, str(script), case.partition(",")[0], *words(mini_root, out)]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=subprocess.STDOUT, cwd=tmp_path)
    family: set[psutil.Process] = set()
    printed = 0.0
    while process.poll() is None:
        with_children = psutil.Process(process.pid)
        family |= {with_children, *with_children.children(recursive=True)}
        printed = printed or (time.monotonic() if f"error: {reason}" in log.read_text() else 0.0)
        assert not printed or time.monotonic() - printed < LIMIT_S, log.read_text()
        time.sleep(0.1)
    said = log.read_text()
    assert process.returncode != 0
    assert f"error: {reason}" in said
    result = json.loads((out / "result.json").read_text())
    assert result["status"] == "failed"
    assert reason in result["reason"], result["reason"]
    _gone, alive = psutil.wait_procs(family, timeout=10)
    assert not alive

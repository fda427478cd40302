"""Whatever is wrong with a data set, it is refused before a run, or read the same by training and by evaluation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from judge import copy_world, judge
from mutations import KINDS, Mutation, every_mutation, spread

from transfer.protocols import find_protocol

pytestmark = pytest.mark.frameworks
ALL = every_mutation()
DETECTION = {
    **{"INPUT.MIN_SIZE_TRAIN": [64], "INPUT.MIN_SIZE_TEST": 64, "SOLVER.IMS_PER_BATCH": 2, "SOLVER.BASE_LR": 0.0025},
    **{"SOLVER.MAX_ITER": 8, "SOLVER.STEPS": [1], "SOLVER.WARMUP_ITERS": 1, "SOLVER.CHECKPOINT_PERIOD": 2},
    **{"TEST.PRECISE_BN.NUM_ITER": 1, "DATALOADER.NUM_WORKERS": 0, "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0},
}
SEGMENTATION = {
    **{"train_cfg.max_iters": 2, "train_cfg.val_interval": 2, "auto_scale_lr.base_batch_size": 2},
    **{"default_hooks.checkpoint.interval": 1, "param_scheduler.0.milestones": [1]},
}
SETTINGS = {"detectron2": DETECTION, "mmseg": SEGMENTATION}


def test_the_mutations_are_many_and_different() -> None:
    assert len({mutation.id for mutation in ALL}) == len(ALL) > 2000
    assert {mutation.kind for mutation in ALL} == set(KINDS)


@pytest.mark.parametrize("mutation", spread(ALL, 60), ids=lambda mutation: mutation.id)
def test_some_mutations(mutation: Mutation, mini_root: Path, tmp_path: Path) -> None:
    judge(mutation, mini_root, tmp_path)


@pytest.mark.e2e
@pytest.mark.parametrize("mutation", ALL, ids=lambda mutation: mutation.id)
def test_every_mutation(mutation: Mutation, mini_root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path_factory.getbasetemp()) as folder:  # pytest would keep all of them
        judge(mutation, mini_root, Path(folder))


@pytest.mark.e2e
@pytest.mark.parametrize("mutation", ALL[7::40], ids=lambda mutation: mutation.id)
def test_mutations_through_the_command(mutation: Mutation, mini_root: Path, tmp_path: Path) -> None:
    kind = KINDS[mutation.kind]
    root = copy_world(mini_root, kind, tmp_path / "data")
    if mutation.kind == "voc":
        copy_world(mini_root, KINDS["voc_masks"], root)
    mutation.apply(root)
    settings = SETTINGS[find_protocol(kind.protocol).framework]
    command = [
        *(
            sys.executable,
            "-m",
            "benchmarks.commands",
            "transfer",
            kind.protocol,
            "--init",
            "random",
            "--scale",
            "mini",
        ),
        *("--data-root", str(root), "--out", str(tmp_path / "run")),
        *(word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")),
    ]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=400)
    assert done.returncode in (0, 2), done.stdout + done.stderr
    assert done.returncode == {"same": 0, "refused": 2}.get(mutation.expect, done.returncode), done.stdout + done.stderr
    if done.returncode == 2:
        assert "iteration" not in done.stdout
        assert not list(tmp_path.glob("run/*.pth"))
    else:
        result = json.loads((tmp_path / "run/result.json").read_text(encoding="utf-8"))
        assert result["status"] == "ok"
        assert all(value == value for value in result["metrics"].values()), result["metrics"]

"""Other batches than the published ones: what moves with them, for both frameworks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pixbench.errors import UserError
from transfer.batch_scaling import KEYS, divided, scaled, sentences
from transfer.job import TransferJob
from transfer.protocols import find_protocol, leaves, protocols
from transfer.published_config import published_config
from transfer.run import apply_batch

D2 = {"SOLVER.IMS_PER_BATCH": 16, "SOLVER.BASE_LR": 0.02, "SOLVER.MAX_ITER": 90000, "SOLVER.STEPS": [60000, 80000]}
D2 |= {"SOLVER.WARMUP_ITERS": 1000, "TEST.EVAL_PERIOD": 0, "MODEL.MASK_ON": True}


def test_detectron2_at_a_quarter_of_the_batch() -> None:
    assert scaled("detectron2", D2, 4, {}) == {
        "SOLVER.IMS_PER_BATCH": 4,
        "SOLVER.BASE_LR": 0.005,
        "SOLVER.MAX_ITER": 360000,
        "SOLVER.STEPS": [240000, 320000],
        "SOLVER.WARMUP_ITERS": 4000,
    }
    assert scaled("detectron2", D2, 16, {}) == {}


def test_mmseg_at_twice_the_batch() -> None:
    config = {
        "auto_scale_lr": {"base_batch_size": 16},
        "optim_wrapper": {"optimizer": {"lr": 0.01, "momentum": 0.9}},
        "train_cfg": {"max_iters": 90000, "val_interval": 9000},
        "param_scheduler": [{"type": "LinearLR", "begin": 0, "end": 1500}, {"milestones": [63000, 81000]}],
    }
    assert scaled("mmseg", dict(leaves(config)), 32, {}) == {
        "auto_scale_lr.base_batch_size": 32,
        "optim_wrapper.optimizer.lr": 0.02,
        "train_cfg.max_iters": 45000,
        "train_cfg.val_interval": 4500,
        "param_scheduler.0.end": 750,
        "param_scheduler.1.milestones": [31500, 40500],
    }


@pytest.mark.parametrize(("batch", "message"), [(0, "choose 1 or more"), (4, "are both given; leave out one")])
def test_what_cannot_be_is_said(batch: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        scaled("detectron2", D2, batch, {"SOLVER.IMS_PER_BATCH": 8} if batch else {})


def test_what_the_user_sets_is_left_alone() -> None:
    assert "SOLVER.BASE_LR" not in scaled("detectron2", D2, 4, {"SOLVER.BASE_LR": 0.01})


def test_sentences() -> None:
    found = scaled("detectron2", D2, 4, {})
    (line,) = sentences("detectron2", D2, found, 1)
    assert line.startswith("batch 4 instead of 16 by the linear rule: learning rate × 1/4, iterations, milestones")
    (line,) = sentences("detectron2", D2, {}, 8)
    assert line == "batch of 16 in 8 parts, gradients accumulated: BatchNorm sees 2 images"
    assert sentences("detectron2", D2, {}, 1) == []


def test_a_batch_is_shared_evenly_or_not_at_all() -> None:
    assert divided(16, 4, 2) == 2
    with pytest.raises(UserError, match="16 images cannot be split evenly into 3 parts on 2 GPUs"):
        divided(16, 3, 2)


TRAINED = [protocol for protocol in protocols().values() if protocol.framework != "frozen"]


@pytest.mark.frameworks
@pytest.mark.parametrize("protocol", TRAINED, ids=lambda protocol: protocol.name)
def test_every_protocol_scales_and_sees_as_many_images(protocol: Any, capsys: pytest.CaptureFixture[str]) -> None:
    published = published_config(protocol)
    flat, batch = dict(leaves(published)), KEYS[protocol.framework]["batch"]
    job, said = apply_batch(TransferJob(protocol, Path("data"), Path("run"), batch=flat[batch] // 2), published)
    iterations = {"detectron2": "SOLVER.MAX_ITER", "mmseg": "train_cfg.max_iters"}[protocol.framework]
    assert job.scaling[batch] * job.scaling[iterations] == flat[batch] * flat[iterations]
    assert len(said) == 1
    printed = capsys.readouterr().out
    assert said[0] in printed
    assert f"{iterations} {job.scaling[iterations]} instead of {flat[iterations]}" in printed


@pytest.mark.frameworks
def test_at_mini_scale_the_mini_batch_is_the_measure() -> None:
    protocol = find_protocol("voc_c4")
    job = TransferJob(protocol, Path("data"), Path("run"), scale="mini", batch=2)
    job, said = apply_batch(job, published_config(protocol))
    assert job.all_overrides["SOLVER.MAX_ITER"] == 2 * protocol.mini["SOLVER.MAX_ITER"]
    assert said[0].startswith("batch 2 instead of 4")

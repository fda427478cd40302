"""Deformable convolutions in the FCN protocols: they start as the backbone's plain ones, and their offsets learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pixbench.errors import UserError
from pretrain.models.backbone_spec import BackboneSpec
from transfer.initial_weights import random_backbone
from transfer.job import TransferJob
from transfer.protocols import find_protocol
from transfer.segmentation.config import resolve
from transfer.segmentation.run import build_runner, chatter_into, close_log

pytestmark = pytest.mark.frameworks
QUARTER = BackboneSpec(50, 0.25)
SHORT = {"train_cfg.max_iters": 2, "train_cfg.val_interval": 2, "auto_scale_lr.base_batch_size": 2}


@pytest.mark.parametrize("kind", ["DCN", pytest.param("DCNv2", marks=pytest.mark.e2e)])
@pytest.mark.e2e
def test_converted_weights_arrive_and_only_offsets_are_initialised(mini_root: Path, tmp_path: Path, kind: str) -> None:
    from mmengine.hooks import Hook

    from transfer.weights.models.load_into import unequal

    backbone = random_backbone(QUARTER, seed=7)
    for name, tensor in backbone.state.items():
        if name.endswith(("running_mean", "bn3.weight")):
            tensor.uniform_(0.1, 0.2)
    protocol = find_protocol("cityscapes_fcn_d8_40k_dcn")
    overrides = {**SHORT, "model.backbone.dcn.type": kind}
    job = TransferJob(protocol, mini_root, tmp_path / "run", scale="mini", overrides=overrides)
    plain = resolve(TransferJob(find_protocol("cityscapes_fcn_d8_40k"), mini_root, tmp_path, scale="mini"), QUARTER)
    seen: list[Any] = []

    class Look(Hook):
        priority = "VERY_LOW"

        def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
            if runner.iter == 0:
                seen.append(unequal(runner.model, backbone, "mmseg"))
                seen.append(maps(runner.model.backbone))
            offsets = {name: t for name, t in runner.model.state_dict().items() if "conv_offset" in name}
            seen.append({name: tensor.clone() for name, tensor in offsets.items()})

    with chatter_into(job.out) as console:
        runner, _ = build_runner(job, resolve(job, QUARTER), backbone, console)
        runner.register_hook(Look())
        runner.train()
        close_log(runner)
    different, found, first, second = seen
    assert different == []
    assert len(first) == 2 * (4 + 6 + 3)  # weight and bias in each block of C3 to C5
    assert all(tensor.eq(0).all() for tensor in first.values())
    assert any(tensor.ne(0).any() for tensor in second.values())
    if kind == "DCN":  # DCNv2 also multiplies by a modulation that starts at a half
        for mine, theirs in zip(found, maps(network(plain, backbone)), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def network(config: Any, backbone: Any) -> Any:
    from mmengine.model import revert_sync_batchnorm
    from mmseg.registry import MODELS

    from transfer.weights import load_into

    model: Any = revert_sync_batchnorm(MODELS.build(config.model))
    load_into(model, backbone, "mmseg")
    return model.backbone


def maps(module: Any) -> list[torch.Tensor]:
    """What the four stages give for one picture in evaluation mode."""
    module.eval()
    with torch.no_grad():
        found = module(torch.randn(1, 3, 65, 65, generator=torch.Generator().manual_seed(0)))
    module.train()
    return list(found)


def test_basic_blocks_are_refused(tmp_path: Path) -> None:
    job = TransferJob(find_protocol("voc12aug_fcn_d8_20k_dcn"), tmp_path, tmp_path, scale="mini")
    with pytest.raises(UserError, match=r"ResNet-18.*, but .* deformable convolutions, .* in bottlenecks only"):
        resolve(job, BackboneSpec(18, 0.5))

"""The linear heads of DINOv2 and DINOv3 on a frozen backbone: head, schedules, stride, and short runs in MMSegmentation."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pixbench.errors import UserError
from pretrain.models.backbone_spec import BackboneSpec
from transfer.frozen.network import FrozenNetwork
from transfer.initial_weights import random_backbone
from transfer.job import TransferJob
from transfer.protocols import find_protocol
from transfer.run import run_transfer
from transfer.segmentation.config import resolve, stride_of
from transfer.segmentation.run import build_runner, chatter_into, close_log, newest_checkpoint, run
from transfer.weights.vit_spec import VitSpec

pytestmark = pytest.mark.frameworks
DINOV2, DINOV3 = find_protocol("cityscapes_linear_dinov2"), find_protocol("cityscapes_linear_dinov3")
ROOMS = find_protocol("ade20k_linear_dinov3")
QUARTER = BackboneSpec(50, 0.25, output_stride=16)
SHORT = {
    "train_cfg.max_iters": 4,
    "train_cfg.val_interval": 4,
    "auto_scale_lr.base_batch_size": 2,
    "default_hooks.checkpoint.interval": 2,
}


def job_of(root: Path, out: Path, protocol: Any = DINOV3, **changes: Any) -> TransferJob:
    return TransferJob(protocol, root, out, scale="mini", overrides=SHORT, **changes)


@pytest.fixture
def job(tmp_path: Path) -> TransferJob:
    return job_of(tmp_path / "data", tmp_path / "run")


def head(dropout_first: bool, dropout: float) -> Any:
    from mmseg.registry import MODELS

    from transfer.segmentation import linear_head  # noqa: F401

    options = {"in_channels": 6, "channels": 6, "in_index": 1, "num_classes": 4, "norm_cfg": {"type": "BN"}}
    made = MODELS.build(
        {"type": "LinearHead", "dropout_first": dropout_first, "dropout_ratio": dropout, **options, "_scope_": "mmseg"}
    )
    made.init_weights()
    return made


def by_hand(maps: Tensor, mean: Tensor, variance: Tensor, made: Any) -> Tensor:
    """Batch norm with these statistics and the newly initialised scale 1 and shift 0, and the weights of each class."""
    normed = (maps - mean.view(-1, 1, 1)) / (variance.view(-1, 1, 1) + 1e-5).sqrt()
    return torch.einsum("bchw,kc->bkhw", normed, made.conv_seg.weight[:, :, 0, 0])


@pytest.mark.parametrize("dropout_first", [False, True])
def test_head_is_batch_norm_and_a_weight_for_each_class_in_either_order(dropout_first: bool) -> None:
    torch.manual_seed(0)
    made = head(dropout_first, 0.5)
    maps = 3 * torch.randn(5, 6, 4, 3) + 1
    assert made.conv_seg.bias.eq(0).all()
    assert 0.005 < made.conv_seg.weight.std() < 0.02
    made.train()
    torch.manual_seed(1)
    found = made((torch.empty(0), maps))
    torch.manual_seed(1)
    kept = nn.functional.dropout2d(torch.ones_like(maps), 0.5)  # whole channels of an image: 0 or 2
    seen = maps * kept if dropout_first else maps
    mean, variance = seen.mean((0, 2, 3)), seen.var((0, 2, 3), unbiased=False)
    if dropout_first:
        expected = by_hand(seen, mean, variance, made)
    else:
        normed = (maps - mean.view(-1, 1, 1)) / (variance.view(-1, 1, 1) + 1e-5).sqrt()
        expected = torch.einsum("bchw,kc->bkhw", normed * kept, made.conv_seg.weight[:, :, 0, 0])
    torch.testing.assert_close(found, expected)
    unbiased = seen.var((0, 2, 3))
    torch.testing.assert_close(made.norm.running_mean, 0.1 * mean)
    torch.testing.assert_close(made.norm.running_var, 0.9 + 0.1 * unbiased)
    made.eval()
    expected = by_hand(maps, made.norm.running_mean, made.norm.running_var, made)
    torch.testing.assert_close(made((torch.empty(0), maps)), expected)


def test_head_whose_channels_are_not_those_of_its_map_is_refused() -> None:
    from transfer.segmentation.linear_head import LinearHead

    with pytest.raises(ValueError, match="channels is 4, but the map has 6"):
        LinearHead(True, in_channels=6, channels=4, num_classes=3, norm_cfg={"type": "BN"})


def rates(protocol: Any, job: TransferJob) -> list[float]:
    """The learning rate of each iteration, as mmengine computes it from the config."""
    from mmengine.registry import PARAM_SCHEDULERS

    from transfer.segmentation import one_cycle  # noqa: F401

    config = resolve(replace(job, protocol=protocol, scale="paper", overrides={}))
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=config.optim_wrapper.optimizer.lr)
    schedules = [
        PARAM_SCHEDULERS.build(dict(entry), default_args={"optimizer": optimizer}) for entry in config.param_scheduler
    ]
    found = []
    for _ in range(config.train_cfg.max_iters):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer._global_step += 1  # type: ignore[attr-defined]  # mmengine counts the steps of the optimiser
        for schedule in schedules:
            schedule.step()
    return found


def test_rates_of_dinov2_are_those_of_the_first_mmcv(job: TransferJob) -> None:
    """Its poly policy with a linear warm-up: the warm-up multiplies what the policy gives."""
    iterations = np.arange(40000)
    policy = 1e-3 * (1 - iterations / 40000)
    warm = 1 - (1 - iterations / 1500) * (1 - 1e-6)
    np.testing.assert_allclose(rates(DINOV2, job), policy * np.where(iterations < 1500, warm, 1), rtol=1e-9)


def test_rates_of_dinov3_are_those_of_its_training_loop(job: TransferJob) -> None:
    """The loop as it is published: the schedule is asked for its first value, and advances from the second iteration on."""

    def value(step: int) -> float:
        if step < 1500:
            k = (1 - step / 1500) * (1 - 1e-6)
            return 1e-3 * (1 - k) * (1 - step / 40000)
        return 0.0 + (1e-3 - 0.0) / 2.0 * (math.cos(math.pi * (step + 1) / 40000) + 1)

    expected, step = [], 0
    for iteration in range(40000):
        expected.append(value(step))
        if iteration > 0:
            step += 1
    np.testing.assert_allclose(rates(DINOV3, job), expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_map_is_the_last_one_of_the_backbone_at_its_own_stride(job: TransferJob, stride: int) -> None:
    import mmseg.models  # noqa: F401
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    from transfer.segmentation import linear_head  # noqa: F401
    from transfer.weights import load_into

    init_default_scope("mmseg")
    backbone = random_backbone(BackboneSpec(50, 0.25, output_stride=stride), seed=3)
    for name, tensor in backbone.state.items():
        if name.endswith("bn3.weight"):
            tensor.fill_(0.5)
    config = resolve(replace(job, overrides={}), backbone.spec)
    assert stride_of(config) == stride
    model: Any = revert_sync_batchnorm(MODELS.build(config.model)).eval()
    load_into(model, backbone, "mmseg")
    image = torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    found = model.backbone(image)[3]
    assert not found.requires_grad  # nothing of the backbone is kept for a backward pass
    network = FrozenNetwork(backbone)
    expected = network.network.forward_stages(image)["layer4"]
    assert found.shape == (1, 512, 96 // stride, 128 // stride)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_stride_follows_the_backbone_at_paper_scale_too_but_the_users_own_wins(job: TransferJob) -> None:
    paper = replace(job, scale="paper", overrides={})
    assert stride_of(resolve(paper, BackboneSpec())) == 32
    assert stride_of(resolve(paper, BackboneSpec(output_stride=8))) == 8
    own = {"model.backbone.strides": [1, 2, 2, 1], "model.backbone.dilations": [1, 1, 1, 2]}
    assert stride_of(resolve(replace(paper, overrides=own), BackboneSpec())) == 16
    with pytest.raises(UserError, match=r"holds a ResNet-50 .*--set model.decode_head.channels=1024"):
        resolve(paper, BackboneSpec(width=0.5))


def test_backbones_that_mmsegmentation_cannot_build_alike_are_refused(job: TransferJob) -> None:
    resolve(job, BackboneSpec(18, 0.5))
    with pytest.raises(UserError, match=r"ResNet-18.* of output stride 16, but MMSegmentation dilates only one"):
        resolve(job, BackboneSpec(18, 0.5, output_stride=16))
    with pytest.raises(UserError, match="holds a ViT of width 768"):
        resolve(job, VitSpec())


def test_result_of_a_random_backbone_says_how_it_was_made(mini_root: Path, tmp_path: Path) -> None:
    result = run_transfer(job_of(mini_root, tmp_path / "run", ROOMS))
    assert (result["kind"], result["status"], result["iterations"]) == ("frozen", "ok", 4)
    assert set(result["deviations"]) >= set(ROOMS.differs)
    assert not any("frozen" in text for text in result["deviations"])
    about = result["evaluation"]
    assert about["backbone"].startswith("random initialisation, seed 0, BN statistics of ")
    assert (about["stride"], about["ignored"], about["score_at"]) == (16, [0, 255], "full")
    assert about["images"]["test"] == {
        "scale": [99999999, 128],
        "mode": "slide",
        "crop_size": [128, 128],
        "stride": [85, 85],
    }
    assert about["pictures"] == {"train": 12, "test": 12}
    assert len(about["classes"]) == 150
    assert result["config"]["model"]["decode_head"]["in_channels"] == 512


class Crash(Exception):
    """Raised by a hook to end a run."""


def test_only_the_head_learns_and_a_run_that_died_goes_on_with_its_schedule(
    mini_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mmengine.hooks import Hook

    from transfer.weights.models.load_into import unequal

    backbone = random_backbone(QUARTER, seed=7)
    for name, tensor in backbone.state.items():
        if name.endswith(("running_mean", "bn3.weight")):
            tensor.uniform_(0.1, 0.2)
    job = job_of(mini_root, tmp_path / "run")
    seen: list[Any] = []

    class Look(Hook):
        priority = "VERY_LOW"

        def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
            seen.append((unequal(runner.model, backbone, "mmseg"), runner.model.decode_head.conv_seg.bias.clone()))
            if runner.iter == 2:
                raise Crash

    with chatter_into(job.out) as console:
        runner, _ = build_runner(job, resolve(job, QUARTER), backbone, console)
        runner.register_hook(Look())
        with pytest.raises(Crash):
            runner.train()
        close_log(runner)
    assert [missing for missing, _ in seen] == [[]] * 3  # weights and statistics, bit for bit
    assert not torch.equal(seen[1][1], seen[2][1])
    kept = newest_checkpoint(job.out)
    assert kept is not None
    assert kept.name == "iter_2.pth"
    capsys.readouterr()
    outcome = run(job, backbone)
    assert outcome.iterations == 4
    assert outcome.evaluation["backbone"] == backbone.source
    assert "going on from iteration 2 of 4" in capsys.readouterr().out
    state = torch.load(job.out / "iter_4.pth", weights_only=True)
    warm = 1e-6 + (1 - 1e-6) * 3 / 5
    assert state["optimizer"]["param_groups"][0]["lr"] == pytest.approx(0.01 * warm * (1 - 3 / 120))
    assert len(state["optimizer"]["state"]) == 4  # of batch norm and convolution of the head


def painted(mini_root: Path, root: Path) -> Path:
    """A copy of Cityscapes whose pictures show the class of each pixel as a grey level: 12 × class."""
    shutil.copytree(mini_root / "cityscapes", root / "cityscapes")
    for path in root.glob("cityscapes/leftImg8bit/*/*/*_leftImg8bit.png"):
        name = path.name.replace("leftImg8bit", "gtFine_labelTrainIds")
        truth = root / "cityscapes" / "gtFine" / path.relative_to(root / "cityscapes" / "leftImg8bit").parent / name
        with Image.open(truth) as image:
            labels = np.array(image)
        grey = np.where(labels == 255, 0, labels * 12).astype(np.uint8)
        Image.fromarray(np.repeat(grey[..., None], 3, axis=2)).save(path)
    return root


class ClassMap(nn.Module):
    """A fixed network whose map (B, 19, H / 2, W / 2) has 1 for the class that a cell shows, and 0 for the others."""

    def forward(self, images: Tensor) -> tuple[Tensor]:
        grey = images[:, :1] * 58.395 + 123.675
        classes = (nn.functional.avg_pool2d(grey, 2) / 12).round().long().clamp(0, 18)
        return (nn.functional.one_hot(classes[:, 0], 19).permute(0, 3, 1, 2).float(),)


def test_perfect_features_give_a_high_miou(mini_root: Path, tmp_path: Path) -> None:
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    from transfer.segmentation.hooks import LoadBackbone

    init_default_scope("mmseg")
    MODELS.register_module(name="ClassMap", module=ClassMap, force=True)
    job = job_of(painted(mini_root, tmp_path / "root"), tmp_path / "run", DINOV2)
    iterations = {"train_cfg.max_iters": 60, "train_cfg.val_interval": 60, "param_scheduler.1.end": 61}
    job = replace(job, overrides={**SHORT, **iterations, "default_hooks.checkpoint.interval": 60})
    config = resolve(job, QUARTER)
    config.model.backbone = {"type": "ClassMap"}
    config.model.decode_head.update(in_channels=19, channels=19, in_index=0)
    steps = config.train_dataloader.dataset.pipeline
    config.train_dataloader.dataset.pipeline = [step for step in steps if step.type != "PhotoMetricDistortion"]
    with chatter_into(job.out) as console:
        runner, progress = build_runner(job, config, random_backbone(QUARTER, seed=0), console)
        runner._hooks = [hook for hook in runner._hooks if not isinstance(hook, LoadBackbone)]
        runner.train()
        close_log(runner)
    assert progress.metrics["mIoU"] > 85

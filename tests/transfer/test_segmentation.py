"""The Cityscapes protocol in the real MMSegmentation: its values, its overrides, and short runs on a tiny Cityscapes tree."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pretrain.errors import UserError
from pretrain.models.resnet import TrunkSpec
from transfer import weights
from transfer.job import TransferJob
from transfer.protocols import find_protocol
from transfer.segmentation.config import resolve
from transfer.segmentation.run import build_runner, chatter_into, check_data, leave, newest_checkpoint, run
from transfer.start import random_trunk

pytestmark = pytest.mark.frameworks
PROTOCOL = find_protocol("cityscapes_fcn16s")
QUICK = {
    "train_cfg.max_iters": 4,
    "train_cfg.val_interval": 4,
    "train_dataloader.batch_size": 2,
    "default_hooks.checkpoint.interval": 2,
    "param_scheduler.0.milestones": [3],
}
QUARTER = TrunkSpec(50, 0.25)


@pytest.fixture(scope="session")
def cityscapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with 6 training and 2 validation pictures of road, sky and square cars."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for index in range(count):
            labels = np.zeros((64, 128), np.uint8)
            labels[:30] = 10
            x, y = rng.integers(0, 90), rng.integers(20, 40)
            labels[y : y + 20, x : x + 30] = 13
            labels[-3:] = 255
            pixels = rng.normal(10 * labels[..., None].astype(float), 20, (64, 128, 3)).clip(0, 255).astype(np.uint8)
            for folder, ending, array in (
                ("leftImg8bit", "leftImg8bit", pixels),
                ("gtFine", "gtFine_labelTrainIds", labels),
            ):
                path = root / "cityscapes" / folder / split / "ulm" / f"ulm_{index:06d}_000019_{ending}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    return root


@pytest.fixture
def job(cityscapes: Path, tmp_path: Path) -> TransferJob:
    return TransferJob(PROTOCOL, cityscapes, tmp_path / "run", scale="mini", overrides=QUICK)


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trunk file as `pixbench convert --to mmseg` writes it, with statistics that no initialisation has."""
    trunk = random_trunk(QUARTER, seed=7)
    for name, tensor in trunk.state.items():
        if name.endswith(("running_mean", "bn3.weight")):
            tensor.uniform_(0.1, 0.2)
    path = tmp_path_factory.mktemp("weights") / "trunk.pth"
    weights.save(trunk, path, "mmseg")
    return path


def with_overrides(job: TransferJob, **more: Any) -> TransferJob:
    return replace(job, overrides={**job.overrides, **{key.replace("__", "."): value for key, value in more.items()}})


# --- the config -------------------------------------------------------------------------------------------------------

# What the public definition says, under its own (MMSegmentation 0.x) names: CVMI-Lab/SlotCon, commit d510e65,
# transfer/segmentation/configs/cityscapes/fcn_d6_r50-d16_769x769_90k_cityscapes_moco.py with _base_/datasets/
# cityscapes_769x769_moco.py and _base_/schedules/schedule_90k_moco.py of the same repository; the model's other values from
# open-mmlab/mmsegmentation configs/_base_/models/fcn_r50-d8.py, which it builds on, with the 7x7 stem of facts.md section 2.
# Each with the name that the value has in MMSegmentation 1.x.
PUBLIC: dict[str, tuple[Any, str]] = {
    "model.type": ("EncoderDecoder", "model.type"),
    "model.backbone.type": ("ResNet", "model.backbone.type"),
    "model.backbone.depth": (50, "model.backbone.depth"),
    "model.backbone.num_stages": (4, "model.backbone.num_stages"),
    "model.backbone.out_indices": ((0, 1, 2, 3), "model.backbone.out_indices"),
    "model.backbone.dilations": ((1, 1, 1, 2), "model.backbone.dilations"),
    "model.backbone.strides": ((1, 2, 2, 1), "model.backbone.strides"),
    "model.backbone.norm_cfg": ({"type": "SyncBN", "requires_grad": True}, "model.backbone.norm_cfg"),
    "model.backbone.norm_eval": (False, "model.backbone.norm_eval"),
    "model.backbone.style": ("pytorch", "model.backbone.style"),
    "model.backbone.contract_dilation": (True, "model.backbone.contract_dilation"),
    "model.decode_head.type": ("FCNHead", "model.decode_head.type"),
    "model.decode_head.in_channels": (2048, "model.decode_head.in_channels"),
    "model.decode_head.in_index": (3, "model.decode_head.in_index"),
    "model.decode_head.channels": (256, "model.decode_head.channels"),
    "model.decode_head.num_convs": (2, "model.decode_head.num_convs"),
    "model.decode_head.dilation": (6, "model.decode_head.dilation"),
    "model.decode_head.concat_input": (False, "model.decode_head.concat_input"),
    "model.decode_head.dropout_ratio": (0, "model.decode_head.dropout_ratio"),
    "model.decode_head.num_classes": (19, "model.decode_head.num_classes"),
    "model.decode_head.norm_cfg": ({"type": "SyncBN", "requires_grad": True}, "model.decode_head.norm_cfg"),
    "model.decode_head.align_corners": (True, "model.decode_head.align_corners"),
    "model.decode_head.loss_decode": (
        {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0},
        "model.decode_head.loss_decode",
    ),
    "model.auxiliary_head": (None, "model.auxiliary_head"),
    "model.train_cfg": ({}, "model.train_cfg"),
    "model.test_cfg": (
        {"mode": "slide", "crop_size": (769, 769), "stride": (513, 513)},
        "model.test_cfg",
    ),
    "img_norm_cfg.mean": ([0.485, 0.456, 0.406], "model.data_preprocessor.mean"),
    "img_norm_cfg.std": ([0.229, 0.224, 0.225], "model.data_preprocessor.std"),
    "img_norm_cfg.to_rgb": (True, "model.data_preprocessor.bgr_to_rgb"),
    "train_pipeline.Pad.size": ((769, 769), "model.data_preprocessor.size"),
    "train_pipeline.Pad.pad_val": (0, "model.data_preprocessor.pad_val"),
    "train_pipeline.Pad.seg_pad_val": (255, "model.data_preprocessor.seg_pad_val"),
    "train_pipeline.LoadImageFromFile": ("LoadImageFromFile", "train_dataloader.dataset.pipeline.0.type"),
    "train_pipeline.LoadAnnotations": ("LoadAnnotations", "train_dataloader.dataset.pipeline.1.type"),
    "train_pipeline.Resize": ("Resize", "train_dataloader.dataset.pipeline.2.type"),
    "train_pipeline.Resize.img_scale": ((2049, 1025), "train_dataloader.dataset.pipeline.2.scale"),
    "train_pipeline.Resize.ratio_range": ((0.5, 2.0), "train_dataloader.dataset.pipeline.2.ratio_range"),
    "train_pipeline.Resize.keep_ratio": (True, "train_dataloader.dataset.pipeline.2.keep_ratio"),  # default of 0.x
    "train_pipeline.RandomCrop": ("RandomCrop", "train_dataloader.dataset.pipeline.3.type"),
    "train_pipeline.RandomCrop.crop_size": ((769, 769), "train_dataloader.dataset.pipeline.3.crop_size"),
    "train_pipeline.RandomCrop.cat_max_ratio": (1.0, "train_dataloader.dataset.pipeline.3.cat_max_ratio"),  # default
    "train_pipeline.RandomFlip": ("RandomFlip", "train_dataloader.dataset.pipeline.4.type"),
    "train_pipeline.RandomFlip.prob": (0.5, "train_dataloader.dataset.pipeline.4.prob"),
    "train_pipeline.DefaultFormatBundle, Collect": ("Collect", "train_dataloader.dataset.pipeline.5.type"),
    "test_pipeline.LoadImageFromFile": ("LoadImageFromFile", "val_dataloader.dataset.pipeline.0.type"),
    "test_pipeline.Resize": ("Resize", "val_dataloader.dataset.pipeline.1.type"),
    "test_pipeline.MultiScaleFlipAug.img_scale": ((2049, 1025), "val_dataloader.dataset.pipeline.1.scale"),
    "test_pipeline.Resize.keep_ratio": (True, "val_dataloader.dataset.pipeline.1.keep_ratio"),
    "test_pipeline.ImageToTensor, Collect": ("Collect", "val_dataloader.dataset.pipeline.3.type"),
    "data.samples_per_gpu": (8, "train_dataloader.batch_size"),
    "data.workers_per_gpu": (4, "train_dataloader.num_workers"),
    "data.train.type": ("CityscapesDataset", "train_dataloader.dataset.type"),
    "data.val.type": ("CityscapesDataset", "val_dataloader.dataset.type"),
    "optimizer": (
        {"type": "SGD", "lr": 0.01, "momentum": 0.9, "weight_decay": 0.0001},
        "optim_wrapper.optimizer",
    ),
    "optimizer_config.grad_clip": (None, "optim_wrapper.clip_grad"),  # default of 0.x
    "lr_config.policy": ("step", "param_scheduler.0.type"),
    "lr_config.step": ([63000, 81000], "param_scheduler.0.milestones"),
    "lr_config.gamma": (0.1, "param_scheduler.0.gamma"),
    "lr_config.by_epoch": (False, "param_scheduler.0.by_epoch"),
    "runner.type": ("IterBasedRunner", "train_cfg.type"),
    "runner.max_iters": (90000, "train_cfg.max_iters"),
    "checkpoint_config.interval": (9000, "default_hooks.checkpoint.interval"),
    "evaluation.interval": (9000, "train_cfg.val_interval"),
    "evaluation.metric": ("mIoU", "val_evaluator.iou_metrics.0"),
}
# Where we differ: the public name -> our value and the reason.
DIFFERENCES: dict[str, tuple[Any, str]] = {
    "img_norm_cfg.mean": ([123.675, 116.28, 103.53], "the public one feeds statistics of 0..1 to pixels of 0..255"),
    "img_norm_cfg.std": ([58.395, 57.12, 57.375], "as the mean"),
    "data.samples_per_gpu": (2, "16 images on 8 GPUs instead of on 2: the same batch"),
    "train_pipeline.Resize": ("RandomResize", "name of Resize with a ratio range in 1.x"),
    "train_pipeline.DefaultFormatBundle, Collect": ("PackSegInputs", "their name in 1.x"),
    "test_pipeline.ImageToTensor, Collect": ("PackSegInputs", "their name in 1.x"),
    "lr_config.policy": ("MultiStepLR", "its name in 1.x"),
    "runner.type": ("IterBasedTrainLoop", "its name in 1.x"),
}
# Keys of ours without a public counterpart: plumbing of 1.x, or a default of 0.x spelt out so that it can be overridden.
PLUMBING = (
    "default_scope",
    "model.data_preprocessor.type",
    "model.backbone.stem_channels",
    "model.backbone.base_channels",
    "model.backbone.frozen_stages",
    "model.decode_head.kernel_size",
    "train_dataloader.persistent_workers",
    "train_dataloader.sampler",
    "train_dataloader.dataset.data_",
    "val_dataloader.batch_size",
    "val_dataloader.num_workers",
    "val_dataloader.persistent_workers",
    "val_dataloader.sampler",
    "val_dataloader.dataset.data_",
    "val_dataloader.dataset.pipeline.0.",
    "val_dataloader.dataset.pipeline.2.type",
    "val_evaluator.type",
    "optim_wrapper.type",
    "auto_scale_lr",
    "val_cfg",
    "default_hooks",
    "log_processor",
    "visualizer",
    "env_cfg",
    "randomness",
)


def leaves(node: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value of everything in nested dicts and lists of dicts."""
    if isinstance(node, dict) and node:
        items = list(node.items())
    elif isinstance(node, list) and node and isinstance(node[0], dict):
        items = list(enumerate(node))
    else:
        return {prefix: node}
    flat: dict[str, Any] = {}
    for name, value in items:
        flat |= leaves(value, f"{prefix}.{name}" if prefix else str(name))
    return flat


def test_values_are_those_of_the_public_definition(job: TransferJob) -> None:
    config = resolve(replace(job, scale="paper", overrides={}))
    known = set(leaves(config.to_dict()))
    covered = {key for key in known if key.startswith(PLUMBING)}
    for name, (public, ours) in PUBLIC.items():
        node: Any = config.to_dict()
        for part in ours.split("."):
            node = node[int(part)] if isinstance(node, list) else node[part]
        assert node == (DIFFERENCES[name][0] if name in DIFFERENCES else public), name
        covered |= {key for key in known if key == ours or key.startswith(f"{ours}.") or ours.startswith(f"{key}.")}
    assert known - covered == set()
    assert all(PUBLIC[name][0] != value for name, (value, _) in DIFFERENCES.items())


def test_trunk_has_the_plain_stem_synchronised_norm_and_output_stride_16(job: TransferJob) -> None:
    import mmseg.models  # noqa: F401
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    init_default_scope("mmseg")
    model = MODELS.build(resolve(job).model)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    assert len(norms) == 53 + 2
    assert all(isinstance(module, torch.nn.SyncBatchNorm) for module in norms)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.backbone.conv1.kernel_size == (7, 7)
    assert [block.conv2.dilation for block in model.backbone.layer4] == [(1, 1), (2, 2), (2, 2)]
    from mmengine.model import revert_sync_batchnorm

    maps = revert_sync_batchnorm(model).eval().backbone(torch.zeros(1, 3, 129, 129))
    assert [tuple(stage.shape[1:]) for stage in maps] == [(64, 33, 33), (128, 17, 17), (256, 9, 9), (512, 9, 9)]


def test_mini_overrides_exist_and_keep_their_kinds(job: TransferJob) -> None:
    config = resolve(replace(job, overrides={}))
    assert config.model.backbone.stem_channels == 16
    assert config.train_dataloader.dataset.pipeline[2].scale == (257, 129)
    for key in PROTOCOL.mini:
        assert any(leaf == key or leaf.startswith(f"{key}.") for leaf in leaves(config.to_dict())), key


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.backbone.stem_chanels", 16, "did you mean model.backbone.stem_channels"),
        ("train_cfg.max_iter", 4, "did you mean train_cfg.max_iters"),
        ("train_dataloader.dataset.pipeline.9.scale", [1, 1], "did you mean train_dataloader.dataset.pipeline.2.scale"),
        ("crop_size", [129, 129], "is not in the protocol's config"),
        ("model.decode_head", {"chanels": 3}, "did you mean model.decode_head.channels"),
        ("train_cfg.max_iters", "many", "of another kind"),
        ("train_dataloader.persistent_workers", 0, "of another kind"),
        ("train_dataloader.dataset.data_root", "elsewhere", "set by --data-root"),
        ("randomness.seed", 3, "set by --seed"),
    ],
)
def test_wrong_overrides_are_named(job: TransferJob, key: str, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve(replace(job, overrides={key: value}))


def test_nested_overrides_and_ones_of_none_are_taken(job: TransferJob) -> None:
    config = resolve(
        replace(job, overrides={"optim_wrapper": {"clip_grad": {"max_norm": 5}}, "train_cfg.max_iters": 7})
    )
    assert config.optim_wrapper.clip_grad == {"max_norm": 5}
    assert config.optim_wrapper.optimizer.lr > 0
    assert config.train_cfg.max_iters == 7


def test_width_follows_the_trunk_but_not_at_paper_scale(job: TransferJob) -> None:
    config = resolve(job, TrunkSpec(101, 0.5))
    assert (config.model.backbone.depth, config.model.backbone.base_channels) == (101, 32)
    assert config.model.decode_head.in_channels == 1024
    with pytest.raises(UserError, match=r"--set model.backbone.stem_channels=16 .*in_channels=512"):
        resolve(replace(job, scale="paper", overrides={}), QUARTER)


def test_importing_the_runner_is_cheap() -> None:
    code = (
        "import sys, transfer.segmentation.run; print([m for m in ('torch', 'mmengine', 'mmseg') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


# --- runs -------------------------------------------------------------------------------------------------------------


class Ended(Exception):
    """Raised by the tests' own hooks to stop a run where they looked."""


def live_state(job: TransferJob, trunk: weights.Trunk) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The segmentor's weights when its first iteration is about to be computed, and which of the trunk's are not there."""
    from mmengine.hooks import Hook

    from transfer.weights.live import unequal

    seen: list[Any] = []

    class Look(Hook):
        priority = "VERY_LOW"

        def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
            seen.append({name: tensor.clone() for name, tensor in runner.model.state_dict().items()})
            seen.append(unequal(runner.model, trunk, "mmseg"))
            raise Ended

    with chatter_into(job.out) as console:
        runner, _ = build_runner(job, resolve(job, trunk.spec), trunk, console)
        runner.register_hook(Look())
        with pytest.raises(Ended):
            runner.train()
        leave(runner)
    return seen[0], seen[1]


def test_rows_differ_in_the_trunk_and_in_nothing_else(job: TransferJob, converted: Path, tmp_path: Path) -> None:
    loaded, missing = live_state(job, weights.load(converted))
    assert missing == []
    start, missing = live_state(replace(job, out=tmp_path / "other"), random_trunk(QUARTER, seed=0))
    assert missing == []
    differ = {name for name in start if not torch.equal(start[name], loaded[name])}
    assert differ
    assert all(name.startswith("backbone.") for name in differ)


def test_run_with_converted_weights_trains_validates_and_repeats(
    job: TransferJob, converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(job, weights.load(converted))
    lines = capsys.readouterr().out.splitlines()
    assert first.iterations == 4
    assert set(PROTOCOL.metrics.values()) <= set(first.metrics)
    present = [first.metrics[f"IoU/{name}"] for name in ("road", "sky", "car")]
    assert first.metrics["mIoU"] == pytest.approx(np.mean(present), abs=0.01)
    assert np.isnan(first.metrics["IoU/bus"])
    assert 0 <= first.metrics["fgIoU"] <= 100
    assert first.config["model"]["test_cfg"]["crop_size"] == [129, 129]
    assert str(tmp_path) not in str(first.config)
    assert any(line.startswith("iteration 4/4  loss") for line in lines)
    assert len(lines) < 10
    assert sorted(path.name for path in job.out.iterdir()) == [
        "cityscapes_fcn16s.py",
        "iter_2.pth",
        "iter_4.pth",
        "last_checkpoint",
        "log.txt",
    ]
    again = run(replace(job, out=tmp_path / "again"), weights.load(converted))
    np.testing.assert_equal(again.metrics, first.metrics)


def test_finished_but_unreported_run_is_only_validated_again(job: TransferJob) -> None:
    first = run(job, None)
    again = run(job, None)
    assert again.iterations == first.iterations == 4
    np.testing.assert_equal(again.metrics, first.metrics)


def test_trunk_that_does_not_fit_stops_before_the_first_iteration(job: TransferJob, converted: Path) -> None:
    deep_stem = with_overrides(job, model__backbone__type="ResNetV1c")
    with pytest.raises(UserError, match=r"without a place in the model \(backbone.conv1.weight.*get nothing.*stem.0"):
        run(deep_stem, weights.load(converted))
    assert newest_checkpoint(job.out) is None


def test_killed_run_goes_on_from_its_last_checkpoint(job: TransferJob, converted: Path, capfd: Any) -> None:
    long = with_overrides(job, train_cfg__max_iters=6, train_cfg__val_interval=6)
    code = (
        "import sys, pickle; from transfer import weights; from transfer.segmentation.run import run\n"
        "run(pickle.load(open(sys.argv[1], 'rb')), weights.load(sys.argv[2]))"
    )
    import pickle

    pickled = job.out.parent / "job.pickle"
    endless = with_overrides(long, train_cfg__max_iters=10**6)
    pickled.write_bytes(pickle.dumps(endless))
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(pickled), str(converted)], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    try:
        deadline = time.monotonic() + 120
        while newest_checkpoint(job.out) is None and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = newest_checkpoint(job.out)
    assert kept is not None
    state = torch.load(kept, weights_only=True)  # without a list of further classes that may be made
    done = state["meta"]["iter"]
    assert done >= 2
    long = with_overrides(long, train_cfg__max_iters=done + 2, train_cfg__val_interval=done + 2)
    capfd.readouterr()
    outcome = run(long, None)  # weights of another kind: they must not be loaded
    assert outcome.iterations == done + 2
    assert f"going on from iteration {done} of {done + 2}" in capfd.readouterr().out
    assert "trunk from random" not in (job.out / "log.txt").read_text()


def test_loss_that_is_not_finite_stops_the_run(job: TransferJob) -> None:
    steep = with_overrides(job, optim_wrapper__optimizer__lr=1e30, default_hooks__checkpoint__interval=1)
    with pytest.raises(UserError, match=r"iteration [23] of 4; lower optim_wrapper.optimizer.lr \(now 1e\+30\)"):
        run(steep, None)
    kept = newest_checkpoint(job.out)
    assert kept is not None
    assert kept.name in ("iter_1.pth", "iter_2.pth")


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_picture_is_named(job: TransferJob, tmp_path: Path, workers: int) -> None:
    root = tmp_path / "root"
    shutil.copytree(job.data_root, root)
    for path in (root / "cityscapes/leftImg8bit/train/ulm").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    broken = with_overrides(replace(job, data_root=root), train_dataloader__num_workers=workers)
    with pytest.raises(
        UserError, match=r"^\S+ulm_00000\d_000019_leftImg8bit.png or its label map .* cannot be read"
    ) as caught:
        run(broken, None)
    assert "\n" not in str(caught.value)


def test_missing_data_is_said(cityscapes: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no picture .* below .*train; unpack Cityscapes"):
        check_data(tmp_path)
    shutil.copytree(cityscapes / "cityscapes", tmp_path / "cityscapes")
    next((tmp_path / "cityscapes/gtFine/val/ulm").iterdir()).unlink()
    with pytest.raises(UserError, match=r"1 of 2 label maps are missing.*createTrainIdLabelImgs"):
        check_data(tmp_path / "cityscapes")


def test_several_processes_need_gpus(job: TransferJob, monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="need a GPU each"):
        run(job, None)


def test_iou_of_classes_and_objects_by_hand() -> None:
    from mmengine.structures import PixelData

    from transfer.segmentation.parts import CityscapesIoU

    metric = CityscapesIoU(iou_metrics=["mIoU"])
    metric.dataset_meta = {"classes": tuple(f"class{i}" for i in range(19))}
    truth = torch.tensor([[0, 0, 11, 13, 255]])
    guess = torch.tensor([[0, 11, 11, 11, 11]])
    sample = {"pred_sem_seg": PixelData(data=guess), "gt_sem_seg": PixelData(data=truth)}
    metric.process({}, [{name: {"data": pixels.data} for name, pixels in sample.items()}])
    found = metric.evaluate(1)
    assert found["fgIoU"] == pytest.approx(100 * 2 / 3, abs=1e-3)
    assert found["IoU/class0"] == pytest.approx(50)
    assert found["IoU/class11"] == pytest.approx(100 / 3, abs=1e-3)
    assert found["IoU/class13"] == 0
    assert np.isnan(found["IoU/class1"])
    assert found["mIoU"] == pytest.approx(np.mean([50, 100 / 3, 0]), abs=0.01)

"""The Cityscapes protocol's config: equal to the public definition, and overridden without surprises."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from mmengine.config import Config

from benchmarks.commands.transfer import parse_settings
from pixbench.errors import UserError
from pretrain.models.backbone_spec import BackboneSpec
from transfer.datasets.classes import Classes, published_classes
from transfer.job import TransferJob
from transfer.protocols import find_protocol, leaves, protocols
from transfer.segmentation.classes import data_sets, parts_with
from transfer.segmentation.config import check_pixels, resolve
from transfer.weights.file_format import Pixels
from transfer.weights.vit_spec import VitSpec

pytestmark = pytest.mark.frameworks
PROTOCOL = find_protocol("cityscapes_fcn16s")
PUBLIC = yaml.safe_load(Path(__file__).with_name("public_segmentation.yaml").read_text(encoding="utf-8"))
OWN = Classes(("grass", 'it\'s "{{a}}" road', "Bäume"), "my.txt", own=True)
PUBLISHED_CLASSES = {
    "cityscapes": "cityscapes.txt",
    "VOC2012aug": "voc_masks.txt",
    "ADEChallengeData2016": "ade20k.txt",
}


@pytest.fixture
def job(tmp_path: Path) -> TransferJob:
    return TransferJob(PROTOCOL, tmp_path / "data", tmp_path / "run", scale="mini")


def look_up(node: Any, key: str) -> Any:
    """The value at a dotted key; ``*`` gathers over a list, what is not there is None. Tuples come as lists."""
    for depth, part in enumerate(parts := key.split(".")):
        if part == "*":
            return [look_up(item, ".".join(parts[depth + 1 :])) for item in node]
        node = dict(enumerate(node)).get(int(part)) if isinstance(node, list) else (node or {}).get(part)
    return listed(node)


def listed(node: Any) -> Any:
    return [listed(item) for item in node] if isinstance(node, list | tuple) else node


def covers(key: str, leaf: str) -> bool:
    return all(a in (b, "*") for a, b in zip(key.split("."), leaf.split("."), strict=False))


@pytest.mark.parametrize("name", PUBLIC["protocols"])
def test_values_are_those_of_the_public_definition(job: TransferJob, name: str) -> None:
    definition = PUBLIC["protocols"][name]
    config = resolve(replace(job, protocol=find_protocol(name), scale="paper")).to_dict()
    files = [PUBLIC["files"][file] for file in definition["files"]]
    public = {key: value for file in files for key, value in leaves(file["values"])}
    names, differences = PUBLIC["names"].get(name, {}), definition["differences"]
    places = {key: names.get(key, key) for key in public}
    found = {key: look_up(config, place) for key, place in places.items()}
    assert found == {key: differences[key]["ours"] if key in differences else public[key] for key in public}
    assert all(difference["ours"] != public[key] and difference["reason"] for key, difference in differences.items())
    assert set(names) <= set(public)
    known = (*places.values(), *PUBLIC["plumbing"], *definition.get("plumbing", ()))
    assert [leaf for leaf, _ in leaves(config) if not any(covers(key, leaf) for key in known)] == []


def test_every_protocol_has_a_public_definition() -> None:
    assert {*PUBLIC["protocols"]} == {name for name, protocol in protocols().items() if protocol.framework == "mmseg"}


@pytest.mark.parametrize("name", ["voc12aug_fcn16s", "voc12aug_linear_dinov2", "voc12aug_linear_dinov3"])
def test_both_halves_of_voc12aug_are_read_alike(job: TransferJob, name: str) -> None:
    config = resolve(replace(job, protocol=find_protocol(name), scale="paper"))
    first, second = config.train_dataloader.dataset.datasets
    assert {key for key in first if first[key] != second[key]} == {"data_prefix", "ann_file"}


def test_backbone_has_the_plain_stem_synchronised_norm_and_output_stride_16(job: TransferJob) -> None:
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
    config = resolve(job)
    assert config.model.backbone.stem_channels == 16
    assert config.train_dataloader.dataset.pipeline[2].scale == (257, 129)
    assert config.model.test_cfg.stride == (65, 65)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.backbone.stem_chanels", 16, "did you mean model.backbone.stem_channels"),
        ("train_cfg.max_iter", 4, "did you mean train_cfg.max_iters"),
        ("train_dataloader.dataset.pipeline.9.scale", [1, 1], "did you mean train_dataloader.dataset.pipeline.2.scale"),
        ("crop_size", [129, 129], "is not in the protocol's config"),
        ("model.decode_head", {"channels": 3}, "set them one by one, for example model.decode_head.type"),
        ("train_cfg.max_iters", "many", "has another type"),
        *((f"train_cfg.{key}", 0, f"{key} is 0, but must be above 0") for key in ("max_iters", "val_interval")),
        ("train_cfg.max_iters", -1, "max_iters is -1, but must be above 0"),
        ("auto_scale_lr.base_batch_size", 0, "base_batch_size is 0, but must be above 0"),
        ("model.data_preprocessor.size", [0, 65], r"size is \[0, 65\], but must be above 0"),
        ("train_dataloader.persistent_workers", 0, "has another type"),
        ("train_dataloader.dataset.data_root", "elsewhere", "set by --data-root"),
        ("randomness.seed", 3, "set by --seed"),
    ],
)
def test_wrong_overrides_are_named(job: TransferJob, key: str, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve(replace(job, overrides={key: value}))


def test_what_the_config_leaves_unset_takes_any_value(job: TransferJob) -> None:
    config = resolve(replace(job, overrides={"optim_wrapper.clip_grad": {"max_norm": 5}, "train_cfg.max_iters": 7}))
    assert config.optim_wrapper.clip_grad == {"max_norm": 5}
    assert config.train_cfg.max_iters == 7


def test_width_follows_the_backbone_but_not_at_paper_scale(job: TransferJob) -> None:
    config = resolve(job, BackboneSpec(101, 0.5))
    assert (config.model.backbone.depth, config.model.backbone.base_channels) == (101, 32)
    assert config.model.decode_head.in_channels == 1024
    with pytest.raises(UserError, match=r"--set model.backbone.stem_channels=16 .*in_channels=512"):
        resolve(replace(job, scale="paper"), BackboneSpec(50, 0.25))


@pytest.mark.parametrize("name", [name for name in PUBLIC["protocols"] if not find_protocol(name).networks])
def test_mini_overrides_of_every_protocol_exist_and_heads_follow_the_backbone(job: TransferJob, name: str) -> None:
    model = resolve(replace(job, protocol=find_protocol(name)), BackboneSpec(50, 0.5)).model
    for _, head in parts_with("in_index", model):
        stages = head.in_index if isinstance(head.in_index, list) else [head.in_index]
        channels = head.in_channels if isinstance(head.in_channels, list) else [head.in_channels]
        assert channels == [128 * 2**stage for stage in stages]


def test_kind_of_backbone_follows_the_weights_but_not_at_paper_scale(job: TransferJob) -> None:
    deep = BackboneSpec(50, 0.25, stem="deep", stride_in_1x1=True)
    backbone = resolve(job, deep).model.backbone
    assert (backbone.type, backbone.style) == ("ResNetV1c", "caffe")
    with pytest.raises(
        UserError, match=r"deep stem.*--set model.backbone.type=\"ResNetV1c\" --set model.backbone.style"
    ):
        resolve(replace(job, scale="paper"), deep)
    with pytest.raises(UserError, match=r"holds a ViT of width 768"):
        resolve(job, VitSpec())
    with pytest.raises(UserError, match="ResNeSt is not supported; choose one of ResNet, ResNetV1c"):
        resolve(replace(job, overrides={"model.backbone.type": "ResNeSt"}))


def test_parts_of_a_batch_are_iterations_of_mmengine(job: TransferJob) -> None:
    whole, parts = resolve(job), resolve(replace(job, accumulate=4))
    assert parts.optim_wrapper.accumulative_counts == 4
    assert parts.train_cfg.max_iters == 4 * whole.train_cfg.max_iters
    assert parts.param_scheduler[0].milestones == [4 * n for n in whole.param_scheduler[0].milestones]
    assert parts.default_hooks.checkpoint.interval == 4 * whole.default_hooks.checkpoint.interval
    assert parts.optim_wrapper.optimizer == whole.optim_wrapper.optimizer


def test_pixels_that_the_backbone_does_not_take_are_refused_with_the_settings(job: TransferJob) -> None:
    caffe = Pixels("BGR", (103.53, 116.28, 123.675), (1.0, 1.0, 1.0))
    check_pixels(resolve(job), job, Pixels())
    with pytest.raises(UserError, match="expects BGR, mean") as caught:
        check_pixels(resolve(job), job, caffe)
    settings = [word for word in str(caught.value).split() if word.startswith("model.")]
    given = replace(job, overrides=parse_settings(settings))
    check_pixels(resolve(given), given, caffe)


@pytest.mark.parametrize("name", PUBLIC["protocols"])
def test_heads_have_the_classes_of_the_label_maps(job: TransferJob, name: str) -> None:
    job = replace(job, protocol=find_protocol(name))
    published = published_classes(PUBLISHED_CLASSES[job.protocol.datasets[0]])
    own = resolve(replace(job, classes=OWN))
    for config, count in ((resolve(job), len(published)), (own, 3)):
        classes = {key: value for key, value in leaves(config.model.to_dict()) if key.endswith("num_classes")}
        assert classes
        assert set(classes.values()) == {count}
        if "loss_cls" in config.model.decode_head:
            assert config.model.decode_head.loss_cls.class_weight == [1.0] * count + [0.1]
    sets = [*data_sets(own.train_dataloader), *data_sets(own.val_dataloader)]
    assert len(sets) == 2  # without the additional images of SBD, which are not there
    for data in sets:
        assert tuple(data.metainfo.classes) == OWN.names
        assert len({tuple(colour) for colour in data.metainfo.palette}) == 3
    again = Config.fromstring(own.dump(), ".py")
    assert tuple(data_sets(again.val_dataloader)[0].metainfo.classes) == OWN.names


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (
            Classes(("fish",), "my.txt", own=True),
            r"my.txt has 1 class \(fish\), but MMSegmentation .* name the class of the",
        ),
        (Classes(tuple(map(str, range(255))), "my.txt", own=True), "has 255 classes, but label maps have room for 254"),
    ],
)
def test_too_few_or_too_many_classes_are_refused(job: TransferJob, classes: Classes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve(replace(job, classes=classes))


def test_most_classes_have_colours_that_differ(job: TransferJob) -> None:
    config = resolve(replace(job, classes=Classes(tuple(map(str, range(254))), "my.txt", own=True)))
    assert len({tuple(colour) for colour in config.val_dataloader.dataset.metainfo.palette}) == 254


def test_a_head_with_one_class_has_no_loss() -> None:
    """The reason why MMSegmentation cannot train on one class: its loss is 0 whatever the head says."""
    import mmseg.models  # noqa: F401
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    init_default_scope("mmseg")
    loss = MODELS.build({"type": "CrossEntropyLoss", "use_sigmoid": False})
    assert loss(torch.randn(2, 1, 4, 4), torch.zeros(2, 4, 4, dtype=torch.long), ignore_index=255) == 0
    assert loss(torch.randn(2, 2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.long), ignore_index=255) > 0


@pytest.mark.parametrize("scale", ["mini", "paper"])
@pytest.mark.parametrize(
    ("protocol", "key", "value", "message"),
    [
        (
            "cityscapes_fcn16s",
            "model.decode_head.num_classes",
            3,
            "model.decode_head.num_classes is 3, but the label maps have 19 classes; leave it out, or run on classes of your own "
            "with --classes FILE",
        ),
        ("voc12aug_fcn_d8_20k", "model.auxiliary_head.num_classes", 20, "is 20, but the label maps have 21 classes"),
        ("ade20k_upernet", "model.decode_head.num_classes", 151, "is 151, but the label maps have 150 classes"),
        (
            "ade20k_fcn_80k",
            "train_dataloader.dataset.pipeline.1.reduce_zero_label",
            False,
            "is False, but the label maps of ade20k_fcn_80k are read with True: it decides what 0 stands for; leave it out",
        ),
        (
            "ade20k_upernet",
            "val_dataloader.dataset.pipeline.2.reduce_zero_label",
            False,
            "is False, but the label maps",
        ),
        (
            "cityscapes_fcn16s",
            "model.data_preprocessor.seg_pad_val",
            0,
            "is 0, but only 255 is ignored, so that padding",
        ),
        ("cityscapes_fcn16s", "val_dataloader.dataset.type", "ADE20KDataset", "laid out as for CityscapesDataset"),
        (
            "voc12aug_fcn16s",
            "train_dataloader.dataset.datasets.1.type",
            "ADE20KDataset",
            "laid out as for PascalVOCDataset",
        ),
        ("cityscapes_fcn16s", "train_dataloader.dataset.metainfo.classes", ["a"], "is not in the protocol's config"),
        ("cityscapes_fcn16s", "model.decode_head.ignore_index", 0, "is not in the protocol's config"),
        (
            "cityscapes_fcn16s",
            "val_evaluator.iou_metrics",
            ["mDice"],
            "reports mIoU; keep it, and add no other than mDice",
        ),
        ("cityscapes_fcn16s", "val_evaluator.iou_metrics", ["mIoU", "AP"], "reports mIoU; keep it"),
        ("ade20k_fcn_80k", "train_dataloader.dataset.pipeline", [], "pipeline.1.reduce_zero_label is None, but"),
    ],
)
def test_overrides_that_do_not_fit_the_label_maps_are_refused(
    job: TransferJob, scale: str, protocol: str, key: str, value: Any, message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        resolve(replace(job, protocol=find_protocol(protocol), scale=scale, overrides={key: value}))


def test_overrides_that_fit_the_label_maps_are_taken(job: TransferJob) -> None:
    same = {"model.decode_head.num_classes": 19, "val_evaluator.iou_metrics": ["mIoU", "mFscore"]}
    assert resolve(replace(job, overrides=same)).val_evaluator.iou_metrics == ["mIoU", "mFscore"]
    resolve(replace(job, classes=OWN, overrides={"model.decode_head.num_classes": 3}))
    with pytest.raises(UserError, match=r"num_classes is 19, but my.txt has 3 classes; leave it out$"):
        resolve(replace(job, classes=OWN, overrides=same))
    with pytest.raises(UserError, match="but the classes are set by --classes; leave it out"):
        resolve(replace(job, classes=OWN, overrides={"val_dataloader.dataset.metainfo.classes": ["a", "b", "c"]}))


def test_a_protocol_that_needs_mmdetection_says_so(job: TransferJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transfer.segmentation.config.find_spec", lambda name: None)
    resolve(job)
    with pytest.raises(UserError, match=r"ade20k_maskformer needs MMDetection, .* run scripts/install.sh"):
        resolve(replace(job, protocol=find_protocol("ade20k_maskformer")))


def test_importing_the_runner_is_cheap() -> None:
    code = (
        "import sys, transfer.segmentation.run; print([m for m in ('torch', 'mmengine', 'mmseg') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"

"""Basic blocks, groups and wide bottlenecks in the real models of both frameworks, and what neither can build."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from quick_detection import QUICK
from torch import Tensor, nn

from benchmarks.commands.transfer import parse_settings
from pixbench.errors import UserError
from pretrain.models.backbone_spec import STAGES, BackboneSpec
from pretrain.models.resnet import build_resnet
from transfer.initial_weights import random_backbone
from transfer.job import TransferJob
from transfer.protocols import find_protocol
from transfer.weights import Backbone, load_into

pytestmark = pytest.mark.frameworks

R18, R34 = BackboneSpec(18), BackboneSpec(34)
NEXT, WIDE = BackboneSpec(50, 0.25, groups=32, width_per_group=4), BackboneSpec(50, 0.25, width_per_group=128)
CIFAR = BackboneSpec(18, output_stride=8, stem="3x3")


def make_job(name: str, **more: Any) -> TransferJob:
    return TransferJob(find_protocol(name), Path("data"), Path("run"), Path("x.pth"), **{"scale": "mini", **more})


def lively(spec: BackboneSpec) -> Backbone:
    """A random backbone in which every norm matters."""
    backbone, random = random_backbone(spec, seed=0), torch.Generator().manual_seed(0)
    for name, tensor in backbone.state.items():
        if tensor.dim() == 1:
            low = -0.2 if name.endswith(("bias", "mean")) else 0.5
            tensor.uniform_(low, low + 0.7, generator=random)
    return backbone


def maps_of(backbone: Backbone, images: Tensor, **fields: Any) -> dict[str, Tensor]:
    network = build_resnet(replace(backbone.resnet, **fields)).eval()
    network.load_state_dict(backbone.state)
    return network.forward_stages(images)


def assert_equal_maps(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert len(found) >= 3
    for stage, x in found.items():
        torch.testing.assert_close(x, wanted[stage], rtol=1e-4, atol=1e-4 * wanted[stage].abs().max().item())


# --- Detectron2 ----------------------------------------------------------------------------------------------------------


def detector(job: TransferJob, backbone: Backbone) -> Any:
    from detectron2.modeling import build_model

    import transfer.detection.models  # noqa: F401  registers FCOS and the C4 head
    from transfer.detection.config import backbone_spec, build_config

    cfg = build_config(job, backbone)
    assert backbone_spec(cfg) == backbone.spec
    cfg.MODEL.DEVICE = "cpu"
    return build_model(cfg).eval()


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("coco_fpn_1x_2fc", R18),
        ("coco_retinanet_1x", R34),
        ("coco_fcos_1x", R18),
        ("coco_fpn_1x", NEXT),
        ("coco_retinanet_1x", WIDE),
        ("voc_c4", NEXT),
        ("coco_c4_1x", WIDE),
    ],
    ids=str,
)
@torch.inference_mode()
def test_a_detector_computes_the_same(name: str, spec: BackboneSpec) -> None:
    job, backbone, images = make_job(name), lively(spec), torch.randn(1, 3, 64, 96)
    model = detector(job, backbone)
    counts = load_into(model, backbone, job.protocol.weights_framework)
    assert counts.converted == sum(not key.endswith("num_batches_tracked") for key in backbone.state)
    if name.endswith("c4") or "_c4_" in name:
        x, found = model.backbone.stem(images), {}
        for stage, module in zip(STAGES[1:4], ("res2", "res3", "res4"), strict=True):
            x = found[stage] = model.backbone.get_submodule(module)(x)
        found["layer4"] = model.roi_heads.res5[:3](x)  # the fourth is a norm that this protocol adds
    else:
        maps = model.backbone.bottom_up(images)
        found = {f"layer{int(key[-1]) - 1}": x for key, x in maps.items()}
    assert_equal_maps(found, maps_of(backbone, images))


@pytest.mark.parametrize(
    ("name", "spec", "says"),
    [
        ("voc_c4", R18, r"x\.pth holds a ResNet-18 of width 1, which voc_c4 cannot use: .* res5, has bottlenecks"),
        ("coco_c4_1x", R34, "which coco_c4_1x cannot use"),
        ("coco_fpn_1x", BackboneSpec(18, 0.25), r"ResNet-18 of width 0\.25, but Detectron2 .* 64 channels in the stem"),
        ("coco_fpn_1x", CIFAR, r"3×3 stem \(CIFAR\), a ResNet of variant 3x3; Detectron2 has only the 7x7 stem"),
        ("coco_fpn_1x", BackboneSpec(18, stem="deep", avg_down=True), "variant deep, averaging"),
        ("coco_vitdet", R18, "holds a ResNet-18 of width 1, which coco_vitdet cannot use: it is for ViT"),
        ("coco_vitdet", NEXT, "holds a ResNeXt-50 32x4d of width 0.25, which coco_vitdet cannot use"),
    ],
)
@pytest.mark.parametrize("scale", ["mini", "paper"])
def test_what_detectron2_cannot_build_is_refused(name: str, spec: BackboneSpec, says: str, scale: str) -> None:
    from transfer.detection.config import build_config

    with pytest.raises(UserError, match=says):
        build_config(make_job(name, scale=scale), Backbone(spec, {}, ""))


@pytest.mark.parametrize("spec", [R18, replace(NEXT, width=1.0), replace(WIDE, width=1.0)], ids=str)
def test_other_blocks_are_a_deviation_at_paper_scale(spec: BackboneSpec) -> None:
    from transfer.detection.config import backbone_spec, build_config

    job = make_job("coco_fpn_1x", scale="paper")
    with pytest.raises(UserError, match="is defined for another backbone") as caught:
        build_config(job, Backbone(spec, {}, ""))
    settings = [word.strip("'") for word in str(caught.value).split() if word.startswith("'MODEL")]
    knowing = replace(job, overrides=parse_settings(settings))
    assert backbone_spec(build_config(knowing, Backbone(spec, {}, ""))) == spec
    assert backbone_spec(build_config(knowing, None)) == spec  # a random one of the same kind


@pytest.mark.parametrize(
    ("name", "overrides", "says"),
    [
        ("coco_fpn_1x", {"DEPTH": 20}, r"MODEL\.RESNETS: backbone depth 20 is not known"),
        ("coco_fpn_1x", {"DEPTH": 18}, "RES2_OUT_CHANNELS must be equal to STEM_OUT_CHANNELS at DEPTH 18"),
        ("coco_fpn_1x", {"DEPTH": 18, "RES2_OUT_CHANNELS": 16}, "only with 64 channels in the stem"),
        (
            "voc_c4",
            {"DEPTH": 18, "STEM_OUT_CHANNELS": 64},
            r"MODEL\.RESNETS holds a ResNet-18 .* res5, has bottlenecks",
        ),
        ("coco_fpn_1x", {"DEPTH": 18, "STEM_OUT_CHANNELS": 64, "NUM_GROUPS": 32}, "groups 32 .* are for bottlenecks"),
        (
            "voc_c4",
            {"STEM_OUT_CHANNELS": 48, "RES2_OUT_CHANNELS": 192},
            "groups of 16 channels do not fit a stem of 48",
        ),
        ("voc_c4", {"STEM_OUT_CHANNELS": 0, "RES2_OUT_CHANNELS": 0}, "do not fit a stem of 0"),
        ("voc_c4", {"NUM_GROUPS": 0}, "groups 0 .* not possible"),
    ],
)
def test_a_config_of_no_backbone_is_refused(name: str, overrides: dict[str, Any], says: str) -> None:
    from transfer.detection.config import build_config

    settings = {f"MODEL.RESNETS.{key}": value for key, value in overrides.items()}
    with pytest.raises(UserError, match=says):
        build_config(replace(make_job(name, overrides=settings), weights=None), None)


@pytest.mark.slow
def test_a_detection_run_from_basic_blocks(mini_root: Path, tmp_path: Path) -> None:
    from transfer.detection.run import run

    job = make_job("coco_retinanet_1x", overrides=QUICK)
    outcome = run(replace(job, data_root=mini_root, out=tmp_path / "run"), random_backbone(R18, seed=0))
    assert outcome.iterations == QUICK["SOLVER.MAX_ITER"]
    final = torch.load(tmp_path / "run" / "model_final.pth", weights_only=True)["model"]
    assert "backbone.bottom_up.res5.1.conv2.weight" in final


# --- MMSegmentation ------------------------------------------------------------------------------------------------------


def segmentor(job: TransferJob, spec: BackboneSpec) -> Any:
    import mmseg.models  # noqa: F401
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    from transfer.segmentation.config import backbone_spec, resolve

    init_default_scope("mmseg")
    config = resolve(job, spec)
    assert backbone_spec(config) == spec
    model: nn.Module = revert_sync_batchnorm(MODELS.build(config.model)).eval()
    return model


QUARTERS = [
    BackboneSpec(18, 0.25),
    BackboneSpec(34, 0.25),
    BackboneSpec(18, 0.25, stem="deep"),
    BackboneSpec(34, 0.25, stem="deep", avg_down=True),
    NEXT,
    replace(NEXT, depth=101, stride_in_1x1=True),
    replace(NEXT, stem="deep", avg_down=True),
]


@pytest.mark.parametrize("spec", QUARTERS, ids=str)
@torch.inference_mode()
def test_a_segmentor_computes_the_same(spec: BackboneSpec) -> None:
    """UPerNet is the protocol without dilation."""
    backbone, images = lively(spec), torch.randn(1, 3, 64, 96)
    model = segmentor(make_job("ade20k_upernet"), spec)
    assert load_into(model, backbone, "mmseg").converted == len(backbone.state)
    maps = model.backbone(images)
    assert model.decode_head.in_channels == [x.shape[1] for x in maps]
    assert model.decode_head(maps).shape[1] == 150
    assert model.auxiliary_head(maps).shape[1] == 150
    assert_equal_maps(dict(zip(STAGES[1:], maps, strict=True)), maps_of(backbone, images))


@pytest.mark.parametrize("spec", [BackboneSpec(18, 0.25), NEXT], ids=str)
@torch.inference_mode()
def test_a_segmentor_with_dilation(spec: BackboneSpec) -> None:
    """MMSegmentation dilates only the first convolution of a basic block, so C5 is its own there."""
    backbone, images = lively(spec), torch.randn(1, 3, 65, 97)
    model = segmentor(make_job("cityscapes_fcn16s"), spec)
    load_into(model, backbone, "mmseg")
    maps = dict(zip(STAGES[1:], model.backbone(images), strict=True))
    wanted = maps_of(backbone, images, output_stride=16)
    assert {stage: x.shape for stage, x in maps.items()} == {stage: wanted[stage].shape for stage in maps}
    if spec.basic:
        assert [block.conv1.dilation[0] for block in model.backbone.layer4] == [1, 2]
        assert [block.conv2.dilation[0] for block in model.backbone.layer4] == [1, 1]
        del maps["layer4"]
    assert_equal_maps(maps, wanted)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (CIFAR, r"x\.pth holds a ResNet-18 .*\(CIFAR\), but MMSegmentation has no ResNet of variant 3x3"),
        (BackboneSpec(18, avg_down=True), "no ResNet of variant 7x7, averaging"),
        (WIDE, r"holds a Wide ResNet-50-2 of width 0\.25, but MMSegmentation has no wide bottlenecks"),
    ],
)
@pytest.mark.parametrize("scale", ["mini", "paper"])
def test_what_mmsegmentation_cannot_build_is_refused(spec: BackboneSpec, says: str, scale: str) -> None:
    from transfer.segmentation.config import resolve

    with pytest.raises(UserError, match=says):
        resolve(make_job("cityscapes_fcn16s", scale=scale), spec)


@pytest.mark.parametrize("spec", [R18, replace(NEXT, width=1.0), replace(NEXT, stem="deep", width=1.0)], ids=str)
def test_other_blocks_are_a_deviation_of_a_segmentor(spec: BackboneSpec) -> None:
    from transfer.segmentation.config import backbone_spec, resolve

    job = make_job("cityscapes_fcn16s", scale="paper")
    with pytest.raises(UserError, match="is defined for another backbone") as caught:
        resolve(job, spec)
    knowing = replace(job, overrides=parse_settings([w for w in str(caught.value).split() if w.startswith("model.")]))
    assert backbone_spec(resolve(knowing, spec)) == spec
    assert backbone_spec(resolve(knowing)) == spec
    back = resolve(replace(knowing, scale="mini"), BackboneSpec(50, 0.25)).model.backbone
    assert back.type == "ResNet"
    assert not {"groups", "base_width", "deep_stem"} & set(back)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"depth": 20}, r"model\.backbone: backbone depth 20 is not known"),
        ({"type": "ResNeXt", "depth": 18, "groups": 32}, "groups 32 .* are for bottlenecks"),
        ({"type": "ResNeXt", "groups": 2, "base_width": 5, "base_channels": 48}, "groups of 5 channels do not fit"),
        ({"groups": 32}, r"'model\.backbone\.groups' is not in the protocol's config"),
    ],
)
def test_a_config_of_no_segmentors_backbone_is_refused(overrides: dict[str, Any], says: str) -> None:
    from transfer.segmentation.config import resolve

    settings = {f"model.backbone.{key}": value for key, value in overrides.items()}
    with pytest.raises(UserError, match=says):
        resolve(make_job("cityscapes_fcn16s", overrides=settings))


@pytest.mark.slow
@pytest.mark.parametrize("spec", [BackboneSpec(18, 0.25), NEXT], ids=str)
def test_a_segmentation_run(mini_root: Path, tmp_path: Path, spec: BackboneSpec) -> None:
    from transfer.segmentation.run import run

    short = {"train_cfg.max_iters": 2, "train_cfg.val_interval": 2, "auto_scale_lr.base_batch_size": 2}
    job = replace(make_job("cityscapes_fcn16s", overrides=short), data_root=mini_root, out=tmp_path / "run")
    outcome = run(job, random_backbone(spec, seed=0))
    assert outcome.iterations == 2
    assert outcome.config["model"]["decode_head"]["in_channels"] == spec.channels

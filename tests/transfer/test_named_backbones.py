"""Backbones by name in detectors and segmentors: the maps that heads get, the weights that arrive, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch

from pixbench.errors import UserError
from pretrain.models.named_network import NamedNetwork
from pretrain.models.named_spec import NamedSpec
from transfer.detection import named_backbone as detection
from transfer.detection.config import backbone_spec as spec_of_detector
from transfer.detection.config import build_config
from transfer.initial_weights import random_backbone
from transfer.job import TransferJob, unpublished
from transfer.protocols import find_protocol
from transfer.segmentation import named_backbone as segmentation
from transfer.segmentation.config import backbone_spec as spec_of_segmentor
from transfer.segmentation.config import resolve, stride_of
from transfer.weights import load, load_into
from transfer.weights.conversion import convert
from transfer.weights.frameworks import FRAMEWORKS
from transfer.weights.models.load_into import unequal
from transfer.weights.write_file import save

pytestmark = pytest.mark.frameworks

VIT = NamedSpec(
    "timm:vit_tiny_patch16_224", {"img_size": 64, "patch_size": 16, "embed_dim": 32, "depth": 4, "num_heads": 2}
)
CONVNEXT = NamedSpec("timm:convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]})
SEGMENTORS = (
    *("ade20k_upernet", "cityscapes_fcn_d8_40k", "ade20k_linear_dinov2"),
    *("ade20k_knet", "ade20k_maskformer", "voc12aug_u2pl_16th"),
)


def job(protocol: str, tmp_path: Path, **more: Any) -> TransferJob:
    return TransferJob(find_protocol(protocol), data_root=tmp_path, out=tmp_path / "run", scale="mini", **more)


@pytest.mark.parametrize(
    ("protocol", "spec"),
    [
        *((protocol, VIT) for protocol in SEGMENTORS),
        ("ade20k_upernet", CONVNEXT),
        *(
            pytest.param(protocol, CONVNEXT, marks=pytest.mark.e2e)
            for protocol in SEGMENTORS
            if "upernet" not in protocol
        ),
    ],
    ids=lambda value: getattr(value, "title", value),
)
def test_a_segmentor_gets_four_maps_and_all_weights(spec: NamedSpec, protocol: str, tmp_path: Path) -> None:
    import mmseg.models  # noqa: F401  registers the models
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    from transfer.segmentation import linear_head  # noqa: F401  registers the head
    from transfer.segmentation.u2pl import register

    register()
    config = resolve(job(protocol, tmp_path), spec)
    assert spec_of_segmentor(config) == spec
    assert stride_of(config) == (16 if spec is VIT else 32)
    init_default_scope(config.default_scope)
    model: Any = revert_sync_batchnorm(MODELS.build(config.model))
    counts = load_into(model, random_backbone(spec, 0), "mmseg")
    assert counts.converted == len(random_backbone(spec, 0).state)
    assert isinstance(model.backbone, segmentation.NamedBackbone)
    shape = {"ori_shape": (64, 64), "img_shape": (64, 64), "pad_shape": (64, 64), "batch_input_shape": (64, 64)}
    found = model.eval().encode_decode(torch.randn(2, 3, 64, 64), [shape] * 2)
    assert found.shape[:2] == (2, model.num_classes)
    frozen = protocol == "ade20k_linear_dinov2"
    model.train()
    assert model.backbone.training is not frozen
    assert any(parameter.requires_grad for parameter in model.backbone.parameters()) is not frozen


@pytest.mark.parametrize("protocol", ["coco_fpn_1x", "coco_retinanet_1x", "coco_fcos_1x"])
def test_a_detector_gets_the_maps_of_four_strides_and_all_weights(protocol: str, tmp_path: Path) -> None:
    from detectron2.modeling import build_model

    from transfer.detection import models  # noqa: F401  registers FCOS

    backbone = random_backbone(CONVNEXT, 0)
    cfg = build_config(job(protocol, tmp_path), backbone)
    assert spec_of_detector(cfg) == CONVNEXT
    cfg.MODEL.DEVICE = "cpu"
    model: Any = build_model(cfg)
    assert load_into(model, backbone, "detectron2_fpn").converted == len(backbone.state)
    levels = model.backbone(torch.randn(1, 3, 128, 128))
    sides = {name: 128 // x.shape[2] for name, x in levels.items()}
    assert sides.items() >= {"p3": 8, "p4": 16, "p5": 32, "p6": 64}.items()
    assert isinstance(model.backbone.bottom_up, detection.BottomUp)


NORMED = """
from torch import nn
class Net(nn.Module):
    channels, strides = [4] * 4, [4, 8, 16, 32]
    def __init__(self):
        super().__init__()
        self.steps = nn.ModuleList(nn.Conv2d(i, 4, s, s) for i, s in ((3, 4), (4, 2), (4, 2), (4, 2)))
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in self.steps)
    def forward(self, x):
        found = []
        for step, norm in zip(self.steps, self.norms):
            x = step(x)
            found.append(norm(x))
        return found
"""


def test_what_only_some_maps_depend_on_learns_if_the_heads_get_these_maps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A norm for each map: pre-training takes the last one only, heads take four, and a head may take two."""
    (tmp_path / "normed_maps.py").write_text(NORMED)
    monkeypatch.syspath_prepend(tmp_path)
    spec = NamedSpec("normed_maps:Net")

    def still(network: torch.nn.Module) -> set[str]:
        return {name.split(".")[2] for name, parameter in network.named_parameters() if not parameter.requires_grad}

    assert still(NamedNetwork(spec)) == {"0", "1", "2"}
    assert still(segmentation.NamedBackbone(spec.name)) == set()
    assert still(detection.BottomUp(spec, ["res2", "res3", "res4", "res5"])) == set()
    assert still(detection.BottomUp(spec, ["res3", "res5"])) == {"0", "2"}
    assert still(segmentation.NamedBackbone(spec.name, frozen=True)) == {"0", "1", "2", "3"}


@pytest.mark.parametrize("framework", ["mmseg", "detectron2_fpn", "detectron2_vitdet", "timm"])
def test_files_for_frameworks_are_proved_there_and_read_again(framework: str, tmp_path: Path) -> None:
    backbone = random_backbone(VIT if framework == "detectron2_vitdet" else CONVNEXT, 0)
    save(backbone, tmp_path / "source.safetensors", "timm")
    suffix = {"mmseg": ".pth", "timm": ".safetensors"}.get(framework, ".pkl")
    done = convert(tmp_path / "source.safetensors", tmp_path / f"out{suffix}", framework)
    assert done.parity is not None
    assert done.parity.ok
    again = load(tmp_path / f"out{suffix}")
    assert again.spec == backbone.spec
    assert all(torch.equal(again.state[name], x) for name, x in backbone.state.items())


def _timm(lines: str, _folder: Path) -> torch.nn.Module:
    held: dict[str, Any] = {"timm": timm}
    exec(lines, held)
    return held["model"]


def _mmseg(lines: str, _folder: Path) -> torch.nn.Module:
    from mmengine import Config
    from mmseg.registry import MODELS

    network = MODELS.build(Config.fromstring(lines, ".py").model.backbone)
    network.init_weights()
    return torch.nn.ModuleDict({"backbone": network})


def _detectron2(lines: str, folder: Path) -> torch.nn.Module:
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.modeling import build_model

    cfg = build_config(job("coco_fpn_1x", folder), None)
    exec(lines, {"cfg": cfg})
    cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg)
    DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    return model


def _vitdet(lines: str, _folder: Path) -> torch.nn.Module:
    from detectron2 import model_zoo
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.config import instantiate

    lazy = {"model": model_zoo.get_config("common/models/mask_rcnn_vitdet.py").model, "train": SimpleNamespace()}
    exec(lines, lazy)
    model = torch.nn.ModuleDict({"backbone": instantiate(lazy["model"].backbone)})
    DetectionCheckpointer(model).load(lazy["train"].init_checkpoint)
    return model


@pytest.mark.parametrize("framework", [_timm, _mmseg, _detectron2, _vitdet])
def test_the_lines_that_a_conversion_prints_load_all_weights(framework: Any, tmp_path: Path) -> None:
    name = {_timm: "timm", _mmseg: "mmseg", _detectron2: "detectron2_fpn", _vitdet: "detectron2_vitdet"}[framework]
    backbone, path = (
        random_backbone(VIT if framework is _vitdet else CONVNEXT, 0),
        tmp_path / f"x{FRAMEWORKS[name].suffixes[0]}",
    )
    save(backbone, path, name)
    assert not unequal(framework(FRAMEWORKS[name].usage(backbone, path), tmp_path), backbone, name)


@pytest.mark.parametrize(
    ("protocol", "spec", "says"),
    [
        (
            "voc_c4",
            CONVNEXT,
            r"protocols with a feature pyramid \(coco_fpn_1x, .*coco_swin_t_fpn_1x, coco_convnext_t_fpn_3x\)",
        ),
        ("coco_c4_1x", VIT, r"protocols for plain networks \(coco_vitdet\)"),
        ("coco_fpn_1x", VIT, "a feature pyramid needs maps of several strides"),
        ("coco_fpn_1x", NamedSpec("timm:hiera_tiny_224"), "does not take images of 320 × 416"),
        ("ade20k_fcn_80k", NamedSpec("timm:hiera_tiny_224"), "does not take images of 128 × 128"),
        ("coco_vitdet", CONVNEXT, "makes its pyramid from the one map"),
        ("cityscapes_fcn_d8_40k_dcn", CONVNEXT, "deformable convolutions"),
        ("ade20k_upernet", NamedSpec("timm:levit_128"), "take 4"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_reason(
    protocol: str, spec: NamedSpec, says: str, tmp_path: Path
) -> None:
    run, backbone = job(protocol, tmp_path), replace(random_backbone(CONVNEXT, 0), spec=spec)
    segments = run.protocol.weights_framework == "mmseg"
    with pytest.raises(UserError, match=says):
        resolve(run, spec) if segments else build_config(run, backbone)


@pytest.mark.parametrize(("frozen", "before"), [(False, (0, 0)), (True, (5, 4))])
def test_images_that_are_no_whole_patches_are_padded(frozen: bool, before: tuple[int, int]) -> None:
    """As pictures are that are tested whole. Padding is right and below, or on all sides in frozen protocols."""
    network = segmentation.NamedBackbone(VIT.name, VIT.options, frozen=frozen).eval()
    x = torch.randn(1, 3, 53, 71)
    whole = torch.zeros(1, 3, 64, 80)
    whole[:, :, before[0] : before[0] + 53, before[1] : before[1] + 71] = x
    for found, expected in zip(network(x), network(whole), strict=True):
        assert torch.equal(found, expected)
    conv = segmentation.NamedBackbone(CONVNEXT.name, CONVNEXT.options)
    assert conv.multiple == 1, "a network that takes any size gets its images as they are"


@pytest.mark.parametrize(
    ("framework", "spec", "says"),
    [
        ("detectron2_fpn", VIT, r"no plain networks such as .*; convert it with --to detectron2 --detector vitdet"),
        ("detectron2_vitdet", CONVNEXT, r"no hierarchical networks such as .*--detector fpn or --to mmseg"),
        (
            "detectron2_vitdet",
            NamedSpec(VIT.name, VIT.options | {"patch_size": 12, "img_size": 96}),
            "no patches of 12 pixels",
        ),
    ],
)
def test_what_a_detector_cannot_take_is_not_written(framework: str, spec: NamedSpec, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        save(random_backbone(spec, 0), tmp_path / "x.pkl", framework)


def test_a_backbone_that_a_protocol_was_not_published_for_is_a_deviation(tmp_path: Path) -> None:
    assert unpublished(job("ade20k_upernet", tmp_path), CONVNEXT) == (
        f"backbone {CONVNEXT.title}, for which ade20k_upernet was not published",
    )
    assert unpublished(job("ade20k_linear_dinov2", tmp_path), VIT) == ()

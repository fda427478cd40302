"""The lines that `convert` prints: run as they are, they give the framework's model exactly the converted weights."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pixbench.errors import UserError
from pretrain.models.backbone_spec import BackboneSpec
from transfer.weights import FRAMEWORKS, Backbone, express, save, verify
from transfer.weights.file_format import Pixels
from transfer.weights.models.load_into import unequal
from transfer.weights.vit_spec import VitSpec

pytestmark = pytest.mark.frameworks

WHOLE = [
    BackboneSpec(18), BackboneSpec(50), BackboneSpec(50, stem="deep"), BackboneSpec(34, stem="deep", avg_down=True),
    BackboneSpec(50, groups=32, width_per_group=4), BackboneSpec(50, width_per_group=128), BackboneSpec(50, groups=2),
    BackboneSpec(18, stem="3x3", output_stride=8),
]  # fmt: skip
"""Of the width that torchvision and timm always have."""
NARROW = [
    BackboneSpec(50, 0.25), BackboneSpec(50, 0.25, stride_in_1x1=True), BackboneSpec(34, 0.25), BackboneSpec(18),
    BackboneSpec(50, 0.25, groups=4, width_per_group=16), BackboneSpec(50, 0.25, width_per_group=128),
    BackboneSpec(50, 0.25, stem="deep"), BackboneSpec(34, 0.25, stem="deep", avg_down=True),
]  # fmt: skip
PAIRS = [
    pytest.param(name, spec, marks=() if spec in WHOLE[:2] or spec.width < 1 else pytest.mark.e2e)
    for spec in [*WHOLE, NARROW[0], replace(WHOLE[1], stride_in_1x1=True)]
    for name in ("torchvision", "timm")
]
PAIRS += [
    (name, spec) for spec in NARROW for name in FRAMEWORKS if name not in ("torchvision", "timm", "detectron2_vitdet")
]


def _timm_or_torchvision(lines: str) -> nn.Module:
    import timm
    import torchvision

    held: dict[str, Any] = {"torch": torch, "torchvision": torchvision, "timm": timm}
    exec(lines, held)
    return held["model"]


def _huggingface(lines: str) -> nn.Module:
    import safetensors.torch
    import transformers

    held: dict[str, Any] = {"torch": torch, "transformers": transformers, "safetensors": safetensors}
    exec(lines, held)
    return held["model"]


def _mmseg(lines: str) -> nn.Module:
    import mmseg.models  # noqa: F401
    from mmengine import Config
    from mmseg.registry import MODELS

    config = Config.fromstring(lines, ".py")
    network = MODELS.build(config.model.backbone)
    network.init_weights()
    return nn.ModuleDict({"backbone": network})


def test_mmsegs_base_configurations_take_the_lines(tmp_path: Path, backbone_of: Callable[..., Backbone]) -> None:
    """They set ``pretrained``, which must not stand beside ``init_cfg``."""
    import mmseg.models
    from mmengine import Config
    from mmseg.registry import MODELS

    backbone = backbone_of(BackboneSpec(50, 1 / 16))
    save(backbone, tmp_path / "x.pth", "mmseg")
    base = Path(mmseg.__file__).parent / ".mim/configs/_base_/models/fcn_r50-d8.py"
    config = Config.fromfile(base)
    config.merge_from_dict(Config.fromstring(FRAMEWORKS["mmseg"].usage(backbone, tmp_path / "x.pth"), ".py")._cfg_dict)
    config.model.data_preprocessor.type = "mmseg.SegDataPreProcessor"  # outside a Runner there is no default scope
    for head, channels in (("decode_head", 128), ("auxiliary_head", 64)):
        if head in config.model:
            config.model[head].in_channels = channels
    model = MODELS.build(config.model)
    model.init_weights()
    assert not unequal(model, backbone, "mmseg")


def _detectron2(lines: str, folder: Path, fpn: bool) -> nn.Module:
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    (folder / "config.yaml").write_text(lines)
    config = get_cfg()
    if fpn:
        features = ["res2", "res3", "res4", "res5"]
        config.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
        config.MODEL.RESNETS.OUT_FEATURES = config.MODEL.FPN.IN_FEATURES = features
        config.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
        config.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
        config.MODEL.ROI_HEADS.NAME, config.MODEL.ROI_HEADS.IN_FEATURES = "StandardROIHeads", ["p2", "p3", "p4", "p5"]
        config.MODEL.ROI_BOX_HEAD.NAME, config.MODEL.ROI_BOX_HEAD.NUM_FC = "FastRCNNConvFCHead", 1
    config.merge_from_file(str(folder / "config.yaml"))
    config.MODEL.DEVICE = "cpu"
    model = build_model(config)
    DetectionCheckpointer(model).load(config.MODEL.WEIGHTS)
    return model


def _run(framework: str, lines: str, folder: Path) -> nn.Module:
    if framework.startswith("detectron2"):
        return _detectron2(lines, folder, framework.endswith("fpn"))
    return {**dict.fromkeys(("mmseg", "mmdet", "mmpretrain"), _mmseg), "huggingface": _huggingface}.get(
        framework, _timm_or_torchvision
    )(lines)


@pytest.mark.parametrize(("framework", "spec"), PAIRS, ids=lambda value: getattr(value, "title", value))
def test_each_kind_goes_through_each_framework_or_is_refused_with_the_reason(
    tmp_path: Path, backbone_of: Callable[..., Backbone], framework: str, spec: BackboneSpec
) -> None:
    backbone, rules = backbone_of(spec), FRAMEWORKS[framework]
    path = tmp_path / f"x{rules.suffixes[0]}"
    if framework not in _taken(spec):
        with pytest.raises(UserError, match=r"; convert it with --to |; no framework supports it"):
            save(backbone, path, framework)
        assert not path.exists()
        return
    backbone = express(backbone, framework)
    save(backbone, path, framework)
    verify(backbone, path, framework).require(path)
    model = _run(framework, rules.usage(backbone, path), tmp_path)
    assert not unequal(model, backbone, framework)


def _taken(spec: BackboneSpec) -> set[str]:
    taken = set()
    for name, rules in FRAMEWORKS.items():
        if spec.variant in rules.variants and not rules.lacks(Backbone(spec, {}, "test")):
            taken.add(name)
    return taken


def test_which_framework_takes_which_kind() -> None:
    openmmlab = {"mmseg", "mmdet", "mmpretrain"}
    everything = {"detectron2_c4", "detectron2_fpn", "torchvision", "timm", "huggingface"} | openmmlab
    assert _taken(BackboneSpec(50)) == everything
    assert _taken(BackboneSpec(18)) == everything - {"detectron2_c4"}
    assert _taken(BackboneSpec(50, groups=32, width_per_group=4)) == everything - {"huggingface"}
    assert _taken(BackboneSpec(50, width_per_group=128)) == everything - {"huggingface"} - openmmlab
    assert _taken(BackboneSpec(18, stem="3x3", output_stride=8)) == {"torchvision"}
    assert _taken(BackboneSpec(18, 0.25)) == openmmlab | {"huggingface"}


def test_pixels_are_in_the_lines(tmp_path: Path, backbone_of: Callable[..., Backbone]) -> None:
    backbone = replace(
        backbone_of(BackboneSpec(50, 0.25)), pixels=Pixels("BGR", (103.53, 116.28, 123.675), (1.0, 1.0, 1.0))
    )
    lines = FRAMEWORKS["detectron2_fpn"].usage(backbone, tmp_path / "x.pkl")
    assert "FORMAT: 'BGR'" in lines
    assert "PIXEL_STD: [1.0, 1.0, 1.0]" in lines
    lines = FRAMEWORKS["mmseg"].usage(backbone, tmp_path / "x.pth")
    assert "prefix='backbone.'" in lines
    assert "bgr_to_rgb=False" in lines


def test_the_lines_need_no_framework(tmp_path: Path, checkpoint: Callable[..., Path]) -> None:
    """``--no-verify`` is for machines without the frameworks; the lines are printed there too."""
    script = (
        "import sys\n"
        "for name in ('torchvision', 'timm', 'transformers', 'mmseg', 'mmengine', 'detectron2'): sys.modules[name] = None\n"
        "from transfer.weights import FRAMEWORKS, convert\n"
        "for name in ('torchvision', 'timm', 'huggingface', 'mmseg', 'mmdet', 'mmpretrain', 'detectron2_fpn', 'detectron2_c4'):\n"
        "    output = f'{sys.argv[3]}/{name}{FRAMEWORKS[name].suffixes[0]}'\n"
        "    source = sys.argv[1 if name in ('torchvision', 'timm') else 2]\n"
        "    assert output in convert(source, output, name, check_forward=False).usage\n"
    )
    wide = checkpoint(1).rename(tmp_path / "wide.pt")  # the width that two of them always have
    words = [sys.executable, "-c", script, str(wide), str(checkpoint(0.25)), str(tmp_path)]
    subprocess.run(words, check=True, timeout=120)


def test_the_names_of_timm() -> None:
    import timm

    from transfer.weights.frameworks.timm import _NAMES

    assert all(map(timm.is_model, _NAMES))


def test_vitdet(tmp_path: Path, backbone_of: Callable[..., Backbone]) -> None:
    backbone = backbone_of(VitSpec(64, 2, 2, 16, 64))
    assert "embed_dim=64, depth=2, num_heads=2" in FRAMEWORKS["detectron2_vitdet"].usage(backbone, tmp_path / "x.pkl")

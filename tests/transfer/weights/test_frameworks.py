"""Naming: both ways, for every framework, and against the frameworks' real models."""

from __future__ import annotations

import pytest
import torch

from pixbench.errors import UserError
from pretrain.models.backbone_spec import BackboneSpec
from transfer.weights import FRAMEWORKS, Backbone, to_framework
from transfer.weights.expected_shapes import expected
from transfer.weights.naming import NAMINGS, Naming, is_counter
from transfer.weights.vit_spec import VitSpec

KINDS = [(framework, kind) for framework in FRAMEWORKS for kind in FRAMEWORKS[framework].variants if kind != "named"]
SPECS = {
    "7x7": {},
    "deep": {"stem": "deep"},
    "deep, averaging": {"stem": "deep", "avg_down": True},
    "3x3": {"stem": "3x3", "output_stride": 8},
}


@pytest.mark.parametrize(("framework", "kind"), KINDS)
@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_there_and_back_gives_the_same_names(framework, kind, depth):
    spec = VitSpec(depth=depth) if kind == "ViT" else BackboneSpec(depth, **SPECS[kind])
    assert spec.variant == kind
    state, names = expected(spec), FRAMEWORKS[framework].variants[kind]
    named = to_framework(Backbone(spec, state, "test"), framework)
    kept = [name for name in state if FRAMEWORKS[framework].counters or not is_counter(name)]
    assert [names.to_canonical(name) for name in named] == kept
    assert all(tensor is state[name] for name, tensor in zip(kept, named.values(), strict=True))


@pytest.mark.parametrize(
    ("framework", "canonical", "target"),
    [
        ("detectron2_c4", "conv1.weight", "backbone.stem.conv1.weight"),
        ("detectron2_c4", "bn1.running_var", "backbone.stem.conv1.norm.running_var"),
        ("detectron2_c4", "layer1.0.downsample.0.weight", "backbone.res2.0.shortcut.weight"),
        ("detectron2_c4", "layer1.0.downsample.1.bias", "backbone.res2.0.shortcut.norm.bias"),
        ("detectron2_c4", "layer3.5.bn2.weight", "backbone.res4.5.conv2.norm.weight"),
        ("detectron2_c4", "layer4.2.conv3.weight", "roi_heads.res5.2.conv3.weight"),
        ("detectron2_fpn", "bn1.bias", "backbone.bottom_up.stem.conv1.norm.bias"),
        ("detectron2_fpn", "layer4.0.bn3.running_mean", "backbone.bottom_up.res5.0.conv3.norm.running_mean"),
        ("mmseg", "layer2.0.downsample.1.num_batches_tracked", "backbone.layer2.0.downsample.1.num_batches_tracked"),
        ("torchvision", "layer2.3.conv2.weight", "layer2.3.conv2.weight"),
        ("huggingface", "layer2.3.bn1.weight", "encoder.stages.1.layers.3.layer.0.normalization.weight"),
        ("detectron2_vitdet", "blocks.3.attn.qkv.bias", "backbone.net.blocks.3.attn.qkv.bias"),
        ("detectron2_vitdet", "pos_embed", "backbone.net.pos_embed"),
    ],
)
def test_names_as_the_frameworks_write_them(framework, canonical, target):
    names = next(iter(FRAMEWORKS[framework].variants.values()))
    assert names.to_framework(canonical) == target
    assert names.to_canonical(target) == canonical


@pytest.mark.parametrize(
    "name", ["fc.weight", "layer1.conv1.weight", "layer5.0.conv1.weight", "conv1.weight.x", "xconv1.weight"]
)
def test_a_name_that_is_not_of_a_backbone_has_no_translation(name):
    assert NAMINGS["torchvision"].to_framework(name) is None


def test_two_modules_under_one_name_are_not_a_layout():
    with pytest.raises(ValueError, match="same name"):
        Naming({"conv1": "stem", "bn1": "stem"}, {}, {})


def test_unknown_layout():
    with pytest.raises(UserError, match="known: detectron2_fpn"):
        to_framework(Backbone(BackboneSpec(), {}, "test"), "caffe2")


@pytest.mark.frameworks
@pytest.mark.parametrize("framework", ["detectron2_c4", "detectron2_fpn", "mmseg"])
@pytest.mark.parametrize("spec", [BackboneSpec(50, 0.25), BackboneSpec(50, 1), BackboneSpec(101, 0.25)], ids=str)
def test_map_is_onto_the_backbone_of_the_real_model(framework, spec, real_model):
    model = real_model(framework, spec, device="meta")
    backbone = Backbone(spec, expected(spec), "test")
    ours = {name: tuple(tensor.shape) for name, tensor in to_framework(backbone, framework).items()}
    owned = {
        name: tuple(tensor.shape)
        for name, tensor in model.state_dict().items()
        if FRAMEWORKS[framework].owns.match(name) and (FRAMEWORKS[framework].counters or not is_counter(name))
    }
    assert ours == owned
    assert len(owned) < len(model.state_dict())  # there are heads, and they are not ours


def test_map_is_onto_torchvisions_resnet():
    from torchvision.models import resnet50

    with torch.device("meta"):
        theirs = resnet50().state_dict()
    ours = to_framework(Backbone(BackboneSpec(), expected(BackboneSpec()), "test"), "torchvision")
    assert {name: tensor.shape for name, tensor in theirs.items() if FRAMEWORKS["torchvision"].owns.match(name)} == {
        name: tensor.shape for name, tensor in ours.items()
    }
    assert set(theirs) - set(ours) == {"fc.weight", "fc.bias"}

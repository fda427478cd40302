"""Kinds of backbone: where strides stand, which stem, which blocks; torchvision and timm are the judges of what they compute."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pretrain.models.backbone_spec import BackboneSpec, width_per_group
from pretrain.models.resnet import ResNet, build_resnet

NEXT_50, NEXT_101 = BackboneSpec(groups=32, width_per_group=4), BackboneSpec(101, groups=64, width_per_group=4)
TORCHVISION = {
    "resnet18": BackboneSpec(18),
    "resnet34": BackboneSpec(34),
    "resnet50": BackboneSpec(50),
    "resnext50_32x4d": NEXT_50,
    "resnext101_64x4d": NEXT_101,
    "wide_resnet50_2": BackboneSpec(width_per_group=128),
}
"""Name of a network in torchvision -> its spec."""


def lively(model: nn.Module) -> nn.Module:
    """``model`` in eval mode, with norms that change what goes through them."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize(("stem", "in_1x1", "avg_down"), list(product(("7x7", "deep"), (False, True), (False, True))))
@pytest.mark.parametrize("output_stride", [32, 16])
def test_maps_have_one_size_wherever_strides_stand(stem, in_1x1, avg_down, output_stride):
    backbone = build_resnet(BackboneSpec(50, 1 / 16, output_stride, stem, in_1x1, avg_down)).eval()
    maps = backbone.forward_stages(torch.rand(1, 3, 65, 96))
    last = (5, 6) if output_stride == 16 else (3, 3)
    assert {name: tuple(x.shape[1:]) for name, x in maps.items()} == {
        "stem": (4, 17, 24),
        "layer1": (16, 17, 24),
        "layer2": (32, 9, 12),
        "layer3": (64, 5, 6),
        "layer4": (128, *last),
    }
    block = backbone.layer2[0]
    assert (block.conv1.stride, block.conv2.stride) == (((2, 2), (1, 1)) if in_1x1 else ((1, 1), (2, 2)))
    assert block.downsample[0].stride == ((1, 1) if avg_down else (2, 2))
    assert ("stem.6.weight" in backbone.state_dict()) is (stem == "deep")
    assert ("conv1.weight" in backbone.state_dict()) is (stem == "7x7")


def test_a_shortcut_with_avg_down_averages():
    backbone = build_resnet(BackboneSpec(50, 1 / 16, avg_down=True), zero_init_residual=True).eval()
    block, x = backbone.layer2[0], torch.rand(1, 16, 4, 4)  # the last gamma is 0, so the shortcut is all there is
    mean = x.view(1, 16, 2, 2, 2, 2).mean((3, 5))
    torch.testing.assert_close(block(x), block.downsample(mean).relu())


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_networks_have_the_same_names_and_outputs(name: str) -> None:
    import torchvision

    torch.manual_seed(0)
    theirs, spec = lively(torchvision.models.get_model(name)), TORCHVISION[name]
    with torch.device("meta"):
        ours = build_resnet(spec).eval()
    state = {key: tensor for key, tensor in theirs.state_dict().items() if not key.startswith("fc.")}
    assert list(ours.state_dict()) == list(state)
    ours.load_state_dict(state, assign=True)
    assert ours.channels == spec.channels == theirs.fc.in_features
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        c5 = ours(images)
        assert torch.equal(theirs.fc(theirs.avgpool(c5).flatten(1)), theirs(images))


def timm_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names that timm gives to a backbone with a deep stem and averaging shortcuts."""
    named = {re.sub(r"(downsample\.)(\d)", lambda m: f"{m[1]}{int(m[2]) + 1}", key): t for key, t in state.items()}
    return {re.sub(r"^stem\.(\d)", r"conv1.\1", re.sub(r"^stem\.7", "bn1", key)): t for key, t in named.items()}


@pytest.mark.parametrize("output_stride", [32, 16, 8])
@pytest.mark.parametrize("depth", [18, 34])
def test_timms_basic_blocks_compute_the_same_where_they_stride_and_where_they_dilate(
    depth: int, output_stride: int
) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    ours = lively(build_resnet(BackboneSpec(depth, output_stride=output_stride)))
    theirs = timm.create_model(f"resnet{depth}", num_classes=0, output_stride=output_stride).eval()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(1, 3, 97, 64)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs.forward_features(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("resnet18d", BackboneSpec(18, stem="deep", avg_down=True)),
        ("resnet34d", BackboneSpec(34, stem="deep", avg_down=True)),
        ("resnext50d_32x4d", BackboneSpec(stem="deep", avg_down=True, groups=32, width_per_group=4)),
    ],
)
def test_timms_deep_stems_and_averaging_shortcuts_compute_the_same(name: str, spec: BackboneSpec) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    ours, theirs = lively(build_resnet(spec)), timm.create_model(name, num_classes=0).eval()
    theirs.load_state_dict(timm_names(ours.state_dict()))
    images = torch.randn(1, 3, 97, 64)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs.forward_features(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "fields",
    [{"depth": 18}, {"depth": 18, "stem": "3x3"}, {"groups": 4, "width_per_group": 16}, {"stem": "3x3"}],
    ids=str,
)
@pytest.mark.parametrize("shorter", [2, 4])
def test_dilation_computes_the_same_map_at_more_places(fields: dict[str, Any], shorter: int) -> None:
    torch.manual_seed(0)
    whole = 8 if fields.get("stem") == "3x3" else 32
    strided = lively(build_resnet(BackboneSpec(**fields, width=1 / 8, output_stride=whole))).double()
    dilated = build_resnet(BackboneSpec(**fields, width=1 / 8, output_stride=whole // shorter)).eval().double()
    dilated.load_state_dict(strided.state_dict())
    images = torch.randn(1, 3, 97, 64, dtype=torch.float64)
    with torch.inference_mode():
        few, many = strided(images), dilated(images)
    assert many.shape[2:] == (-(-97 * shorter // whole), 64 * shorter // whole)
    torch.testing.assert_close(many[:, :, ::shorter, ::shorter], few)


def test_the_stem_of_cifar_keeps_the_size_of_the_image() -> None:
    backbone = build_resnet(BackboneSpec(18, 1 / 16, output_stride=8, stem="3x3")).eval()
    assert backbone.conv1.weight.shape == (4, 3, 3, 3)
    assert {name: tuple(x.shape[1:]) for name, x in backbone.forward_stages(torch.rand(1, 3, 32, 40)).items()} == {
        "stem": (4, 32, 40),
        "layer1": (4, 32, 40),
        "layer2": (8, 16, 20),
        "layer3": (16, 8, 10),
        "layer4": (32, 4, 5),
    }


@pytest.mark.parametrize("spec", [BackboneSpec(18, 1 / 16), BackboneSpec(50, 1 / 4, groups=32, width_per_group=4)])
def test_blocks_begin_as_their_shortcuts(spec: BackboneSpec) -> None:
    last = "bn2.weight" if spec.basic else "bn3.weight"
    for zero in (True, False):
        state = build_resnet(spec, zero_init_residual=zero).state_dict()
        gammas = {key: tensor for key, tensor in state.items() if re.search(r"bn\d\.weight|downsample\.1\.weight", key)}
        assert {key for key, tensor in gammas.items() if not tensor.any()} == {k for k in gammas if zero and last in k}
    block = build_resnet(spec).eval().layer3[1]
    x = torch.randn(1, block.last_norm.num_features, 4, 4)
    assert torch.equal(block(x), x.relu())


def test_channels_of_narrow_networks_with_groups() -> None:
    backbone = build_resnet(BackboneSpec(50, 0.25, groups=32, width_per_group=4))
    convolutions = [backbone.get_submodule(f"layer{stage}.0.conv2") for stage in (1, 2, 3, 4)]
    assert [(conv.in_channels, conv.groups) for conv in convolutions] == [(32, 32), (64, 32), (128, 32), (256, 32)]
    assert isinstance(backbone, ResNet)
    assert backbone.channels == 512


@pytest.mark.parametrize(
    ("spec", "title", "channels"),
    [
        (BackboneSpec(18), "ResNet-18 of width 1", 512),
        (
            BackboneSpec(34, 0.5, stem="deep", avg_down=True),
            "ResNet-34 of width 0.5, deep stem, averaging shortcuts",
            256,
        ),
        (BackboneSpec(101), "ResNet-101 of width 1", 2048),
        (NEXT_50, "ResNeXt-50 32x4d of width 1", 2048),
        (NEXT_101, "ResNeXt-101 64x4d of width 1", 2048),
        (BackboneSpec(width_per_group=128), "Wide ResNet-50-2 of width 1", 2048),
        (BackboneSpec(18, output_stride=8, stem="3x3"), "ResNet-18 of width 1, 3×3 stem (CIFAR)", 512),
        (BackboneSpec(stride_in_1x1=True), "ResNet-50 of width 1, stride in the 1×1", 2048),
    ],
    ids=str,
)
def test_titles_and_channels(spec: BackboneSpec, title: str, channels: int) -> None:
    assert (spec.title, spec.channels) == (title, channels)
    assert spec.variant == spec.stem + (", averaging" if spec.avg_down else "")
    assert BackboneSpec(**spec.as_dict()) == spec


def test_a_description_says_nothing_of_groups_where_there_are_none() -> None:
    """Weight files and run folders of before hold these fields and no others."""
    before = {"depth": 50, "width": 1.0, "output_stride": 32, "stem": "7x7", "stride_in_1x1": False, "avg_down": False}
    assert BackboneSpec().as_dict() == before
    assert NEXT_50.as_dict() == before | {"groups": 32, "width_per_group": 4}
    assert BackboneSpec(width_per_group=128).as_dict() == before | {"width_per_group": 128}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"depth": 20}, r"depth 20 .* \[18, 34, 50, 101, 152\]"),
        ({"output_stride": 4}, "output_stride 4 .* choose 32, or 16 or 8 by dilation"),
        ({"stem": "3x3"}, "output_stride 32 is not possible with the 3x3 stem; choose 8, or 4 or 2 by dilation"),
        ({"width": 0.3}, "width 0.3"),
        ({"stem": "5x5"}, "stem '5x5'"),
        ({"stem": "deep", "width": 1 / 64}, "stem 'deep' of width"),
        ({"depth": 18, "groups": 32}, "groups 32 .* are for bottlenecks, but a ResNet-18 has basic blocks"),
        ({"depth": 34, "width_per_group": 128}, "width_per_group 128 are for bottlenecks"),
        ({"depth": 34, "stride_in_1x1": True}, "stride_in_1x1 is for bottlenecks"),
        ({"groups": 0}, "groups 0 .* whole numbers"),
        ({"groups": 1.5}, "groups 1.5 .* whole numbers"),
        ({"width_per_group": -4}, "width_per_group -4 .* whole numbers"),
        ({"width": 0.125, "groups": 32, "width_per_group": 4}, "width_per_group 4 are not possible at width 0.125"),
    ],
)
def test_a_spec_that_cannot_be_built(fields, says):
    with pytest.raises(ValueError, match=says):
        BackboneSpec(**fields)


def test_width_per_group_of_channels() -> None:
    assert (width_per_group(4, 64), width_per_group(1, 16), width_per_group(32, 16)) == (4, 4, 128)
    for channels, base in ((5, 48), (4, 0)):
        with pytest.raises(ValueError, match=f"groups of {channels} channels do not fit a stem of {base}"):
            width_per_group(channels, base)

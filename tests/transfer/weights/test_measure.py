"""Which network the names and shapes of weights are of: every one that there is, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_expected_shapes import RESNETS

from pixbench.errors import UserError
from pretrain.models.backbone_spec import BackboneSpec
from transfer.weights.expected_shapes import expected
from transfer.weights.measure import measure
from transfer.weights.vit_spec import VitSpec

Shapes = dict[str, tuple[int, ...]]

TORCHVISION: dict[str, dict[str, Any]] = {
    "resnet18": {"depth": 18},
    "resnet34": {"depth": 34},
    "resnet50": {"depth": 50},
    "resnet101": {"depth": 101},
    "resnet152": {"depth": 152},
    "resnext50_32x4d": {"groups": 32, "width_per_group": 4},
    "resnext101_32x8d": {"depth": 101, "groups": 32, "width_per_group": 8},
    "resnext101_64x4d": {"depth": 101, "groups": 64, "width_per_group": 4},
    "wide_resnet50_2": {"width_per_group": 128},
    "wide_resnet101_2": {"depth": 101, "width_per_group": 128},
}
"""Name of a network in torchvision -> fields of its spec."""


def shapes_of(spec: BackboneSpec | VitSpec) -> Shapes:
    return {name: shape.shape for name, shape in expected(spec).items()}


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_networks(name: str) -> None:
    from torchvision.models import get_model

    with torch.device("meta"):
        state = get_model(name).state_dict()
    found = measure({key: tuple(tensor.shape) for key, tensor in state.items()}, name)
    assert BackboneSpec(**found) == BackboneSpec(**TORCHVISION[name])
    assert found.keys() == {"depth", "width", "stem", "groups", "width_per_group"}


@pytest.mark.parametrize("spec", RESNETS, ids=str)
def test_every_spec_follows_from_its_shapes(spec: BackboneSpec) -> None:
    """Except for what the shapes do not show: where a stage strides, and whether the shortcuts average."""
    found = BackboneSpec(**measure(shapes_of(spec), "x"))
    fields = ("depth", "width", "output_stride", "stem", "groups", "width_per_group")
    assert [getattr(found, name) for name in fields] == [getattr(spec, name) for name in fields]


def test_the_stem_of_cifar_brings_its_output_stride() -> None:
    assert measure(shapes_of(BackboneSpec(18, output_stride=8, stem="3x3")), "x")["output_stride"] == 8


def test_a_vit() -> None:
    spec = VitSpec(64, 2, 1, 4, 8)
    assert VitSpec(**measure(shapes_of(spec), "x")) == spec


def without(pattern: str) -> Callable[[Shapes], object]:
    def edit(shapes: Shapes) -> None:
        for name in [name for name in shapes if re.search(pattern, name)]:
            del shapes[name]

    return edit


def give(**kernels: tuple[int, ...]) -> Callable[[Shapes], object]:
    """Replace shapes; ``layer1_0_conv1`` stands for ``layer1.0.conv1.weight``."""
    return lambda shapes: shapes.update({f"{name.replace('_', '.')}.weight": shape for name, shape in kernels.items()})


BASIC, NEXT = BackboneSpec(34), BackboneSpec(groups=32, width_per_group=4)
DEEP = BackboneSpec(stem="deep")
HUGE = 2**62


@pytest.mark.parametrize(
    ("spec", "edit", "says"),
    [
        (NEXT, dict.clear, r"conv1\.weight \(its stem\) is missing"),
        (NEXT, without(r"^conv1\."), r"conv1\.weight \(its stem\) is missing"),
        *(
            (NEXT, give(conv1=shape), rf"is not a 4-D kernel of sizes from 1 to 4096, but {re.escape(str(shape))}")
            for shape in [(64,), (0, 3, 7, 7), (64, 3, 0, 7), (HUGE, 3, 7, 7), (64, HUGE, 7, 7), (64, 3, 7, 7, 7)]
        ),
        (NEXT, give(conv1=(64, 1, 7, 7)), r"another stem .* conv1\.weight is \(64, 1, 7, 7\)"),
        (NEXT, give(conv1=(64, 3, 5, 5)), r"another stem .* conv1\.weight is \(64, 3, 5, 5\)"),
        (NEXT, give(conv1=(32, 3, 7, 7)), r"behind a stem of 32 channels"),
        (DEEP, give(stem_6=(64, 31, 3, 3)), r"another stem .* stem\.6\.weight is \(64, 31, 3, 3\)"),
        (DEEP, give(stem_6=(63, 31, 3, 3)), r"another stem .* stem\.6\.weight is \(63, 31, 3, 3\)"),
        (DEEP, give(stem_6=(128, 64, 3, 3)), r"stem of 128 channels .* \(64, 64, 1, 1\)"),
        (NEXT, without(r"^layer4\."), r"stages of \(3, 4, 6, 0\) blocks, bottlenecks, so it is no ResNet-18/34"),
        (NEXT, without(r"^layer2\.3\."), r"stages of \(3, 3, 6, 3\) blocks"),
        (NEXT, give(**{"layer1_3_conv1": (128, 256, 1, 1)}), r"stages of \(4, 4, 6, 3\) blocks"),
        (BASIC, without(r"^layer1\.2\."), r"stages of \(2, 4, 6, 3\) blocks, basic ones"),
        (BackboneSpec(101), without(r"\.(conv|bn)3\."), r"stages of \(3, 4, 23, 3\) blocks, basic ones"),
        (BackboneSpec(18), give(layer1_0_conv3=(256, 64, 1, 1)), r"stages of \(2, 2, 2, 2\) blocks, bottlenecks"),
        (BackboneSpec(50), without(r"\.(conv|bn)3\."), r"no basic block .* \(64, 64, 1, 1\), \(64, 64, 3, 3\)"),
        (BASIC, without(r"^layer1\.0\.conv1"), r"no basic block .* are missing, \(64, 64, 3, 3\)"),
        (BASIC, give(layer1_0_conv2=(64, 32, 3, 3)), r"no basic block .* \(64, 64, 3, 3\), \(64, 32, 3, 3\)"),
        (BASIC, give(layer1_0_conv1=(64, 64, 3, 0)), r"no basic block"),
        (NEXT, without(r"^layer1\.0\.conv2"), r"no bottleneck .* \(128, 64, 1, 1\), missing, \(256, 128, 1, 1\)"),
        (NEXT, give(layer1_0_conv2=(128, 5, 3, 3)), r"no bottleneck .* \(128, 5, 3, 3\)"),
        (NEXT, give(layer1_0_conv2=(128, 0, 3, 3)), r"no bottleneck .* \(128, 0, 3, 3\)"),
        (NEXT, give(layer1_0_conv2=(128, HUGE, 3, 3)), r"no bottleneck"),
        (NEXT, give(layer1_0_conv2=(128,)), r"no bottleneck .* \(128,\)"),
        (NEXT, give(layer1_0_conv2=(128, 4, 5, 5)), r"no bottleneck .* \(128, 4, 5, 5\)"),
        (NEXT, give(layer1_0_conv1=(0, 64, 1, 1)), r"no bottleneck"),
        (NEXT, give(layer1_0_conv1=(HUGE, 64, 1, 1)), r"no bottleneck"),
        (NEXT, give(layer1_0_conv3=(64, 128, 1, 1)), r"no bottleneck .* \(64, 128, 1, 1\)"),
        (
            BackboneSpec(width=0.75),
            give(layer1_0_conv1=(50, 48, 1, 1), layer1_0_conv2=(50, 50, 3, 3)),
            r"no bottleneck",
        ),
    ],
)
def test_other_networks_are_named_by_what_was_found(
    spec: BackboneSpec, edit: Callable[[Shapes], object], says: str
) -> None:
    shapes = shapes_of(spec)
    edit(shapes)
    with pytest.raises(UserError, match=says) as caught:
        measure(shapes, "the.pth")
    assert str(caught.value).startswith("the.pth holds ")


def test_groups_and_channels_that_do_not_divide() -> None:
    """50 channels in one group behind a stem of 48 are no whole width_per_group."""
    shapes = shapes_of(BackboneSpec(width=0.75))
    give(layer1_0_conv1=(50, 48, 1, 1), layer1_0_conv2=(50, 50, 3, 3), layer1_0_conv3=(192, 50, 1, 1))(shapes)
    with pytest.raises(
        UserError, match=r"stem of 48 channels .* \(50, 48, 1, 1\), \(50, 50, 3, 3\), \(192, 50, 1, 1\)"
    ):
        measure(shapes, "x")

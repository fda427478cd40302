"""What a whole backbone, pyramid and head should hold is what the modules themselves hold, in the same order."""

from __future__ import annotations

import itertools

import pytest
import torch

from pretrain.models.backbone_spec import BackboneSpec
from transfer.weights.expected_shapes import expected
from transfer.weights.models import pyramid_head_model
from transfer.weights.models.networks import build_network
from transfer.weights.vit_spec import VitSpec


def entries(state: dict[str, torch.Tensor]) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")) for name, tensor in state.items()}


VARIANTS = list(itertools.product((1 / 32, 1, 2), ("7x7", "deep"), (False, True)))
RESNETS = [
    *(
        BackboneSpec(depth, width, stem=stem, avg_down=avg_down, stride_in_1x1=avg_down)
        for depth in (50, 101, 152)
        for width, stem, avg_down in VARIANTS
    ),
    *(
        BackboneSpec(depth, width, stem=stem, avg_down=avg_down)
        for depth in (18, 34)
        for width, stem, avg_down in VARIANTS
    ),
    *(
        BackboneSpec(depth, width, stem=stem, groups=groups, width_per_group=per_group)
        for depth, width, stem in itertools.product((50, 101), (1 / 4, 1), ("7x7", "deep"))
        for groups, per_group in ((32, 4), (64, 4), (32, 8), (1, 128))
    ),
    *(BackboneSpec(depth, width, 8, "3x3") for depth, width in itertools.product((18, 50), (1 / 64, 1))),
]


@pytest.mark.parametrize("spec", [*RESNETS, VitSpec(), VitSpec(32, 2, 1, 4, 8)], ids=str)
def test_backbones(spec: BackboneSpec | VitSpec) -> None:
    with torch.device("meta"):
        state = build_network(spec).state_dict()
    assert expected(spec) == entries(state)
    assert isinstance(spec, VitSpec) or list(expected(spec)) == list(state)


DENSE = ("fpn.p6.bias",)
HEADS = [(), ("head.conv1.weight",), ("head.conv1.weight", "head.norm1.weight")]


@pytest.mark.parametrize("spec", [BackboneSpec(50, 1 / 4), BackboneSpec(18, 1 / 4)], ids=["bottlenecks", "basic"])
@pytest.mark.parametrize("width", [16, 64, 256])
@pytest.mark.parametrize(
    "names", [*((*DENSE, *head) for head in HEADS), ("fpn.lateral2.norm.weight", "box.fc1.bias")], ids=str
)
def test_pyramid_and_head(names: tuple[str, ...], width: int, spec: BackboneSpec) -> None:
    extras = dict.fromkeys(names, torch.empty(width))
    with torch.device("meta"):
        state = pyramid_head_model.build(spec, extras).state_dict()
    assert expected(spec, extras) == entries(build_network(spec).state_dict()) | entries(state)

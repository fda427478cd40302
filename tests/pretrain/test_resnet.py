"""Kinds of backbone: where strides stand, which stem; the plain one is held to torchvision, the deep one to timm elsewhere."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from pretrain.models.backbone_spec import BackboneSpec
from pretrain.models.resnet import build_resnet


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


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"depth": 18}, "depth 18"),
        ({"output_stride": 4}, "output_stride 4"),
        ({"width": 0.3}, "width 0.3"),
        ({"stem": "3x3"}, "stem '3x3'"),
        ({"stem": "deep", "width": 1 / 64}, "stem 'deep' of width"),
    ],
)
def test_a_spec_that_cannot_be_built(fields, says):
    with pytest.raises(ValueError, match=says):
        BackboneSpec(**fields)

"""Sizes of images that networks by name take: other sizes than the usual one, and images that are not square."""

from __future__ import annotations

import pytest
import torch

from pixbench.errors import UserError
from pretrain.models.named_look import look, usual_size
from pretrain.models.named_network import NamedNetwork
from pretrain.models.named_sizes import check_size, needed_multiple
from pretrain.models.named_spec import NamedSpec

SMALL = {"embed_dim": 32, "depth": 4, "num_heads": 2, "patch_size": 16}
VIT = NamedSpec("timm:vit_tiny_patch16_224", SMALL | {"img_size": [128, 32]})
FIXED = NamedSpec(VIT.name, VIT.options | {"dynamic_img_size": False})
DINOV3 = NamedSpec("timm:vit_small_patch16_dinov3", SMALL | {"img_size": [64, 96]})
SWIN = NamedSpec(
    "timm:swin_tiny_patch4_window7_224",
    {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8], "window_size": 4, "img_size": [128, 64]},
)


@pytest.mark.parametrize("spec", [VIT, FIXED, DINOV3, SWIN], ids=lambda spec: spec.function)
def test_a_network_for_images_that_are_not_square_is_seen_with_such_an_image(spec: NamedSpec) -> None:
    height, width = spec.options["img_size"]
    assert usual_size(spec) == (height, width)
    seen, network = look(spec), NamedNetwork(spec).eval()
    for stage, found in network.forward_stages(torch.randn(1, 3, height, width)).items():
        assert found.shape[2:] == (height // seen.stages[stage].stride, width // seen.stages[stage].stride)
    check_size(spec, height, width)


def test_a_network_that_takes_one_size_takes_its_sides_in_their_order() -> None:
    assert needed_multiple(FIXED) is None
    with pytest.raises(UserError, match="does not take images of 32 × 128 pixels"):
        check_size(FIXED, 32, 128)
    assert needed_multiple(VIT) == 16


def test_the_usual_size_is_that_of_the_option_or_of_the_published_weights() -> None:
    assert usual_size(NamedSpec("timm:vit_small_patch14_dinov2")) == (518, 518)
    assert usual_size(NamedSpec("timm:vit_small_patch14_dinov2", {"img_size": 224})) == (224, 224)
    assert usual_size(NamedSpec("my_networks:net")) == (224, 224)


@pytest.mark.parametrize("size", [[64], [64, 64, 3], "64", 0, 64.0, [64, -64]])
def test_an_option_that_is_no_size_is_refused(size: object) -> None:
    with pytest.raises(UserError, match=r"img_size is .*; give my_networks:net a number of pixels"):
        usual_size(NamedSpec("my_networks:net", {"img_size": size}))

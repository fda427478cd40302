"""Which stage of a network by name a parameter belongs to, for learning rates by stage."""

from __future__ import annotations

import pytest

from pixbench.errors import UserError
from pretrain.models.named_spec import NamedSpec
from pretrain.models.named_stages import stage_places

TAKEN = {
    "regnety_002": ("stem.conv", "s1.b1.downsample", "s1.b1.conv1", "s4.b1.downsample", ""),
    "resnet50d": ("conv1", "layer1.0.downsample", "layer1.0.conv1", "layer4.2.conv3", ""),
    "resnetv2_50": ("stem.conv", "stages.0.blocks", "stages.0.blocks", "stages.3.blocks.0.downsample", ""),
    "convnext_atto": ("stem", "stages.0.blocks", "stages.0.blocks", "stages.3.blocks", "stages.3.downsample"),
    "swin_tiny_patch4_window7_224": (
        *("patch_embed", "layers.0.blocks", "layers.0.blocks", "layers.3.blocks", "layers.3.downsample"),
    ),
    "pvt_v2_b0": ("patch_embed", "stages.0.norm", "stages.0.blocks", "stages.3.norm", "stages.3.downsample"),
    "poolformer_s12": ("stem", "stages.0.blocks", "stages.0.blocks", "stages.3.blocks", "stages.3.downsample"),
    "nextvit_small": ("stem", "stages.0.blocks", "stages.0.blocks.0", "stages.3.blocks", ""),
    "cspresnet50": ("stem", "stages.0.conv_exp", "stages.0.blocks", "stages.3.conv_transition", "stages.3.conv_down"),
    "gcvit_xxtiny": ("stem", "stages.0.global_block", "stages.0.blocks", "stages.3.norm", "stages.3.downsample"),
    "coatnet_nano_rw_224": ("stem", "stages.0.blocks", "stages.0.blocks", "stages.3.blocks", ""),
    "repvit_m0_9": ("stem", "stages.0.blocks", "stages.0.blocks", "stages.3.blocks", "stages.3.downsample"),
}
"""Network -> beginnings of names in the stem, twice in stage 1, in stage 4, and of what begins stage 4 (if that is no block)."""
MORE = "davit_tiny inception_next_tiny edgenext_xx_small fastvit_t8 hgnetv2_b0 focalnet_tiny_srf maxvit_tiny_tf_224 vovnet39a"
REFUSED = {
    "efficientnet_b0": "blocks.3.0.conv_pw.weight, which is not part of the module blocks.4",  # two groups of stride 16
    "rdnet_tiny": "dense_stages.2.* which is not part of the module dense_stages.5",
    "densenet121": "transition1.* which is not part of the module features.denseblock2",
    "twins_svt_small": "which is not part of the module block.1",
    "mvitv2_tiny": "which is not part of the module block.1",
    "regnetz_b16": "stages.3.* which is not part of the module final_conv",
    "hrnet_w18_small": "no learning rates by stage: ",
    "levit_128": "declares no four stages of strides 4 to 32",
    "vit_tiny_patch16_224": "declares no four stages of strides 4 to 32",
}


@pytest.mark.parametrize("name", TAKEN)
def test_stages_are_the_modules_that_the_network_declares(name: str) -> None:
    """The stem and what begins a stage have the number 0; the shortcut of a block is part of its stage."""
    places = stage_places(NamedSpec(f"timm:{name}"))
    for start, place in zip(TAKEN[name], (0, 1, 1, 4, 0), strict=True):
        found = {number for key, number in places.items() if start and key.startswith(f"net.{start}.")}
        assert found == ({place} if start else set()), start
    assert {*places.values()} == {0, 1, 2, 3, 4}


@pytest.mark.e2e
@pytest.mark.parametrize("name", MORE.split())
def test_more_networks(name: str) -> None:
    places = stage_places(NamedSpec(f"timm:{name}"))
    for key, place in places.items():
        module, number = [*key.split("."), "", ""][1:3]
        begins = "downsample" in key.split(".")[3:4] or module not in ("stages", "layers")
        assert place == (0 if begins else int(number) + 1), key


@pytest.mark.parametrize("name", REFUSED)
def test_networks_without_such_stages_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=REFUSED[name]):
        stage_places(NamedSpec(f"timm:{name}"))


def test_a_network_of_ones_own_declares_no_stages() -> None:
    with pytest.raises(UserError, match="declares no four stages"):
        stage_places(NamedSpec("benchmarks.own_networks:Hierarchical"))

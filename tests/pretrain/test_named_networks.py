"""Backbones by name: timm's networks of every shape, and one's own."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from pixbench.errors import UserError
from pretrain.config import from_dict, parse
from pretrain.methods import METHODS
from pretrain.models.backbone_spec import BackboneSpec
from pretrain.models.families import build_backbone, map_stride
from pretrain.models.named_look import look
from pretrain.models.named_network import NamedNetwork
from pretrain.models.named_sizes import check_size
from pretrain.models.named_spec import NamedSpec
from pretrain.optim import lr_scales, parameter_groups
from pretrain.run import freeze, setup

VIT = NamedSpec(
    "timm:vit_tiny_patch16_224", {"img_size": 64, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2}
)
SWIN = NamedSpec(
    "timm:swin_tiny_patch4_window7_224",
    {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8], "window_size": 4, "img_size": 64},
)
CONVNEXT = NamedSpec("timm:convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]})
PVT = NamedSpec("timm:pvt_v2_b0", {"depths": [1, 1, 1, 1], "embed_dims": [8, 16, 24, 32], "num_heads": [1, 2, 3, 4]})
SHAPES = """vit_small_patch16_224 vit_small_patch16_dinov3 swin_tiny_patch4_window7_224 pvt_v2_b1 hiera_tiny_224
xcit_nano_12_p8_224 efficientnet_b0 resnet18 hrnet_w18_small poolformer_s12""".split()
"""Of each kind one: tokens with and without rotated positions, channels last, hierarchies, convolutions."""
MORE_SHAPES = """vit_base_patch16_224 vit_small_patch14_dinov2 vit_small_patch14_reg4_dinov2 convnext_tiny swinv2_tiny_window8_256
beit_base_patch16_224 eva02_tiny_patch14_224 deit3_small_patch16_224 mvitv2_tiny twins_svt_small cait_xxs24_224 maxvit_tiny_tf_224
focalnet_tiny_srf davit_tiny mobilenetv3_small_100 regnety_004 densenet121 resnet50d resnext50_32x4d resnetv2_50 nextvit_small
vgg11 volo_d1_224 samvit_base_patch16_224""".split()


@pytest.mark.parametrize("name", [*SHAPES, *(pytest.param(name, marks=pytest.mark.e2e) for name in MORE_SHAPES)])
def test_networks_of_timm_are_seen_without_their_weights(name: str) -> None:
    seen = look(NamedSpec(f"timm:{name}"))
    strides = [stage.stride for stage in seen.stages.values()]
    assert strides == sorted(strides)
    assert list(seen.stages)[-1] == seen.taken
    assert seen.behind[seen.taken]


@pytest.mark.parametrize("spec", [VIT, SWIN, CONVNEXT, PVT], ids=lambda spec: spec.function)
def test_maps_are_channels_first_and_as_declared(spec: NamedSpec) -> None:
    network = NamedNetwork(spec).eval()
    maps = network.forward_stages(torch.randn(2, 3, 64, 64))
    assert {name: x.shape[1] for name, x in maps.items()} == network.stage_channels
    assert {name: 64 // x.shape[2] for name, x in maps.items()} == network.stage_strides
    torch.testing.assert_close(
        network(torch.ones(2, 3, 64, 64)), network.forward_stages(torch.ones(2, 3, 64, 64))[network.taken]
    )
    assert (network.channels, network.stride) == (maps[network.taken].shape[1], map_stride(spec))


@pytest.mark.parametrize("spec", [VIT, SWIN, CONVNEXT, PVT], ids=lambda spec: spec.function)
def test_the_loss_reaches_every_trained_parameter_and_no_other(spec: NamedSpec) -> None:
    network = NamedNetwork(spec)
    network(torch.randn(2, 3, 64, 64)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert any(p.requires_grad for p in network.parameters())


def test_a_copy_runs_on_its_own_weights() -> None:
    """The momentum encoder is a copy."""
    network = NamedNetwork(VIT)
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert other(torch.randn(1, 3, 64, 64)).abs().max() == 0
    assert network(torch.randn(1, 3, 64, 64)).abs().max() > 0


def test_the_map_of_a_vit_is_its_patch_tokens_after_the_last_norm() -> None:
    network = NamedNetwork(VIT).eval()
    x = torch.randn(1, 3, 64, 64)
    tokens = network.net.forward_features(x)[:, 1:]
    torch.testing.assert_close(network(x).flatten(2).transpose(1, 2), tokens)


def test_positions_are_interpolated_for_other_sizes() -> None:
    assert NamedNetwork(VIT)(torch.randn(1, 3, 96, 96)).shape == (1, 32, 12, 12)
    check_size(VIT, 96, 96)
    fixed = NamedSpec("timm:beit_base_patch16_224")
    with pytest.raises(UserError, match=r"does not take images of 64 × 64 pixels.*img_size"):
        check_size(fixed, 64, 64)


def test_looking_does_not_change_the_random_state() -> None:
    before = torch.get_rng_state()
    look.__wrapped__(SWIN)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (
            NamedSpec("timm:vit_tini_patch16_224"),
            "no network 'vit_tini_patch16_224'; did you mean vit_tiny_patch16_224",
        ),
        (NamedSpec("timm:crossvit_tiny_240"), "14 × 14 cells.*not a whole number of pixels"),
        (NamedSpec("timm:resnet18", {"bla": 1}), "cannot be built with options.*bla"),
        (NamedSpec("timm:resnet18", {"pretrained": True}), "give init_from timm:resnet18"),
        (NamedSpec("timm:resnet18", output_stride=5), "no map of stride 5; choose.* 2, 4, 8, 16, 32"),
        (NamedSpec("no.such:network"), "no.such:network is not found"),
        (NamedSpec("timm:gemma4_vit_167m", {"depth": 1}), "cannot be measured, because it reads values"),
    ],
)
def test_what_is_wrong_with_a_name_is_said_in_one_sentence(spec: NamedSpec, says: str) -> None:
    with pytest.raises(UserError, match=says):
        look(spec)


OWN = """
from torch import nn

class Net(nn.Module):
    def __init__(self, width, strides, maps):
        super().__init__()
        self.channels, self.strides, self.maps = [width, 2 * width], strides, maps
        self.one, self.two = nn.Conv2d(3, width, 4, 4), nn.Conv2d(width, 2 * width, 2, 2)

    def forward(self, x):
        x = self.one(x)
        return [x, self.two(x)] if self.maps else self.two(x)

def net(width=4, strides=(4, 8), maps=True):
    return Net(width, strides, maps)

def bare():
    return nn.Conv2d(3, 4, 4, 4)

class Reads(Net):
    def forward(self, x):
        return super().forward(x * x.mean().item())

def reads_images():
    return Reads(4, (4, 8), True)

def reads_weights():
    network = net()
    network.scale = network.one.weight.std().item()
    return network

class Half(Net):
    def forward(self, x):
        return [x.half() for x in super().forward(x)]

def half():
    return Half(4, (4, 8), True)

class Empty(Net):
    def forward(self, x):
        return []

def empty():
    return Empty(4, (4, 8), True)

def detached():
    network = net()
    network.one.requires_grad_(False)
    network.two.requires_grad_(False)
    return network
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of one's own below the current folder."""
    (tmp_path / "my_networks.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_networks", raising=False)
    return "my_networks"


def test_a_network_of_ones_own(own: str) -> None:
    network = build_backbone(NamedSpec(f"{own}:net", {"width": 6}))
    assert network.stage_channels == {"layer1": 6, "layer2": 12}
    assert network(torch.randn(1, 3, 32, 32)).shape == (1, 12, 4, 4)
    assert build_backbone(NamedSpec(f"{own}:net", output_stride=4)).channels == 4


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("bare", {}, "with the attributes channels and strides"),
        ("net", {"strides": [4, 16]}, r"declares channels \[4, 8\] and strides \[4, 16\].*correct these attributes"),
        ("net", {"strides": [4, 8, 16]}, r"declares channels \[4, 8\] and strides \[4, 8, 16\]"),
        ("net", {"maps": False}, "must return a list of maps"),
        ("empty", {}, "must return a list of maps"),
        ("half", {}, "gives maps of float16; they must be of float32"),
        ("other", {}, "is not found"),
    ],
)
def test_a_network_that_breaks_the_contract(own: str, name: str, options: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        look(NamedSpec(f"{own}:{name}", options))


@pytest.mark.parametrize("name", ["reads_images", "reads_weights"])
def test_a_network_that_reads_values_cannot_be_measured(own: str, name: str) -> None:
    with pytest.raises(
        UserError, match=r"cannot be measured, .*reads values, .*\(RuntimeError: Tensor.item\(\) cannot be"
    ):
        look(NamedSpec(f"{own}:{name}"))


def test_a_network_without_a_gradient_is_refused(own: str) -> None:
    """Its maps would stay as they are, and the loss would fall all the same, because the heads learn."""
    with pytest.raises(UserError, match=r"depend on none of its parameters, .* such as detach\(\)"):
        freeze(build_backbone(NamedSpec(f"{own}:detached")), [])


def test_what_is_frozen_stays_so_in_methods_that_take_several_maps(
    image_tree: Callable[..., Path], tmp_path: Path
) -> None:
    run = setup(
        parse(
            [
                *(
                    "--method.name=cds",
                    "--method.classes=2",
                    f"--data.root={image_tree(2, 4)}",
                    f"--out={tmp_path / 'run'}",
                ),
                *("--backbone.name", CONVNEXT.name, "--backbone.options", json.dumps(CONVNEXT.options)),
                *(
                    "--freeze=[net.stem]",
                    "--batch_size=4",
                    "--data.image_size=64",
                    "--precision=fp32",
                    "--schedule.warmup_epochs=0",
                ),
            ]
        ),
        torch.device("cpu"),
    )
    learning = {name.split(".")[1] for name, x in run.method.backbone.named_parameters() if x.requires_grad}
    assert learning == {"stages"}


def test_a_name_begins_the_description_of_a_backbone_anew(tmp_path: Path) -> None:
    """What mini.yaml says of a ResNet is not for another network, wherever that is named."""
    named = tmp_path / "named.yaml"
    named.write_text("backbone: {name: timm:convnext_atto, output_stride: 16}")
    files = ["--config", "configs/pretrain/pixpro_100ep.yaml", "--config", "configs/pretrain/mini.yaml"]
    assert parse(files).backbone == BackboneSpec(width=0.25, output_stride=16)
    assert parse([*files, "--config", str(named)]).backbone == NamedSpec("timm:convnext_atto", {}, 16)
    assert parse([*files, "--backbone.name", "timm:resnet18"]).backbone == NamedSpec("timm:resnet18")
    assert parse([*files, "--config", str(named), "--backbone.name", "resnet"]).backbone == BackboneSpec(
        width=0.25, output_stride=16
    )
    config = parse([*files, "--backbone.name", VIT.name, "--backbone.options", "{depth: 4}"])
    assert from_dict(config.as_dict()) == config
    with pytest.raises(UserError, match="depth"):
        parse([*files, "--backbone.name", VIT.name, "--backbone.depth", "18"])
    with pytest.raises(UserError, match="give resnet, timm:NAME"):
        parse([*files, "--backbone.name", "vit"])


def test_layers_decay_from_the_last_to_the_first() -> None:
    method = METHODS["supervised"](NamedNetwork(VIT), METHODS["supervised"].Config(classes=3), 1)
    scales = lr_scales(method, 0.5)
    assert scales["backbone.net.norm.weight"] == scales["backbone.net.blocks.3.norm1.weight"] == 0.5
    assert scales["backbone.net.blocks.2.norm1.weight"] == 0.25
    assert scales["backbone.net.patch_embed.proj.weight"] == 0.5**5
    groups = parameter_groups(method, 0.1, 0.5)
    assert sum(len(group["params"]) for group in groups) == len([p for p in method.parameters() if p.requires_grad])
    assert {group["lr_scale"] for group in groups} == {*scales.values(), 1.0}


def test_what_is_no_block_belongs_to_the_layer_at_which_it_acts() -> None:
    """Learnt rotary frequencies act in the first block; the norm before a classifier that is not there, in none."""
    mixed = NamedNetwork(NamedSpec("timm:vit_small_patch16_rope_mixed_224", VIT.options)).layer_groups()
    assert "net.rope.freqs" in mixed[0]
    assert len(mixed) == 5
    convnext = NamedNetwork(CONVNEXT)
    layers = convnext.layer_groups()
    assert "net.stages.3.blocks.0.norm.weight" in layers[-1]
    assert "net.head.norm.weight" in dict(convnext.named_parameters())
    assert not any(name.startswith("net.head.") for names in layers for name in names)


def test_layers_of_a_resnet_are_its_blocks() -> None:
    network = build_backbone(BackboneSpec(18, 0.25))
    groups = network.layer_groups()
    assert [group[0] for group in groups][:3] == ["conv1.weight", "layer1.0.conv1.weight", "layer1.1.conv1.weight"]
    assert sorted(name for group in groups for name in group) == sorted(name for name, _ in network.named_parameters())


@pytest.mark.parametrize("name", ["pixpro_fpn", "pixpro_fpn_head", "cds"])
def test_methods_that_need_a_hierarchy_take_one_and_refuse_a_vit(name: str) -> None:
    settings = METHODS[name].Config(**({"classes": 3} if name == "cds" else {"hidden": 8, "dim": 8, "channels": 32}))
    METHODS[name](NamedNetwork(CONVNEXT), settings, 1)
    with pytest.raises(
        UserError,
        match=r"needs maps of several strides \(.*8, 16, 32 pixels\), but this backbone has maps of stride 8 only",
    ):
        METHODS[name](NamedNetwork(VIT), settings, 1)


def test_activation_checkpointing_changes_no_gradient() -> None:
    network = NamedNetwork(VIT)
    other = copy.deepcopy(network)
    other.keep_inputs_only()
    x = torch.randn(1, 3, 64, 64)
    for each in (network, other):
        each(x).square().sum().backward()
    for one, two in zip(network.parameters(), other.parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(one.grad, two.grad)


def test_every_network_of_timm_has_what_we_ask_of_it() -> None:
    """If a new timm drops this, backbones by name break."""
    for name in ("vit_tiny_patch16_224", "convnext_atto", "swin_tiny_patch4_window7_224"):
        with torch.device("meta"):
            assert isinstance(network := timm.create_model(name), nn.Module)
        assert hasattr(network, "forward_intermediates")
        assert hasattr(network, "feature_info")

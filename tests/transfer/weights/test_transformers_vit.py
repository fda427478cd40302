"""ViTs of `transformers`: its classes load our files and compute the same, we read its files; other networks are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pixbench.errors import UserError
from pretrain.models.named_network import NamedNetwork
from pretrain.models.named_spec import NamedSpec
from transfer.weights import Backbone, express, load, read, save
from transfer.weights.conversion import convert
from transfer.weights.file_format import formats
from transfer.weights.models.parity import verify

transformers = pytest.importorskip("transformers")

TINY: dict[str, Any] = {"embed_dim": 48, "depth": 4, "num_heads": 3}
NETWORKS = {
    "vit": NamedSpec("timm:vit_tiny_patch16_224", TINY | {"img_size": 48}),
    "dinov2": NamedSpec("timm:vit_small_patch14_dinov2", TINY | {"img_size": 42}),
    "dinov2 gated": NamedSpec("timm:vit_giant_patch14_dinov2", TINY | {"img_size": 42}),
    "dinov2_with_registers": NamedSpec("timm:vit_small_patch14_reg4_dinov2", TINY | {"img_size": 42}),
    "dinov3_vit": NamedSpec("timm:vit_small_patch16_dinov3_qkvb", TINY | {"img_size": 48}),
    "dinov3_vit gated": NamedSpec("timm:vit_small_plus_patch16_dinov3", TINY | {"img_size": 48}),
}


def randomised(spec: NamedSpec) -> Backbone:
    torch.manual_seed(0)
    network = NamedNetwork(spec)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return Backbone(spec, network.state_dict(), "it")


def checkpoint(spec: NamedSpec, path: Path) -> Backbone:
    save(backbone := randomised(spec), path, "timm")
    return backbone


@pytest.mark.parametrize("kind", NETWORKS)
def test_transformers_own_class_computes_the_same(kind: str, tmp_path: Path) -> None:
    spec = NETWORKS[kind]
    backbone = checkpoint(spec, tmp_path / "timm.safetensors")
    done = convert(tmp_path / "timm.safetensors", tmp_path / "it" / "model.safetensors", "huggingface")
    assert done.parity is not None
    assert len(done.parity.stages) == 4
    assert json.loads((tmp_path / "it" / "config.json").read_text())["model_type"] == kind.partition(" ")[0]
    held: dict[str, Any] = {"transformers": transformers}
    exec(done.usage, held)
    network = NamedNetwork(spec).eval()
    network.load_state_dict(backbone.state)
    images = torch.randn(2, 3, *[spec.options["img_size"]] * 2)
    with torch.no_grad():
        theirs = held["model"].eval()(pixel_values=images).last_hidden_state[:, -9:]
        torch.testing.assert_close(network(images).flatten(2).transpose(1, 2), theirs, rtol=1e-4, atol=1e-5)
    auto, info = transformers.AutoModel.from_pretrained(tmp_path / "it", output_loading_info=True)
    assert type(auto) is type(held["model"])
    assert {key for key in info["missing_keys"] if not key.startswith("pooler.")} == set()
    assert not info["unexpected_keys"]


@pytest.mark.parametrize("kind", NETWORKS)
def test_and_back(kind: str, tmp_path: Path) -> None:
    """By what PixBench wrote into the file, and without that by config.json alone."""
    backbone = checkpoint(NETWORKS[kind], tmp_path / "timm.safetensors")
    save(backbone, tmp_path / "it" / "model.safetensors", "huggingface")
    found = read(tmp_path / "it")
    assert (found.format, found.backbone.spec) == ("huggingface_vit", backbone.spec)
    assert all(torch.equal(found.backbone.state[name], x) for name, x in backbone.state.items())
    assert verify(backbone, tmp_path / "it" / "model.safetensors").ok
    transformers.AutoModel.from_pretrained(tmp_path / "it").save_pretrained(tmp_path / "theirs")
    again = load(tmp_path / "theirs")
    assert all(torch.equal(again.state[name], x) for name, x in backbone.state.items())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DINOv3 as `transformers` writes it."""
    path = tmp_path_factory.mktemp("dinov3")
    config = transformers.DINOv3ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128, num_register_tokens=4
    )
    transformers.DINOv3ViTModel(config).save_pretrained(path)
    return path


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"key_bias": True}, r"has key_bias True in its config\.json, where timm's network has False"),
        ({"hidden_act": "relu"}, "has hidden_act 'relu'"),
        ({"hidden_act": "silu"}, "has hidden_act 'silu' .* where timm's network has 'gelu'"),
        ({"layer_norm_eps": 1e-6}, "has layer_norm_eps 1e-06 .* has 1e-05"),
        ({"rope_theta": 10}, "has rope_theta 10 "),
        ({"num_attention_heads": 5}, "no valid num_attention_heads"),
        ({"num_hidden_layers": 3}, "has num_hidden_layers 3 .* but its weights have 2"),
        ({"num_register_tokens": 0}, "has num_register_tokens 0 .* but its weights have 4"),
        ({"model_type": "beit"}, "of no known format"),
    ],
)
def test_a_config_that_declares_another_network(folder: Path, changes: dict, says: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(UserError, match=says):
        load(tmp_path)


def test_pixels_and_heads_are_those_that_are_declared(folder: Path, tmp_path: Path) -> None:
    found = read(folder)
    assert "those of ImageNet, but DINOv3's networks for satellite images" in " ".join(found.notes)
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text().replace('_heads": 2', '_heads": 4'))
    images = {"image_mean": [0.43, 0.411, 0.296], "image_std": [0.213, 0.156, 0.143]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(images))
    other = read(tmp_path)
    assert other.backbone.spec.as_dict()["options"] == found.backbone.spec.as_dict()["options"] | {"num_heads": 4}
    assert other.backbone.pixels == formats()["dinov3_sat"].pixels
    assert not other.notes


def test_without_its_config_a_vit_needs_its_name(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").symlink_to(folder / "model.safetensors")
    with pytest.raises(UserError, match="of no known format"):
        load(tmp_path / "weights.safetensors")


def test_the_folder_of_the_output_is_its_own(tmp_path: Path) -> None:
    backbone = randomised(NETWORKS["vit"])
    with pytest.raises(UserError, match=r"reads a config\.json beside the weights, and these as model\.safetensors"):
        save(backbone, tmp_path / "vit.safetensors", "huggingface")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="exists and describes something else"):
        save(backbone, tmp_path / "model.safetensors", "huggingface")
    (tmp_path / "config.json").unlink()
    for _ in range(2):  # the same network may be written again
        save(backbone, tmp_path / "model.safetensors", "huggingface")


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("convnext_atto", {}, "transformers has ViT, DINOv2 and DINOv3"),
        ("vit_tiny_patch16_224", {"depth": 1, "act_layer": "gelu_tanh"}, "its activation is GELUTanh"),
        ("vit_tiny_patch16_224", {"depth": 1, "qk_norm": True}, "q_norm.weight has no place in a vit of transformers"),
        ("vit_tiny_patch16_224", {"depth": 1, "reg_tokens": 4}, "transformers has ViT, DINOv2 and DINOv3"),
        ("vit_small_patch16_rope_224", {"depth": 1}, "its positions are not those of DINOv3"),
        ("vit_small_patch14_dinov2", {"depth": 1, "mlp_ratio": 3.5}, "its MLPs are 1344 wide"),
    ],
)
def test_networks_that_transformers_does_not_have(name: str, options: dict, says: str) -> None:
    spec = NamedSpec(f"timm:{name}", options)
    with torch.device("meta"):
        state = NamedNetwork(spec).state_dict()
    with pytest.raises(UserError, match=says):
        express(Backbone(spec, state, "it"), "huggingface")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"global_pool": "avg"}, "it has no norm after its last block"),
        ({"norm_layer": "rmsnorm"}, "its norms are RmsNorm"),
        ({"proj_bias": False}, "its projections have no bias"),
    ],
)
def test_what_transformers_has_not_is_said_before_anything_is_written(options: dict, says: str) -> None:
    spec = NETWORKS["vit"]
    with pytest.raises(UserError, match=says):
        express(randomised(NamedSpec(spec.name, spec.options | options)), "huggingface")

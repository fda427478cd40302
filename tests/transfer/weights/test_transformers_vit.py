"""Files for ViTs of `transformers`: its own classes load them and compute the same; networks that it does not have are refused."""

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
from transfer.weights import Backbone, load, read, save
from transfer.weights.conversion import convert
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

"""Networks that the user names: files of their authors and of `transformers`, compared with `transformers`' own networks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pixbench.errors import UserError
from transfer.weights import load, read
from transfer.weights.conversion import convert
from transfer.weights.models.networks import build_network

transformers = pytest.importorskip("transformers")

SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
OPTIONS = "{embed_dim: 32, depth: 2, num_heads: 2}"


def randomised(model: nn.Module) -> nn.Module:
    """Return the model in eval mode with weights of which none is as it was initialised."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


def tokens_of(path: Path, words: str, images: Tensor) -> Tensor:
    """The patch tokens (B, N, C) of our network with the weights in ``path``."""
    backbone = load(path, format_name=words)
    network: Any = build_network(backbone.spec).eval()
    network.load_state_dict(backbone.state)
    return network(images).flatten(2).transpose(1, 2)


def dinov2(registers: int) -> tuple[Any, str]:
    kind = "Dinov2WithRegisters" if registers else "Dinov2"
    more = {"num_register_tokens": registers} if registers else {}
    config = getattr(transformers, f"{kind}Config")(image_size=42, patch_size=14, **SMALL, **more)
    name = "vit_small_patch14_reg4_dinov2" if registers else "vit_small_patch14_dinov2"
    return randomised(getattr(transformers, f"{kind}Model")(config)), f"timm:{name} {OPTIONS}"


def dinov3() -> tuple[Any, str]:
    config = transformers.DINOv3ViTConfig(
        image_size=48, patch_size=16, intermediate_size=128, num_register_tokens=4, key_bias=False, **SMALL
    )
    return randomised(transformers.DINOv3ViTModel(config)), f"timm:vit_small_patch16_dinov3_qkvb {OPTIONS}"


def vit() -> tuple[Any, str]:
    config = transformers.ViTConfig(image_size=48, patch_size=16, intermediate_size=128, layer_norm_eps=1e-6, **SMALL)
    return randomised(transformers.ViTModel(config, add_pooling_layer=False)), f"timm:vit_small_patch16_224 {OPTIONS}"


KINDS = {"dinov2": lambda: dinov2(0), "dinov2 registers": lambda: dinov2(4), "dinov3": dinov3, "vit": vit}


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_transformers(kind: str, tmp_path: Path) -> None:
    model, words = KINDS[kind]()
    model.save_pretrained(tmp_path)
    images = torch.randn(1, 3, *((42, 42) if kind.startswith("dinov2") else (48, 48)))
    with torch.no_grad():
        theirs = model(pixel_values=images).last_hidden_state[:, -9:]
        found = tokens_of(tmp_path / "model.safetensors", words, images)
        torch.testing.assert_close(found, theirs, rtol=1e-4, atol=1e-4)


def authors_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of transformers' DINOv2 by Meta's names; written without the code that is tested."""
    made = {}
    for name, tensor in state.items():
        name = name.replace("embeddings.position_embeddings", "pos_embed").replace("layernorm.", "norm.")
        name = name.replace("embeddings.patch_embeddings.projection", "patch_embed.proj")
        name = name.replace("embeddings.", "").replace("encoder.layer.", "blocks.").replace(".lambda1", ".gamma")
        name = name.replace("layer_scale", "ls").replace("attention.output.dense", "attn.proj")
        made[name] = tensor
    for name in [name for name in made if ".attention.attention.query." in name]:
        parts = [made.pop(name.replace("query", part)) for part in ("query", "key", "value")]
        made[name.replace("attention.attention.query", "attn.qkv")] = torch.cat(parts)
    return made


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("prefix", ["", "teacher.backbone."])
def test_files_of_dinov2s_authors(registers: int, prefix: str, tmp_path: Path) -> None:
    model, words = dinov2(registers)
    model.save_pretrained(tmp_path)
    names = authors_names(load_file(tmp_path / "model.safetensors"))
    torch.save({"model": {prefix + name: x for name, x in names.items()}, "iteration": 3}, tmp_path / "it.pth")
    images = torch.randn(1, 3, 42, 42)
    with torch.no_grad():
        theirs = model(pixel_values=images).last_hidden_state[:, -9:]
        torch.testing.assert_close(tokens_of(tmp_path / "it.pth", words, images), theirs, rtol=1e-4, atol=1e-4)
    found = read(tmp_path / "it.pth", format_name=words)
    assert found.dropped == {"no part of timm's network": ["mask_token"]}
    assert ("cls_token was computed" in " ".join(found.notes)) == bool(registers)
    done = convert(tmp_path / "it.pth", tmp_path / "out.safetensors", "timm", format_name=words)
    assert done.parity is not None
    assert done.parity.ok


def test_student_and_teacher_are_chosen_by_their_prefix(tmp_path: Path) -> None:
    names = timm.create_model("vit_tiny_patch16_224", embed_dim=32, depth=2, num_heads=2).state_dict()
    both = {f"{who}.{name}": x + (who == "teacher") for who in ("student", "teacher") for name, x in names.items()}
    torch.save(both, tmp_path / "both.pth")
    words = f"timm:vit_tiny_patch16_224 {OPTIONS}"
    with pytest.raises(UserError, match=r"several times.*--prefix student\..*--prefix teacher\."):
        load(tmp_path / "both.pth", format_name=words)
    chosen = read(tmp_path / "both.pth", format_name=words, prefix="teacher")
    assert torch.equal(chosen.backbone.state["net.norm.weight"], names["norm.weight"] + 1)
    assert {reason: len(keys) for reason, keys in chosen.dropped.items()} == {
        "beside the backbone": len(names), "classifier": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("timm:vit_tiny_patch16_224 {embed_dim: 32, depth: 3, num_heads: 2}", r"missing \(net.blocks.2"),
        ("timm:vit_tiny_patch16_224 {embed_dim: 32, depth: 1, num_heads: 2}", r"unexpected \(net.blocks.1"),
        (
            "timm:vit_tiny_patch16_224 {embed_dim: 48, depth: 2, num_heads: 2}",
            r"is \(1, 1, 32\), but should be \(1, 1, 48\), and 29 more tensors differ",
        ),
        ("timm:vit_tiny_patch16_224 {embed_dim: 32, depth: 2, num_heads: 2, patch_size: 8}", "timm would resize"),
        (
            "timm:vit_tiny_patch16_224 {embed_dim: 32, depth: 2, num_heads: 2, img_size: 96}",
            "timm would resize pos_embed",
        ),
        ("timm:resnet18", "does not hold a valid|no weights with names"),
        ("timm:vit_tiny_patch16_224 {a", "--from timm"),
        ("my:network", "only networks of timm"),
    ],
)
def test_another_network_than_the_one_in_the_file(words: str, says: str, tmp_path: Path) -> None:
    names = timm.create_model("vit_tiny_patch16_224", embed_dim=32, depth=2, num_heads=2, num_classes=0).state_dict()
    torch.save(names, tmp_path / "it.pth")
    with pytest.raises(UserError, match=says) as error:
        load(tmp_path / "it.pth", format_name=words)
    assert not re.search(r"\n", str(error.value))


def test_biases_that_the_network_lacks_are_not_lost(tmp_path: Path) -> None:
    """Timm's DINOv3 exists with and without biases; its reader would leave them out of the latter without a word."""
    model, words = dinov3()
    model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"holds biases that .* does not have"):
        load(tmp_path / "model.safetensors", format_name=words.replace("_qkvb", ""))


@pytest.mark.parametrize("prefix", ["", "module.backbone."])
def test_a_convnext_of_its_authors(prefix: str, tmp_path: Path) -> None:
    """facebookresearch/ConvNeXt and DINOv3, models/convnext.py: none of its names is one of timm's."""
    name, options = "timm:convnext_tiny", "{depths: [1, 1, 2, 1], dims: [8, 16, 24, 32]}"
    ours = randomised(timm.create_model("convnext_tiny", num_classes=0, depths=[1, 1, 2, 1], dims=[8, 16, 24, 32]))
    theirs = {}
    for key, x in ours.state_dict().items():
        key = re.sub(
            r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1.", key.replace("stem.", "downsample_layers.0.")
        )
        key = re.sub(r"^stages\.(\d)\.blocks\.", r"stages.\1.", key).replace("conv_dw", "dwconv")
        theirs[prefix + key.replace("mlp.fc", "pwconv").replace("head.norm", "norm")] = x
    theirs |= {f"{prefix}norms.3.weight": torch.ones(32), **({"head.weight": torch.ones(2)} if prefix else {})}
    torch.save({"model": theirs}, tmp_path / "it.pth")
    found = read(tmp_path / "it.pth", format_name=f"{name} {options}")
    assert found.backbone.state.keys() == {f"net.{key}" for key in ours.state_dict()}
    assert all(torch.equal(found.backbone.state[f"net.{key}"], x) for key, x in ours.state_dict().items())
    with pytest.raises(UserError, match=r"of no known format.*(?s:.)*--from timm:"):
        load(tmp_path / "it.pth")

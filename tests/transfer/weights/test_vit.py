"""ViT backbones: each framework they are published in, timm's model as the judge of ours, and the file for ViTDet."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pixbench.errors import UserError
from transfer.weights import Backbone, infer_spec, inspection, read
from transfer.weights.file_format import formats
from transfer.weights.models.networks import build_network
from transfer.weights.models.parity import compare, probe
from transfer.weights.vit_spec import VitSpec
from transfer.weights.write_file import write

SPEC = VitSpec(64, 2, 1, 16, 64)
State = dict[str, Tensor]


def behind(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.fixture
def vit(backbone_of: Callable[[VitSpec], Backbone]) -> State:
    """A whole ViT as timm, DINO, iBOT and MAE save it: with class token and last norm."""
    ends = {"cls_token": torch.ones(1, 1, 64), "norm.weight": torch.ones(64), "norm.bias": torch.zeros(64)}
    return backbone_of(SPEC).state | ends


def content_of(name: str, vit: State) -> dict:
    one = torch.ones(2)
    head = {"head.mlp.0.weight": one, "head.last_layer.weight_g": one}
    rest = {"optimizer": {"state": {0: {"exp_avg": one}}}, "epoch": 5, "args": argparse.Namespace(arch="vit_small")}
    student = {"masked_embed": one} if name == "ibot" else {}
    loss = {"ibot_loss": {"center": one, "center2": one}} if name == "ibot" else {"dino_loss": {"center": one}}
    other = {key: tensor + 1 for key, tensor in vit.items()}
    lightly = {"student_projection_head.last_layer.weight_g": one, "criterion.center": one}
    return {
        "lightly_vit": {"state_dict": behind("backbone.vit.", vit) | {"decoder_embed.weight": one}},
        "lightly_vit_teacher": {
            "state_dict": behind("student_backbone.vit.", vit) | behind("backbone.vit.", other) | lightly
        },
        "vit": vit | {"head.weight": one, "head.bias": one},
        "mae": {
            "model": vit | {"mask_token": one, "decoder_embed.weight": one, "decoder_blocks.0.norm1.bias": one},
            **rest,
        },
        "detectron2_vitdet": {
            "model": behind("backbone.net.", {k: vit[k] for k in vit if "cls" not in k and "norm." not in k})
        },
    }.get(name) or {
        "student": behind("module.backbone.", vit | student) | behind("module.", head),
        "teacher": behind("backbone.", other) | head,
        **loss,
        **rest,
    }


FORMATS = sorted(name for name, kind in formats().items() if "vit" in kind.naming and "heads" not in kind.backbone)


@pytest.mark.parametrize("name", FORMATS)
def test_every_layout_gives_the_backbone_back(tmp_path: Path, vit: State, backbone_of, name: str) -> None:
    path = tmp_path / "x.pth"
    torch.save(content_of(name, vit), path)
    for number, branch in enumerate(formats()[name].branches):
        reading = read(path, branch)
        assert (reading.format, reading.backbone.spec) == (name, SPEC)
        assert all(torch.equal(reading.backbone.state[n], t + number) for n, t in backbone_of(SPEC).state.items())
        assert reading.counts.initialised == {}
    assert "backbone ViT of width 64, depth 2, patches of 16" in inspection.report(inspection.inspect(path))


def test_the_last_norm_is_kept_beside_the_backbone(tmp_path: Path, vit: State) -> None:
    """Of the branch that is read, wherever a format puts it. Conversion leaves it out, because ViTDet has none."""
    norm = {"norm.weight": torch.arange(64.0), "norm.bias": torch.arange(64.0) - 9}
    path = tmp_path / "x.pth"
    for name in FORMATS:
        torch.save(content_of(name, vit | norm), path)
        for number, branch in enumerate(formats()[name].branches):
            found = read(path, branch).backbone
            wanted = {} if name == "detectron2_vitdet" else {n.partition(".")[2]: t + number for n, t in norm.items()}
            assert found.last_norm.keys() == wanted.keys()
            assert all(torch.equal(tensor, wanted[leaf]) for leaf, tensor in found.last_norm.items())
    torch.save(vit | {"norm.weight": torch.ones(64), "norm.bias": torch.ones(32)}, path)
    with pytest.raises(
        UserError, match=r"the last norm in \S+ \(norm.weight, norm.bias\) is not the weight and bias of 64"
    ):
        read(path)
    write(read_of(path, vit | norm), tmp_path / "y.pkl", "detectron2_vitdet")
    assert read(tmp_path / "y.pkl").backbone.last_norm == {}


def read_of(path: Path, content: State) -> Backbone:
    torch.save(content, path)
    return read(path).backbone


def test_what_is_no_plain_vit_is_refused(tmp_path: Path, vit: State) -> None:
    path = tmp_path / "x.pth"
    torch.save(vit | {"blocks.0.gamma_1": torch.ones(64)}, path)
    with pytest.raises(UserError, match=r"1 unknown \(blocks\.0\.gamma_1\)"):
        read(path)
    torch.save(vit | {"pos_embed": torch.ones(1, 19, 64)}, path)
    with pytest.raises(UserError, match="no plain ViT with learnt positions of a square image"):
        read(path)


@pytest.mark.parametrize(("width", "heads"), [(192, 3), (384, 6), (768, 12), (1024, 16), (1280, 16)])
def test_heads_of_the_published_sizes(width: int, heads: int) -> None:
    with torch.device("meta"):
        state = build_network(VitSpec(width, 1, heads, 14, 224)).state_dict()
    assert infer_spec(state) == VitSpec(width, 1, heads, 14, 224)


def test_a_checkpoint_of_moco_v3_says_that_it_has_12_heads(tmp_path: Path, backbone_of) -> None:
    spec = VitSpec(384, 1, 12, 16, 32)
    state = backbone_of(spec).state
    state["pos_embed"] = torch.cat([torch.zeros(1, 1, 384), state["pos_embed"][:, 1:]], 1)
    both = behind("module.base_encoder.", state) | behind("module.momentum_encoder.", state)
    torch.save({"arch": "vit_small", "state_dict": both}, tmp_path / "x.pth")
    found = read(tmp_path / "x.pth")
    assert (found.format, found.backbone.spec) == ("moco_v3_vit", spec)
    torch.save({"state_dict": behind("module.base_encoder.", backbone_of(SPEC).state)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="a ViT of width 64; a MoCo v3 checkpoint of a ViT has the width 384 or 768"):
        read(tmp_path / "x.pth")


@pytest.mark.parametrize("spec", [SPEC, VitSpec(384, 2, 12, 16, 64)], ids=["", "MoCo v3"])
def test_timms_vit_computes_the_same(backbone_of, spec: VitSpec) -> None:
    from timm.models.vision_transformer import VisionTransformer

    backbone, images = backbone_of(spec), probe()[..., :64, :64]
    theirs = VisionTransformer(
        img_size=64,
        embed_dim=spec.width,
        depth=2,
        num_heads=spec.heads,
        num_classes=0,
        class_token=False,
        global_pool="",
    ).eval()
    state = backbone.state | {"pos_embed": backbone.state["pos_embed"][:, 1:]}
    result = theirs.load_state_dict(state, strict=False)
    assert (result.missing_keys, result.unexpected_keys) == (["norm.weight", "norm.bias"], [])
    ours = build_network(spec).eval()
    ours.load_state_dict(backbone.state)
    with torch.no_grad():
        found, wanted = theirs.get_intermediate_layers(images, n=1)[0], ours.forward_stages(images)["block 2"]
    assert compare(found, wanted.flatten(1, 2)).ok

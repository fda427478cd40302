"""Plain backbones by name in ViTDet: their windows are ViTDet's, what else is set, what is refused."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from detectron2.modeling import build_model
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.vit import SimpleFeaturePyramid, ViT
from torch import Tensor, nn

from pixbench.errors import UserError
from pretrain.models.named_network import NamedNetwork
from pretrain.models.named_spec import NamedSpec
from transfer.detection import vitdet
from transfer.detection.config import backbone_spec, build_config, departures, fitted
from transfer.detection.named_vitdet import NET, parts, spread
from transfer.detection.plain_network import FEATURE, PlainNetwork
from transfer.initial_weights import random_backbone
from transfer.job import TransferJob
from transfer.protocols import find_protocol
from transfer.weights import Backbone, load_into
from transfer.weights.vit_spec import VitSpec

pytestmark = pytest.mark.frameworks

SIDE = 128
SMALL = {"img_size": SIDE, "patch_size": 16, "embed_dim": 32, "depth": 4, "num_heads": 2}
VIT = NamedSpec("timm:vit_tiny_patch16_224", SMALL)
DINOV2 = NamedSpec("timm:vit_giant_patch14_reg4_dinov2", SMALL | {"patch_size": 14, "img_size": 112})
DINOV3 = NamedSpec("timm:vit_small_patch16_dinov3", SMALL)
EVA02 = NamedSpec("timm:eva02_tiny_patch14_224", SMALL)
MIXED = NamedSpec("timm:vit_small_patch16_rope_mixed_224", SMALL)
CONVNEXT = NamedSpec("timm:convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]})
OWN = """
import torch
class Net(torch.nn.Sequential):
    channels, strides = [8], [16]
    def forward(self, x):
        return [super().forward(x)]
def net():
    return Net(torch.nn.Conv2d(3, 8, 16, 16), torch.nn.BatchNorm2d(8))
"""


def job(root: Path, **more: Any) -> TransferJob:
    return TransferJob(find_protocol("coco_vitdet"), root, **{"out": root / "run", "scale": "mini", **more})


def lively(spec: NamedSpec) -> Backbone:
    """A backbone in which no weight is as it was initialised: layer scales, norms, tokens, positions."""
    torch.manual_seed(0)
    network = NamedNetwork(spec).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return Backbone(spec, network.state_dict(), "it")


def maps(backbone: Backbone, images: Tensor, side: int = 0, blocks: Any = ()) -> Tensor:
    spec: Any = backbone.spec
    network = PlainNetwork(spec.name, json.dumps(spec.options), window_size=side, window_block_indexes=blocks).eval()
    network.load_state_dict(backbone.state)
    found = network(images)
    assert torch.equal(found[FEATURE], network.forward_stages(images)["block " + str(len(network.net.blocks))])
    return found[FEATURE]


def own_maps(backbone: Backbone, images: Tensor) -> Tensor:
    network = NamedNetwork(backbone.pretrainable).eval()  # type: ignore[arg-type]
    network.load_state_dict(backbone.state)
    return network(images)


@pytest.mark.parametrize("spec", [VIT, DINOV2, DINOV3, EVA02, MIXED], ids=lambda spec: spec.function)
@torch.no_grad()
def test_without_windows_and_in_one_window_the_maps_are_those_of_the_network(spec: NamedSpec) -> None:
    backbone, images = lively(spec), torch.randn(2, 3, *(spec.options["img_size"],) * 2)
    wanted = own_maps(backbone, images)
    assert torch.equal(maps(backbone, images), wanted)
    torch.testing.assert_close(maps(backbone, images, 8, range(4)), wanted)
    assert not torch.allclose(maps(backbone, images, 4, [0, 2]), wanted)


@pytest.mark.parametrize("spec", [DINOV3, EVA02, MIXED], ids=lambda spec: spec.function)
@torch.no_grad()
def test_a_window_is_computed_as_an_image_of_its_size(spec: NamedSpec) -> None:
    """In one block, so that the tokens of other windows have no part, and with no positions but the rotary ones."""
    alone = replace(spec, options=spec.options | {"depth": 1, "use_abs_pos_emb": False})
    backbone, images, side = lively(alone), torch.randn(2, 3, SIDE, SIDE), SIDE // 2
    quarters = [own_maps(backbone, x) for row in images.split(side, 2) for x in row.split(side, 3)]
    wanted = torch.cat([torch.cat(quarters[:2], 3), torch.cat(quarters[2:], 3)], 2)
    torch.testing.assert_close(maps(backbone, images, 4, [0]), wanted)


@pytest.mark.parametrize("spec", [DINOV3, EVA02, MIXED], ids=lambda spec: spec.function)
@torch.no_grad()
def test_rotary_positions_at_other_sizes_are_those_of_timms_network_for_that_size(spec: NamedSpec) -> None:
    alone = replace(spec, options=spec.options | {"use_abs_pos_emb": False})
    backbone, images = lively(alone), torch.randn(2, 3, 64, 96)
    theirs = timm.create_model(spec.function, num_classes=0, **alone.options | {"img_size": (64, 96)}).eval()
    theirs.load_state_dict({name.removeprefix("net."): x for name, x in backbone.state.items()})
    [wanted] = theirs.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)
    torch.testing.assert_close(maps(backbone, images), wanted)


@pytest.mark.parametrize("window", [4, 3])
@torch.no_grad()
def test_windows_and_pyramid_are_those_of_detectron2s_vit(window: int) -> None:
    """With equal weights of a ViT without class token and last norm. Three cells do not divide eight: there is padding."""
    options = SMALL | {"class_token": False, "global_pool": "", "final_norm": False}
    backbone, images, blocks = lively(NamedSpec(VIT.name, options)), torch.randn(2, 3, SIDE, SIDE), [0, 2]
    ours = PlainNetwork(VIT.name, json.dumps(options), window_size=window, window_block_indexes=blocks)
    theirs = ViT(
        SIDE,
        **{key: value for key, value in SMALL.items() if key != "img_size"},
        norm_layer=lambda width: nn.LayerNorm(width, eps=1e-6),
        use_rel_pos=True,
        window_size=window,
        window_block_indexes=blocks,
        pretrain_img_size=SIDE,
        pretrain_use_cls_token=False,
    )
    ours.load_state_dict(backbone.state)
    state = {name.removeprefix("net."): tensor for name, tensor in backbone.state.items()}
    assert all("rel_pos" in name for name in theirs.load_state_dict(state, strict=False).missing_keys)
    pyramids = [
        SimpleFeaturePyramid(net, FEATURE, 16, (4.0, 2.0, 1.0, 0.5), LastLevelMaxPool()) for net in (ours, theirs)
    ]
    pyramids[1].stages = nn.ModuleList(pyramids[0].stages)
    found, wanted = (pyramid.eval()(images) for pyramid in pyramids)
    assert found.keys() == wanted.keys() == {"p2", "p3", "p4", "p5", "p6"}
    for level, x in wanted.items():
        torch.testing.assert_close(found[level], x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("depth", "whole"), [(12, [2, 5, 8, 11]), (24, [5, 11, 17, 23]), (32, [7, 15, 23, 31])])
def test_windows_are_spread_as_in_the_published_configs(depth: int, whole: list[int]) -> None:
    """projects/ViTDet/configs/COCO/mask_rcnn_vitdet_{b,l,h}_*.py of Detectron2."""
    assert [block for block in range(depth) if block not in spread(depth, 4)] == whole


def detector(backbone: Backbone, tmp_path: Path, **more: Any) -> tuple[Any, Any]:
    cfg = build_config(job(tmp_path, **more), backbone)
    cfg.MODEL.DEVICE = "cpu"
    return cfg, build_model(cfg)


@pytest.mark.parametrize("spec", [DINOV2, DINOV3], ids=lambda spec: spec.function)
def test_the_protocol_builds_and_trains_it(spec: NamedSpec, tmp_path: Path) -> None:
    backbone = lively(spec)
    cfg, model = detector(backbone, tmp_path)
    whole = fitted(cfg, backbone)
    assert backbone_spec(cfg) == whole.spec
    assert load_into(model, whole, "detectron2_vitdet").converted == len(backbone.state)
    net = model.backbone.net
    assert isinstance(net, PlainNetwork)
    assert [bool(block.attn._forward_pre_hooks) for block in net.net.blocks] == [True, False, True, False]
    assert net.window == 4
    assert net.net.blocks[-1].drop_path1.drop_prob == pytest.approx(0.1)
    levels = model.backbone(torch.randn(1, 3, SIDE, SIDE))
    assert {name: SIDE // x.shape[2] for name, x in levels.items()} == {f"p{i}": 2**i for i in range(2, 7)}
    sum(x.mean() for x in levels.values()).backward()
    trained = {name for name, x in net.named_parameters() if x.requires_grad}
    assert {name for name, x in net.named_parameters() if x.grad is not None} == trained

    groups = {id(one): group for group in vitdet.optimizer(cfg, model).param_groups for one in group["params"]}
    found = {name: groups[id(one)] for name, one in model.named_parameters() if one.requires_grad}
    scale = "gamma_1" if spec is DINOV3 else "ls1.gamma"
    expected = {  # name -> blocks above it, weight decay
        "backbone.net.net.patch_embed.proj.weight": (5, 0.1),
        "backbone.net.net.cls_token": (5, 0.0),
        "backbone.net.net.reg_token": (5, 0.0),
        "backbone.net.net.blocks.0.attn.qkv.weight": (4, 0.1),
        "backbone.net.net.blocks.3.attn.proj.bias": (1, 0.1),
        "backbone.net.net.blocks.3.norm1.weight": (1, 0.0),
        f"backbone.net.net.blocks.3.{scale}": (1, 0.0),
        "backbone.net.net.norm.weight": (0, 0.0),  # as `get_vit_lr_decay_rate` has what is no block
        "backbone.simfp_2.0.weight": (0, 0.1),
        "roi_heads.box_head.fc1.weight": (0, 0.1),
    }
    for name, (above, decay) in expected.items():
        assert found[name]["lr"] == pytest.approx(1e-4 * 0.7**above), name
        assert found[name]["weight_decay"] == decay, name


def test_patches_of_14_are_resized_as_published(tmp_path: Path) -> None:
    backbone = lively(DINOV2)
    cfg = build_config(job(tmp_path), backbone)
    whole = fitted(cfg, backbone)
    assert whole.spec == NamedSpec(DINOV2.name, SMALL)
    key = "net.patch_embed.proj.weight"
    kernel = F.interpolate(backbone.state[key], (16, 16), mode="bicubic", align_corners=False)
    assert torch.equal(whole.state[key], kernel)
    assert all(torch.equal(whole.state[name], x) for name, x in backbone.state.items() if name != key)
    assert "patches of 14 pixels resized to 16" in departures(cfg, backbone)
    assert "patches of 14 pixels resized to 16" in departures(cfg, whole), (
        "as a file that `pixbench convert` has resized"
    )
    assert "patches of 14 pixels resized to 16" not in departures(cfg, lively(whole.spec))


def test_a_vit_of_detectron2s_kind_with_patches_of_14_is_resized_too(tmp_path: Path) -> None:
    backbone = random_backbone(VitSpec(64, 2, 1, 14, 56), 0)
    cfg, model = detector(backbone, tmp_path)
    assert backbone_spec(cfg) == VitSpec(64, 2, 1, 16, 64)
    load_into(model, fitted(cfg, backbone), "detectron2_vitdet")
    assert departures(cfg, backbone) == ("patches of 14 pixels resized to 16",)


def test_a_network_of_ones_own_has_no_windows_and_the_result_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_plain.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    backbone = random_backbone(NamedSpec("my_plain:net"), 0)
    cfg, model = detector(backbone, tmp_path)
    load_into(model, backbone, "detectron2_vitdet")
    assert cfg.VITDET.LAYER_DECAY == 1
    rates = {group["lr"] for group in vitdet.optimizer(cfg, model).param_groups}
    assert rates == {1e-4}
    said = " ".join(departures(cfg, backbone))
    for words in ("no windows: my_plain:net has no blocks", "no drop path", "one learning rate for the whole backbone"):
        assert words in said
    assert parts(VIT) == (4, True, True)
    with pytest.raises(UserError, match=r"has 0 blocks whose attention can have windows.* no block 1"):
        build_config(job(tmp_path, overrides={f"{NET}.window_block_indexes": [1]}), backbone)


@pytest.mark.parametrize("scale", ["mini", "paper"])
@pytest.mark.parametrize(
    ("spec", "overrides", "says"),
    [
        (CONVNEXT, {}, r"maps of several strides.*choose a protocol with a feature pyramid.*coco_fpn"),
        (replace(VIT, options=SMALL | {"patch_size": 8}), {}, r"cells of 8 pixels, but ViTDet's heads need 16"),
        (VitSpec(64, 2, 1, 8, 64), {}, r"ViTDet's heads need patches of 16"),
        (VIT, {f"{NET}.embed_dim": 64}, r"embed_dim is not for timm:vit_tiny.*leave it out"),
        (
            VIT,
            {f"{NET}.window_size": 0, f"{NET}.window_block_indexes": [0]},
            r"does not compute with windows of 0 cells.*window_block_indexes=\[\]",
        ),
        (VIT, {f"{NET}.window_block_indexes": [4]}, r"has 4 blocks .* no block 4"),
        (NamedSpec("timm:mixer_s32_224"), {}, r"mixer_s32_224.* need 16"),
        (NamedSpec("timm:mixer_s16_224"), {}, r"does not take images of"),
        (
            replace(EVA02, options=SMALL | {"dynamic_img_size": False}),
            {},
            r"does not (compute with windows|take images)",
        ),
    ],
    ids=lambda value: getattr(value, "title", None),
)
def test_what_cannot_be_built_is_refused(
    spec: Any, overrides: dict[str, Any], says: str, scale: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=says):
        build_config(job(tmp_path, scale=scale, overrides=overrides), Backbone(spec, {}, "it"))


@pytest.mark.e2e
def test_a_run(mini_root: Path, tmp_path: Path) -> None:
    from transfer.detection.run import run

    short = {"SOLVER.MAX_ITER": 2, "SOLVER.STEPS": [], "SOLVER.IMS_PER_BATCH": 2}
    backbone = lively(DINOV2)
    outcome = run(job(mini_root, out=tmp_path / "run", overrides=short), backbone)
    assert outcome.evaluation["spec"]["options"]["patch_size"] == 16
    assert "patches of 14 pixels resized to 16" in outcome.deviations
    assert any("class token" in line for line in outcome.deviations)
    final = torch.load(tmp_path / "run" / "model_final.pth", weights_only=True)["model"]
    assert final["backbone.net.net.patch_embed.proj.weight"].shape[2:] == (16, 16)
    assert (final["backbone.net.net.reg_token"] != backbone.state["net.reg_token"]).any()


def test_learnt_rotary_frequencies_learn_as_slowly_as_the_patches() -> None:
    network = PlainNetwork(MIXED.name, json.dumps(MIXED.options))
    scales = network.lr_scales(0.5)
    assert scales["backbone.net.net.rope.freqs"] == scales["backbone.net.net.patch_embed.proj.weight"] == 1 / 32
    assert any(parameter is network.net.rope.freqs for parameter in network.without_decay())


@pytest.mark.parametrize("spec", [VIT, DINOV3, MIXED], ids=["vit", "dinov3", "mixed"])
def test_the_norm_after_the_blocks_learns_as_fast_as_the_heads(spec: NamedSpec) -> None:
    """As in Detectron2's `get_vit_lr_decay_rate`: the first layer slowest, each block faster, the rest as the heads."""
    scales = PlainNetwork(spec.name, json.dumps(spec.options)).lr_scales(0.5)
    assert scales["backbone.net.net.norm.weight"] == 1
    assert {i: scales[f"backbone.net.net.blocks.{i}.norm1.weight"] for i in range(4)} == {
        0: 1 / 16,
        1: 1 / 8,
        2: 1 / 4,
        3: 1 / 2,
    }
    assert scales["backbone.net.net.patch_embed.proj.weight"] == 1 / 32

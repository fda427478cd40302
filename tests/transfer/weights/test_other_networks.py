"""Networks that look like ours and are not, made by the libraries that have them: refused by name, never converted."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from every_format import behind, detectron2, linear
from torch import nn

from pixbench.errors import UserError
from pretrain.models.backbone_spec import BackboneSpec
from transfer.weights import convert, load, read
from transfer.weights.vit_spec import VitSpec


def lively(model: nn.Module) -> nn.Module:
    """No gamma is 0 and no statistic is that of the start, so that another network computes something else."""
    random = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=random)
            module.running_mean.normal_(0, 0.2, generator=random)
            module.running_var.uniform_(0.5, 1.5, generator=random)
    return model


def torchvision_gn() -> dict[str, torch.Tensor]:
    from torchvision.models import resnet50

    return resnet50(norm_layer=partial(nn.GroupNorm, 32)).state_dict()


def timm_state(name: str) -> dict[str, torch.Tensor]:
    import timm

    return lively(timm.create_model(name)).state_dict()


GROUP_NORM: dict[str, Callable[[], Any]] = {
    "torchvision": torchvision_gn,
    "timm": lambda: timm_state("resnet50_gn"),
    "MoCo": lambda: {"state_dict": behind("module.encoder_q.", torchvision_gn()) | {"module.queue": torch.ones(2, 2)}},
    "an encoder": lambda: {"model": behind("module.encoder.", torchvision_gn())},
}


@pytest.mark.parametrize("names", GROUP_NORM)
def test_group_norm_is_not_folded_batch_norm(tmp_path: Path, names: str) -> None:
    torch.save(GROUP_NORM[names](), tmp_path / "x.pth")
    with pytest.raises(UserError, match="GroupNorm"):
        load(tmp_path / "x.pth")


@pytest.mark.frameworks
@pytest.mark.parametrize("framework", ["detectron2", "mmseg"])
def test_group_norm_of_the_frameworks(tmp_path: Path, framework: str) -> None:
    if framework == "detectron2":
        from detectron2.config import get_cfg
        from detectron2.modeling import build_model

        config = get_cfg()
        config.MODEL.DEVICE, config.MODEL.RESNETS.NORM = "cpu", "GN"
        torch.save({"model": build_model(config).state_dict()}, tmp_path / "x.pth")
        format_name = "detectron2_c4_own"
    else:
        import mmseg.models  # noqa: F401
        from mmseg.registry import MODELS

        norm = {"type": "GN", "num_groups": 32}
        model = MODELS.build({"type": "ResNet", "depth": 50, "norm_cfg": norm})
        torch.save({"state_dict": behind("backbone.", model.state_dict())}, tmp_path / "x.pth")
        format_name = None
    with pytest.raises(UserError, match="GroupNorm"):
        load(tmp_path / "x.pth", format_name=format_name)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("seresnet50", "squeeze-and-excitation"),
        ("ecaresnet50d", "efficient channel attention"),
        ("gcresnet50t", "of no known format"),
        ("res2net50_26w_4s", "Res2Net"),
        ("resnest50d", "split attention"),
        ("resnetv2_50", "of no known format"),
        ("resnet50_clip", "of no known format"),
        ("resnet26t", "cannot be converted|no known format|it lacks"),
        ("convnext_tiny", "of no known format"),
        ("regnety_002", "of no known format"),
        ("densenet121", "of no known format"),
    ],
)
def test_networks_of_timm(tmp_path: Path, name: str, says: str) -> None:
    torch.save(timm_state(name), tmp_path / "x.pth")
    with pytest.raises(UserError, match=says):
        load(tmp_path / "x.pth")


@pytest.mark.parametrize("name", ["resnetblur50", "resnetaa50"])
def test_what_no_weight_shows_and_the_file_declares(tmp_path: Path, name: str) -> None:
    torch.save({"arch": name, "state_dict": timm_state(name)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="declares a network with anti-aliased down-sampling"):
        load(tmp_path / "x.pth")


def test_the_declared_network_of_timm_computes_other_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where the name says nothing to us, the network itself is asked."""
    from transfer.weights import other_networks

    monkeypatch.setattr(other_networks, "_DECLARED", {})
    torch.save({"arch": "resnetblur50", "state_dict": timm_state("resnetblur50")}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"timm's resnetblur50 computes other maps"):
        convert(tmp_path / "x.pth", tmp_path / "y.pth", "torchvision")
    assert not (tmp_path / "y.pth").exists()


@pytest.mark.parametrize(
    ("library", "name"),
    [
        ("timm", "resnet50"),
        ("torchvision", "resnet18"),
        ("timm", "resnet50d"),
        ("timm", "resnet18d"),
        ("timm", "resnet50c"),
    ],
)
def test_the_sources_own_network_computes_the_same(tmp_path: Path, library: str, name: str) -> None:
    import timm
    import torchvision

    model = lively(timm.create_model(name) if library == "timm" else getattr(torchvision.models, name)())
    torch.save(
        {"arch": name, "state_dict": model.state_dict()} if library == "timm" else model.state_dict(),
        tmp_path / "x.pth",
    )
    done = convert(tmp_path / "x.pth", tmp_path / "y.pth", "timm")
    assert done.parity is not None
    assert done.parity.source_network == (
        f"timm's {name}" if library == "timm" else "torchvision's network of this kind"
    )
    assert all(difference.relative < 1e-5 for difference in done.parity.source.values())


@pytest.mark.parametrize(
    "text", ["type='TridentResNet'", "conv_cfg=dict(type='ConvWS')", 'conv_cfg=dict(type="ConvAWS")']
)
def test_weight_standardisation_that_the_configuration_declares(
    tmp_path: Path, make_backbone: Callable, text: str
) -> None:
    state = behind("backbone.", make_backbone().state) | linear("decode_head.conv_seg")
    torch.save({"state_dict": state, "meta": {"cfg": f"backbone=dict(depth=50, {text})"}}, tmp_path / "x.pth")
    with pytest.raises(
        UserError, match=r"declares a network with (weight standardisation|branches of several dilations)"
    ):
        load(tmp_path / "x.pth")


def test_words_elsewhere_are_no_declaration(tmp_path: Path, make_backbone: Callable) -> None:
    state = behind("backbone.", make_backbone().state) | linear("decode_head.conv_seg")
    text = "model=dict(backbone=dict(type='ResNet'), decode_head=dict(conv_cfg=dict(type='ConvWS'))) # resnetaa50"
    torch.save({"state_dict": state, "meta": {"cfg": text}}, tmp_path / "x.pth")
    assert read(tmp_path / "x.pth").format == "mmseg_model"


@pytest.mark.parametrize(
    ("change", "says"),
    [({"act_layer": "silu"}, "another activation"), ({"aa_layer": "blurpc", "block": None}, "anti-aliased")],
)
def test_a_network_saved_whole_shows_its_classes(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    import timm
    from timm.models.resnet import Bottleneck, ResNet

    model = (
        ResNet(Bottleneck, [3, 4, 6, 3], aa_layer=timm.layers.BlurPool2d)
        if "block" in change
        else timm.create_model("resnet18", **change)
    )
    torch.save(model, tmp_path / "x.pth")
    with pytest.raises(UserError, match=says):
        load(tmp_path / "x.pth")


@pytest.mark.frameworks
@pytest.mark.parametrize("norm", ["BN", "GN", "LN"])
def test_detectron2s_own_names_are_not_caffe2s(tmp_path: Path, norm: str) -> None:
    from detectron2.config import get_cfg
    from detectron2.layers import ShapeSpec
    from detectron2.modeling.backbone.resnet import build_resnet_backbone

    config = get_cfg()
    config.MODEL.RESNETS.NORM, config.MODEL.RESNETS.OUT_FEATURES = norm, ["res2", "res3", "res4", "res5"]
    torch.save(build_resnet_backbone(config, ShapeSpec(channels=3)).state_dict(), tmp_path / "x.pth")
    if norm == "BN":
        assert read(tmp_path / "x.pth").format == "detectron2_backbone"
        return
    with pytest.raises(UserError, match="GroupNorm"):
        load(tmp_path / "x.pth")


@pytest.mark.parametrize("shape", [(), (384,), (0, 5, 384), (1, 0, 384)])
def test_positions_of_another_shape_are_one_sentence(
    tmp_path: Path, backbone_of: Callable, shape: tuple[int, ...]
) -> None:
    torch.save(
        dict(backbone_of(VitSpec(384, 1, 6, 16, 32)).state) | {"pos_embed": torch.zeros(shape)}, tmp_path / "x.pth"
    )
    with pytest.raises(UserError):
        load(tmp_path / "x.pth")


def test_classes_beside_the_weights_are_no_part_of_the_network(tmp_path: Path, make_backbone: Callable) -> None:
    torch.save(
        {"state_dict": make_backbone().state, "loss": nn.Sequential(nn.GELU(), nn.LayerNorm(2))}, tmp_path / "x.pth"
    )
    assert read(tmp_path / "x.pth").format == "torchvision"


def test_moco_v3s_small_vit_has_other_heads(tmp_path: Path, backbone_of: Callable) -> None:
    state = dict(backbone_of(VitSpec(384, 1, 6, 16, 32)).state)
    torch.save(state, tmp_path / "x.pth")
    assert load(tmp_path / "x.pth").spec.heads == 6
    state["pos_embed"] = torch.cat([torch.zeros(1, 1, 384), state["pos_embed"][:, 1:]], 1)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(UserError, match="MoCo v3 has 12 attention heads"):
        load(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"conv2.weight": torch.ones(2, 2, 3, 3), "bn2.weight": torch.ones(2)}, "a stem of several convolutions"),
        ({"maxpool.0.weight": torch.ones(2, 2, 3, 3)}, "weights in its pooling"),
    ],
)
def test_what_acts_beside_the_stages_is_not_left_out(
    tmp_path: Path, make_backbone: Callable, extra: dict, says: str
) -> None:
    torch.save(behind("net.", make_backbone().state | extra), tmp_path / "x.pth")
    for choice in ({}, {"prefix": "net."}):
        with pytest.raises(UserError, match=says):
            load(tmp_path / "x.pth", **choice)


@pytest.mark.parametrize("name", ["register_tokens", "norm_pre.weight", "dist_token", "rope.freqs"])
def test_what_acts_beside_the_blocks_of_a_vit(tmp_path: Path, backbone_of: Callable, name: str) -> None:
    torch.save(dict(backbone_of(VitSpec(64, 2, 1, 16, 32)).state) | {name: torch.ones(1, 2, 64)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="This is a network with "):
        load(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"downsample_in_first_stage": True}, "a stride in its first stage"),
        ({"hidden_act": "gelu"}, "the activation gelu"),
    ],
)
def test_what_the_configuration_of_transformers_declares(tmp_path: Path, settings: dict[str, Any], says: str) -> None:
    from transformers import ResNetConfig, ResNetModel

    small = {"embedding_size": 8, "hidden_sizes": [32, 64, 128, 256], "depths": [3, 4, 6, 3]}
    ResNetModel(ResNetConfig(**small, **settings)).save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match=says):
        load(tmp_path / "other")
    ResNetModel(ResNetConfig(**small, downsample_in_bottleneck=True)).save_pretrained(tmp_path / "strides")
    backbone = load(tmp_path / "strides")
    assert backbone.resnet.stride_in_1x1
    with pytest.raises(UserError, match=r"choose a name that ends in \.safetensors"):
        convert(tmp_path / "strides", tmp_path / "y.pth", "huggingface")
    convert(tmp_path / "strides", tmp_path / "y.safetensors", "huggingface")
    assert load(tmp_path / "y.safetensors").resnet.stride_in_1x1


def test_a_grouped_network_of_caffe2_has_other_strides_and_pixels(tmp_path: Path, backbone_of: Callable) -> None:
    """Detectron2's own configuration of X-101-32x8d, `COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x.yaml`."""
    state = backbone_of(BackboneSpec(101, 1 / 16, groups=4, width_per_group=16)).state
    detector = {f"backbone.bottom_up.{n}": torch.tensor(a) for n, a in detectron2(state).items()} | linear(
        "roi_heads.x"
    )
    torch.save({"model": detector}, tmp_path / "x.pth")
    backbone = load(tmp_path / "x.pth", format_name="detectron2_fpn_zoo")
    assert not backbone.resnet.stride_in_1x1
    assert (backbone.pixels.order, backbone.pixels.std) == ("BGR", (57.375, 57.12, 58.395))


def test_augmentations_are_no_declaration(tmp_path: Path, make_backbone: Callable) -> None:
    content = {
        "state_dict": make_backbone().state,
        "args": {"arch": "resnet50", "aug": "GaussianBlur", "aa": "rand-m9"},
    }
    torch.save(content, tmp_path / "x.pth")
    assert read(tmp_path / "x.pth").architecture == "resnet50"

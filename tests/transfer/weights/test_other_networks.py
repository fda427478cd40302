"""Networks that look like ours and are not, made by the libraries that have them: refused by name, never converted."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from every_format import behind, linear
from torch import nn

from pixbench.errors import UserError
from transfer.weights import convert, load, read


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
    assert done.parity.source_network == (f"timm's {name}" if library == "timm" else "torchvision's own network")
    assert all(difference.relative < 1e-5 for difference in done.parity.source.values())


@pytest.mark.parametrize("text", ["conv_cfg=dict(type='ConvWS')", 'conv_cfg=dict(type="ConvAWS")'])
def test_weight_standardisation_that_the_configuration_declares(
    tmp_path: Path, make_backbone: Callable, text: str
) -> None:
    state = behind("backbone.", make_backbone().state) | linear("decode_head.conv_seg")
    torch.save({"state_dict": state, "meta": {"cfg": f"backbone=dict(type='ResNet', {text})"}}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="declares a network with weight standardisation"):
        load(tmp_path / "x.pth")


def test_augmentations_are_no_declaration(tmp_path: Path, make_backbone: Callable) -> None:
    content = {
        "state_dict": make_backbone().state,
        "args": {"arch": "resnet50", "aug": "GaussianBlur", "aa": "rand-m9"},
    }
    torch.save(content, tmp_path / "x.pth")
    assert read(tmp_path / "x.pth").architecture == "resnet50"

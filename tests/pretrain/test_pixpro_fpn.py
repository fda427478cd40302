"""PixPro on a pyramid and on a head: shapes, a pyramid by hand, masks of each level, plain PixPro as a special case."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import backbone, views

from pixbench.errors import UserError
from pretrain.config import parse
from pretrain.losses.geometry import positive_mask
from pretrain.methods.pixpro import PixPro
from pretrain.methods.pixpro_fpn import PixProFPN, PixProFPNHead
from pretrain.models.fpn import FPN, LEVELS, Tower
from pretrain.models.heads import ConvHead

SMALL = {"hidden": 32, "dim": 16, "channels": 32}
CONFIGS = Path(__file__).parents[2] / "configs" / "pretrain"


def build(method: type[PixProFPN] = PixProFPN, **settings: Any) -> PixProFPN:
    return method(backbone(), method.Config(**(SMALL | settings)), total_steps=10)


def maps(channels: int, sides: tuple[int, int, int]) -> dict[str, torch.Tensor]:
    return {
        f"layer{i + 2}": torch.randn(2, channels // 2 ** (2 - i), side, side + 2 * (side > 1))
        for i, side in enumerate(sides)
    }


@pytest.mark.parametrize("sides", [(28, 14, 7), (8, 4, 4), (7, 4, 2)], ids=str)
def test_shapes(sides: tuple[int, int, int]) -> None:
    """Those of 224 pixels, of a backbone with output stride 16, and odd ones."""
    given = maps(64, sides)
    levels = FPN({"layer2": 16, "layer3": 32, "layer4": 64}, 8)(given)
    assert tuple(levels) == LEVELS
    for name, layer in zip(LEVELS, given.values(), strict=False):
        assert levels[name].shape == (2, 8, *layer.shape[2:])
    assert levels["p6"].shape == (2, 8, *((side + 1) // 2 for side in given["layer4"].shape[2:]))
    assert Tower(32, norm=True)(torch.randn(2, 32, 3, 5)).shape == (2, 32, 3, 5)


def test_a_pyramid_by_hand() -> None:
    """Laterals that sum their input, outputs that pass on the middle: each level is the sum of all maps above a cell."""
    fpn = FPN({"layer2": 1, "layer3": 2, "layer4": 4}, 1)
    with torch.no_grad():
        for name, parameter in fpn.named_parameters():
            parameter.zero_()
            if name.startswith("lateral"):
                parameter.fill_(1 if name.endswith("weight") else 0)
            elif name.endswith("weight"):
                parameter[..., 1, 1] = 1
    c3, c4 = torch.arange(16.0).view(1, 1, 4, 4), torch.tensor([[[[1.0, 2], [3, 4]]]]) * 100
    c5 = torch.full((1, 1, 1, 1), 10_000.0)
    levels = fpn({"layer2": c3, "layer3": c4.repeat(1, 2, 1, 1) / 2, "layer4": c5.repeat(1, 4, 1, 1) / 4})
    assert levels["p5"].flatten().tolist() == levels["p6"].flatten().tolist() == [10_000]
    assert levels["p4"].flatten().tolist() == [10_100, 10_200, 10_300, 10_400]
    assert levels["p3"][0, 0].tolist() == [
        [10_100, 10_101, 10_202, 10_203],
        [10_104, 10_105, 10_206, 10_207],
        [10_308, 10_309, 10_410, 10_411],
        [10_312, 10_313, 10_414, 10_415],
    ]


def test_each_level_counts_in_its_own_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    import pretrain.losses.pixel as module

    seen: list[torch.Tensor] = []

    def spy(*arguments: Any) -> torch.Tensor:
        seen.append(positive_mask(*arguments))
        return seen[-1]

    monkeypatch.setattr(module, "positive_mask", spy)
    batch = views()
    square = torch.tensor([0.1, 0.2, 0.6, 0.7]).expand(len(batch.image_index), 4)
    scalars = build()(batch._replace(box1=square, box2=square))
    assert [mask.shape[1] for mask in seen] == [64, 16, 4, 1]  # 64 pixels
    for mask in seen:  # the same crop twice: neighbours are 0.71 diagonals away on every level
        assert mask.equal(torch.eye(mask.shape[1], dtype=torch.bool).expand_as(mask))
    assert scalars["positives"].item() == (64 + 16 + 4 + 1) / 4


def test_the_loss_is_the_mean_over_levels() -> None:
    scalars = build()(views())
    levels = [scalars[f"loss_{level}"] for level in LEVELS]
    assert scalars["loss"].item() == pytest.approx(torch.stack(levels).mean().item(), abs=1e-6)
    assert len({round(x.item(), 4) for x in levels}) == 4


class _C5(torch.nn.Module):
    """A pyramid of one level."""

    def forward(self, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"p5": given["layer4"]}


@pytest.mark.parametrize("instance", ["none", "contrastive", "regression"])
def test_on_c5_alone_it_is_pixpro(instance: str) -> None:
    plain = PixPro(backbone(), PixPro.Config(hidden=32, dim=16, instance=instance), 10).double()
    method = build(instance=instance).double()
    for networks in (method, method.momentum_encoder):
        networks.fpn = _C5()
        networks.projector = ConvHead(method.backbone.channels, 32, 16).double()
    method.load_state_dict(plain.state_dict())
    batch = views(dtype=torch.float64)
    wanted, found = plain(batch), method(batch)
    for name in ("loss", "feature_std", "positives"):
        assert found[name].item() == pytest.approx(wanted[name].item(), abs=1e-12)
    wanted["loss"].backward()
    found["loss"].backward()
    theirs = dict(plain.named_parameters())
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("method", [PixProFPN, PixProFPNHead])
def test_identical_views_and_branches_without_propagation_reach_minus_four(method: type[PixProFPN]) -> None:
    model = build(method, threshold=1e-3).double()
    model.propagation = torch.nn.Identity()
    batch = views(dtype=torch.float64)
    scalars = model(batch._replace(view2=batch.view1, box2=batch.box1))
    assert [scalars[f"loss_{level}"].item() for level in LEVELS] == pytest.approx([-4] * 4, abs=1e-5)


@pytest.mark.parametrize(
    ("method", "settings"),
    [(PixProFPN, {"instance": "regression"}), (PixProFPNHead, {}), (PixProFPNHead, {"head": "retinanet"})],
)
def test_gradients_reach_all_of_the_student_and_the_momentum_encoder_follows(
    method: type[PixProFPN], settings: dict[str, str]
) -> None:
    model = build(method, momentum=0.5, **settings)
    model(views())["loss"].backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {name for name, _ in model.named_parameters() if not name.startswith("momentum_encoder.")}
    copied = {
        name.removeprefix("momentum_encoder.")
        for name, _ in model.named_parameters()
        if name.startswith("momentum_encoder.")
    }
    assert with_gradient - copied == {n for n in with_gradient if n.startswith(("propagation", "predictor."))}
    with torch.no_grad():
        model.fpn.p6.weight.add_(1)
    before = model.momentum_encoder.get_parameter("fpn.p6.weight").clone()
    model.update_momentum_encoder()
    torch.testing.assert_close(model.momentum_encoder.get_parameter("fpn.p6.weight"), before + 0.5)


def test_the_head_is_what_the_loss_sees() -> None:
    model = build(PixProFPNHead)
    assert [name for name, _ in model.head.named_children()] == [
        f"{kind}{i}" for i in (1, 2, 3) for kind in ("conv", "norm", "relu")
    ]
    assert "norm1" not in dict(build(PixProFPNHead, head="retinanet").head.named_children())
    before = model.eval()(views())["loss"].item()
    with torch.no_grad():
        model.head.conv3.weight.neg_()
    assert model(views())["loss"].item() != pytest.approx(before, abs=1e-4)


def test_impossible_heads() -> None:
    with pytest.raises(UserError, match="channels 48 is not a multiple of 32"):
        build(PixProFPNHead, channels=48)
    with pytest.raises(UserError, match="choose fcos, retinanet"):
        build(PixProFPNHead, head="yolo")
    assert build(PixProFPNHead, channels=48, head="retinanet").head.conv1.weight.shape[0] == 48


@pytest.mark.parametrize(("name", "more"), [("pixpro_fpn", {}), ("pixpro_fpn_head", {"head": "fcos"})])
def test_the_configs_differ_from_pixpro_in_the_method_alone(name: str, more: dict[str, str]) -> None:
    def read(*names: str) -> Any:
        return parse([word for each in names for word in ("--config", str(CONFIGS / f"{each}.yaml"))])

    run, plain = read(f"{name}_100ep").as_dict(), read("pixpro_100ep").as_dict()
    assert run == {**plain, "method": {**plain["method"], "name": name, "channels": 256, **more}}
    mini = read(f"{name}_100ep", "mini", "mini_fpn").method.settings
    assert (mini.channels, mini.hidden, mini.dim) == (32, 512, 64)
    assert {f.name for f in fields(PixPro.Config)} < {f.name for f in fields(mini)}

"""Contrastive Deep Supervision: SupCon by hand, the heads, the sum of the losses."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import backbone, views
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from pixbench.errors import UserError
from pretrain.losses.instance import nt_xent, sup_con
from pretrain.methods.cds import CDS, STAGES
from pretrain.models.heads import StageHead


def cds(**settings: float | str) -> CDS:
    model = backbone()
    torch.manual_seed(1)
    return CDS(model, CDS.Config(classes=5, **settings), total_steps=10)


def unit_pair(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    one, other = normalize(torch.randn(2, count, 6, generator=generator, dtype=torch.float64), dim=2)
    return one, other


def test_defaults_of_the_authors_code() -> None:
    config = CDS.Config()
    assert (config.classes, config.contrast, config.weight, config.temperature) == (1000, "supcon", 0.1, 0.07)
    assert (config.last_stage, config.semi_supervised, config.teacher) == (False, False, "")
    assert (config.distill_weight, config.distill_temperature) == (0.5, 1.0)


def test_sup_con_by_hand() -> None:
    """Images e1, e1, e2 with labels 0, 0, 1, views equal, temperature 1.

    An anchor e1 has three partners at 1 and two others at 0; an anchor e2 has one partner at 1 and four others at 0.
    """
    view = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    first = math.log(3 * math.e + 2) - 1
    second = math.log(math.e + 4) - 1
    assert sup_con(view, view, torch.tensor([0, 0, 1]), 1.0).item() == pytest.approx((4 * first + 2 * second) / 6)


def test_sup_con_equals_the_definition_term_by_term() -> None:
    one, other = unit_pair(4)
    label = torch.tensor([2, 0, 2, 0])
    z, labels = torch.cat([one, other]), label.repeat(2)
    terms = []
    for i in range(8):
        total = sum(math.exp((z[i] @ z[a]).item() / 0.3) for a in range(8) if a != i)
        partners = [p for p in range(8) if p != i and labels[p] == labels[i]]
        terms.append(-sum(math.log(math.exp((z[i] @ z[p]).item() / 0.3) / total) for p in partners) / len(partners))
    assert sup_con(one, other, label, 0.3).item() == pytest.approx(sum(terms) / 8)


def test_sup_con_with_labels_all_different_is_nt_xent() -> None:
    one, other = unit_pair(5)
    assert sup_con(one, other, torch.arange(5), 0.1).item() == pytest.approx(nt_xent(one, other, 0.1)[0].item())


def test_sup_con_gradient_by_differences() -> None:
    one, other = unit_pair(3)
    label = torch.tensor([1, 1, 0])
    arguments = (one.requires_grad_(), other.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: sup_con(a, b, label, 0.2), arguments)


def test_heads_end_where_the_backbone_ends() -> None:
    """Two separable convolutions for each later stage: the map halved, the channels doubled."""
    method = cds()
    maps = method.backbone.forward_stages(torch.randn(2, 3, 64, 64))
    for to_come, stage in zip((3, 2, 1), STAGES, strict=True):
        head = method.get_submodule(f"projector_{stage}")
        assert isinstance(head, StageHead)
        assert head.out == method.backbone.channels
        assert head(maps[stage]).shape == (2, method.backbone.channels)
        convolutions = [m for m in head if isinstance(m, torch.nn.Conv2d)]
        assert len(convolutions) == 4 * to_come
        assert [m.groups == m.in_channels for m in convolutions] == [True, False] * 2 * to_come
        assert [m.stride[0] for m in convolutions[::2]] == [2, 1] * to_come
        assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in head) == 2 * to_come


@pytest.mark.parametrize("contrast", ["supcon", "simclr"])
def test_sum_of_the_losses(contrast: str) -> None:
    method = cds(contrast=contrast, weight=0.3).double()
    batch = views(dtype=torch.float64)._replace(label=torch.tensor([4, 0, 4, 1]))
    scalars = method(batch)
    maps = method.backbone.forward_stages(torch.cat([batch.view1, batch.view2]))
    loss_class = cross_entropy(method.classifier(maps["layer4"][:4]), batch.label)
    loss_contrast = 0.0
    for stage in STAGES:
        one, other = normalize(method.get_submodule(f"projector_{stage}")(maps[stage])).chunk(2)
        term = sup_con(one, other, batch.label, 0.07) if contrast == "supcon" else nt_xent(one, other, 0.07)[0]
        loss_contrast += term.item()
    assert scalars["loss_class"].item() == pytest.approx(loss_class.item())
    assert scalars["loss_contrast"].item() == pytest.approx(loss_contrast)
    assert scalars["loss"].item() == pytest.approx(loss_class.item() + 0.3 * loss_contrast)


def test_every_parameter_gets_a_gradient() -> None:
    method = cds()
    method(views())["loss"].backward()
    assert all(p.grad is not None for p in method.parameters())


def test_unknown_contrast() -> None:
    with pytest.raises(UserError, match="'moco' is not known; choose simclr, supcon"):
        cds(contrast="moco")


@pytest.mark.parametrize("contrast", ["supcon", "simclr"])
def test_loss_in_full_precision_under_autocast(contrast: str) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        scalars = cds(contrast=contrast)(views(2, size=32))
    assert {name: x.dtype for name, x in scalars.items()} == dict.fromkeys(scalars, torch.float32)
    scalars["loss"].backward()

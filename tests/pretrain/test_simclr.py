"""SimCLR: the loss by hand and against the plain definition; limits; the published projector."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import backbone, views
from torch import Tensor
from torch.nn.functional import normalize

from pretrain.losses.instance import nt_xent
from pretrain.methods.simclr import SimCLR


def simclr(**settings: float) -> SimCLR:
    model = backbone()
    return SimCLR(model, SimCLR.Config(hidden=32, dim=16, **settings), total_steps=10)


def unit_pair(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    one, other = normalize(torch.randn(2, count, 6, generator=generator, dtype=torch.float64), dim=2)
    return one, other


def test_paper_defaults() -> None:
    config = SimCLR.Config()
    assert (config.temperature, config.hidden, config.dim) == (0.1, 2048, 128)


def test_loss_by_hand() -> None:
    """Two images on opposite axes, views equal: each anchor sees its partner at 1 and two others at 0, temperature ½."""
    view = torch.eye(2, dtype=torch.float64)
    loss, accuracy = nt_xent(view, view, 0.5)
    assert loss.item() == pytest.approx(math.log(math.exp(2) + 2) - 2)
    assert accuracy.item() == 1


def test_equals_the_definition_term_by_term() -> None:
    """Eq. 1 of the paper with its two loops."""
    one, other = unit_pair(3)
    z = torch.cat([one, other])
    terms = []
    for i in range(6):
        others = [math.exp((z[i] @ z[k]).item() / 0.3) for k in range(6) if k != i]
        terms.append(-math.log(math.exp((z[i] @ z[(i + 3) % 6]).item() / 0.3) / sum(others)))
    assert nt_xent(one, other, 0.3)[0].item() == pytest.approx(sum(terms) / 6)


def test_swapping_the_views_changes_nothing() -> None:
    one, other = unit_pair(5)
    assert nt_xent(one, other, 0.1)[0].item() == pytest.approx(nt_xent(other, one, 0.1)[0].item())


def test_gradient_by_differences() -> None:
    one, other = unit_pair(3)
    arguments = (one.requires_grad_(), other.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, 0.2)[0], arguments)


def test_one_image_has_nothing_to_be_told_from() -> None:
    assert nt_xent(*unit_pair(1), 0.1)[0].item() == pytest.approx(0)


def test_loss_before_learning() -> None:
    assert simclr(temperature=1e6)(views())["loss"].item() == pytest.approx(math.log(7), abs=1e-3)


def test_both_views_share_a_forward_pass() -> None:
    method = simclr()
    method(views())
    assert method.backbone.bn1.num_batches_tracked == 1


def test_projector_is_the_published_one() -> None:
    """BN after both layers instead of biases; the last one has no trained offset."""
    trained = {name for name, p in simclr().projector.named_parameters() if p.requires_grad}
    assert trained == {"linear1.weight", "bn1.weight", "bn1.bias", "linear2.weight", "bn2.weight"}


def test_every_trained_parameter_gets_a_gradient() -> None:
    method = simclr()
    method.update_momentum_encoder()  # there is none: nothing happens
    method(views())["loss"].backward()
    assert all((p.grad is not None) == p.requires_grad for p in method.parameters())


def test_loss_in_full_precision_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        scalars = simclr()(views())
    assert {name: x.dtype for name, x in scalars.items()} == dict.fromkeys(scalars, torch.float32)
    scalars["loss"].backward()

"""BYOL: the loss against the plain definition, limits, the published heads, who gets gradients."""

from __future__ import annotations

import pytest
import torch
from tiny import backbone, views

from pretrain.methods.byol import BYOL


def byol(**settings: float) -> BYOL:
    model = backbone()
    return BYOL(model, BYOL.Config(hidden=32, dim=16, **settings), total_steps=10)


def test_paper_defaults() -> None:
    config = BYOL.Config()
    assert (config.momentum, config.hidden, config.dim) == (0.996, 4096, 256)


def test_heads_are_the_published_ones() -> None:
    """The second layer has no bias, and only the hidden layer has BN."""
    shapes = {n: tuple(p.shape) for n, p in byol().named_parameters() if n.startswith(("projector", "predictor"))}
    assert shapes == {
        f"{name}.{layer}": shape
        for name, channels in (("projector", 64), ("predictor", 16))
        for layer, shape in (
            ("linear1.weight", (32, channels)),
            ("linear1.bias", (32,)),
            ("bn1.weight", (32,)),
            ("bn1.bias", (32,)),
            ("linear2.weight", (16, 32)),
        )
    }


def test_equals_the_squared_distance() -> None:
    """Eq. 2 of the paper as a squared distance, both ways, after the student has left its target."""
    method, batch = byol().double(), views(dtype=torch.float64)
    with torch.no_grad():
        method.projector.linear2.weight.mul_(torch.randn(16, 1, dtype=torch.float64))
    predictions, targets = [], []
    for image in (batch.view1, batch.view2):
        p = method.predictor(method.projector(method.backbone(image).mean((2, 3))))
        z = method.momentum_encoder.projector(method.momentum_encoder.backbone(image).mean((2, 3)))
        predictions.append(p / p.norm(dim=1, keepdim=True))
        targets.append(z / z.norm(dim=1, keepdim=True))
    one = (predictions[0] - targets[1]).pow(2).sum(1).mean()
    other = (predictions[1] - targets[0]).pow(2).sum(1).mean()
    assert method(batch)["loss"].item() == pytest.approx((one + other).item(), abs=1e-12)


def test_equal_branches_and_views_reach_zero() -> None:
    method = byol().double()
    method.predictor = torch.nn.Identity()
    batch = views(dtype=torch.float64)
    assert method(batch._replace(view2=batch.view1))["loss"].item() == pytest.approx(0, abs=1e-12)


def test_swapping_the_views_changes_nothing() -> None:
    batch = views(dtype=torch.float64)
    swapped = batch._replace(view1=batch.view2, view2=batch.view1)
    assert byol().double()(batch)["loss"].item() == pytest.approx(byol().double()(swapped)["loss"].item(), abs=1e-12)


def test_momentum_grows_along_a_cosine() -> None:
    method = byol(momentum=0.9)
    seen = []
    for _ in range(11):
        seen.append(method.momentum_encoder.momentum())
        method.update_momentum_encoder()
    assert (seen[0], seen[5], seen[10]) == pytest.approx((0.9, 0.95, 1.0))


def test_gradients_reach_the_student_alone() -> None:
    method = byol()
    method(views())["loss"].backward()
    with_gradient = {name for name, p in method.named_parameters() if p.grad is not None}
    assert with_gradient == {name for name, _ in method.named_parameters() if not name.startswith("momentum_encoder.")}
    assert method.backbone.bn1.num_batches_tracked == 2  # a forward pass for each view


def test_loss_in_full_precision_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        scalars = byol()(views())
    assert {name: x.dtype for name, x in scalars.items()} == dict.fromkeys(scalars, torch.float32)
    scalars["loss"].backward()

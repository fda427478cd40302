"""PixPro as a whole: limits, symmetry, who gets gradients. The exact numbers are in test_trajectory.py."""

from __future__ import annotations

import pytest
import torch
from tiny import backbone, views

from pixbench.errors import UserError
from pretrain.methods.base import feature_std
from pretrain.methods.pixpro import PixPro

SMALL = {"hidden": 32, "dim": 16}


def pixpro(**settings: float) -> PixPro:
    model = backbone()
    return PixPro(model, PixPro.Config(**(SMALL | settings)), total_steps=10)


def test_paper_defaults() -> None:
    config = PixPro.Config()
    assert (config.gamma, config.layers, config.threshold, config.momentum) == (2.0, 1, 0.7, 0.99)
    assert (config.hidden, config.dim, config.clamp) == (4096, 256, 0.0)


def test_identical_views_and_branches_without_propagation_reach_minus_four() -> None:
    method = pixpro(threshold=1e-3).double()
    method.propagation = torch.nn.Identity()
    batch = views(dtype=torch.float64)
    batch = batch._replace(view2=batch.view1, box2=batch.box1)
    assert method(batch)["loss"].item() == pytest.approx(-4, abs=1e-5)


def test_no_overlap_gives_zero_loss() -> None:
    batch = views()
    scalars = pixpro()(batch._replace(box2=batch.box1 + 5))
    assert scalars["loss"].item() == 0
    assert scalars["positives"].item() == 0


def test_swapping_the_views_changes_nothing_but_the_order_of_batch_statistics() -> None:
    batch = views(dtype=torch.float64)
    swapped = batch._replace(view1=batch.view2, view2=batch.view1, box1=batch.box2, box2=batch.box1)
    one, other = pixpro().double()(batch), pixpro().double()(swapped)
    assert one["loss"].item() == pytest.approx(other["loss"].item(), abs=1e-12)


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_gradients_reach_the_student_alone(layers: int) -> None:
    method = pixpro(layers=layers)
    method(views())["loss"].backward()
    with_gradient = {name for name, p in method.named_parameters() if p.grad is not None}
    assert with_gradient == {name for name, _ in method.named_parameters() if not name.startswith("momentum_encoder.")}


def test_target_moves_only_when_asked() -> None:
    method = pixpro(momentum=0.5)
    with torch.no_grad():
        method.backbone.conv1.weight.add_(1)
    before = method.momentum_encoder.get_parameter("backbone.conv1.weight").clone()
    method(views())
    assert method.momentum_encoder.get_parameter("backbone.conv1.weight").equal(before)
    method.update_momentum_encoder()
    torch.testing.assert_close(method.momentum_encoder.get_parameter("backbone.conv1.weight"), before + 0.5)


def test_each_view_has_its_own_batch_statistics() -> None:
    method = pixpro()
    method(views())
    assert (
        method.backbone.bn1.num_batches_tracked
        == method.momentum_encoder.get_buffer("backbone.bn1.num_batches_tracked")
        == 2
    )


def test_map_need_not_be_square() -> None:
    batch = views()
    wide = batch._replace(view1=batch.view1[..., :32, :], view2=batch.view2[..., :32, :])
    assert pixpro(layers=2)(wide)["loss"].isfinite()


def test_loss_in_full_precision_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        scalars = pixpro()(views())
    assert {name: x.dtype for name, x in scalars.items()} == dict.fromkeys(scalars, torch.float32)
    scalars["loss"].backward()


def test_impossible_transform() -> None:
    with pytest.raises(UserError, match="choose 0, 1 or 2"):
        pixpro(layers=4)


def test_feature_std_is_one_on_the_sphere_and_zero_when_collapsed() -> None:
    torch.manual_seed(0)
    assert feature_std(torch.randn(512, 64, 3, 3)).item() == pytest.approx(1, abs=0.01)
    assert feature_std(torch.randn(512, 64)).item() == pytest.approx(1, abs=0.01)
    assert feature_std(torch.randn(1, 64).expand(32, 64)).item() == pytest.approx(0, abs=1e-6)
    assert not feature_std(torch.randn(4, 8, requires_grad=True)).requires_grad

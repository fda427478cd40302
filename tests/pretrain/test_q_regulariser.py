"""The Q-score regulariser by hand, its gradient, and its place in SimCLR's loss."""

from __future__ import annotations

import pytest
import torch
from tiny import backbone, views
from torch import Tensor

from pixbench.errors import UserError
from pretrain.config import parse
from pretrain.losses.qscore import discriminative, highly_active, q_regulariser, q_scores
from pretrain.methods.simclr import SimCLR


def peaks() -> Tensor:
    """Ten images with four of 101 features each, at 101 in the first five images and at 202 in the others."""
    h = torch.zeros(10, 101, dtype=torch.float64)
    for image in range(10):
        h[image, 4 * image : 4 * image + 4] = 101 if image < 5 else 202
    return h


def test_a_highly_active_feature_is_more_than_four_deviations_above_the_mean_of_its_image() -> None:
    """If k of 101 features are at one value, they lie √((101 − k) / k) deviations above the mean: 4.4 for 5 and 3.98 for 6."""
    h = torch.zeros(3, 101)
    h[0, :5], h[1, :6] = 7, 7
    assert highly_active(h).sum(1).tolist() == [5, 0, 0]
    assert highly_active(-h).sum() == 0


def test_discriminative_features_are_neither_rare_nor_common() -> None:
    """The quantiles 0.5 and 0.95 of 0, 0.1, …, 1 are 0.5 and 0.95."""
    assert discriminative(torch.arange(11, dtype=torch.float64) / 10).tolist() == [5 <= j <= 9 for j in range(11)]


def test_q_scores_by_hand() -> None:
    """The mean of an image is 4 · v / 101, so a feature at v = 101 lies 97 above it."""
    h = peaks()
    everything = torch.ones(101, dtype=torch.bool)
    assert q_scores(h, everything).tolist() == pytest.approx([97] * 5 + [194] * 5)
    first = torch.arange(101) < 2  # two of the four features of image 0
    assert q_scores(h, first).tolist() == pytest.approx([97] + [0] * 9)


def test_regulariser_by_hand() -> None:
    """α = 145.5, so five scores of 97 are low: 48.5 an image. β = 60, so all 40 active columns are large: 60 a column."""
    regulariser, q = q_regulariser(peaks())
    assert q.item() == pytest.approx(145.5)
    assert regulariser.item() == pytest.approx(60 - 48.5)


def test_gradient_by_differences() -> None:
    h = (
        peaks() + torch.rand(10, 101, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ).requires_grad_()
    assert torch.autograd.gradcheck(lambda each: q_regulariser(each)[0], (h,), fast_mode=True)


def test_gradient_by_hand() -> None:
    """Of the ten images, the gradient raises low scores (∂Q/∂h = ¼ − 1/101); of the 101 columns, it lowers large ones."""
    h = peaks().requires_grad_()
    q_regulariser(h)[0].backward()
    assert h.grad is not None
    assert h.grad[0, 0].item() == pytest.approx(-(1 / 4 - 1 / 101) / 10 + 1 / 101)  # low score, large column
    assert h.grad[0, 50].item() == pytest.approx(1 / 101 / 10)  # low score, column of zeros
    assert h.grad[9, 36].item() == pytest.approx(1 / 101)  # high score, large column


def test_it_is_added_to_the_loss_of_simclr() -> None:
    """The same network with and without it; λ = 0 changes nothing, and says nothing in the log."""

    def scalars(weight: float) -> dict[str, Tensor]:
        method = SimCLR(backbone(), SimCLR.Config(hidden=32, dim=16, q_weight=weight), total_steps=10)
        return method(views())

    plain, with_q = scalars(0), scalars(0.5)
    assert "q_score" not in plain
    assert with_q["loss_contrast"].item() == pytest.approx(plain["loss"].item())
    batch = views()
    maps = backbone()(torch.cat([batch.view1, batch.view2]))
    regulariser, q = q_regulariser(maps.mean(dim=(2, 3)))
    assert with_q["q_score"].item() == pytest.approx(q.item(), rel=1e-5)
    assert with_q["loss"].item() == pytest.approx(plain["loss"].item() + 0.5 * regulariser.item(), rel=1e-5)


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(UserError, match=r"method\.q_weight"):
        parse(["--method.name", "simclr", "--method.q_weight", "-1"])

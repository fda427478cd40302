"""PixContrast: cells in the intersection and the loss by hand, limits, invariances; the method as a whole."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import backbone, views
from torch import Tensor

from pretrain.data.views import Views
from pretrain.losses import unit
from pretrain.losses.geometry import in_intersection, positive_mask
from pretrain.losses.pixel import pixel_contrast
from pretrain.methods.pixcontrast import PixContrast

WHOLE = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64)
SMALL = {"hidden": 32, "dim": 16}


def pixcontrast(**settings: float) -> PixContrast:
    model = backbone()
    return PixContrast(model, PixContrast.Config(**(SMALL | settings)), total_steps=10)


def features(*shape: int, seed: int = 0) -> Tensor:
    return unit(torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))


def random_boxes(count: int, seed: int) -> Tensor:
    return torch.rand(count, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_cells_in_the_intersection_by_hand() -> None:
    """2 × 2 cells over the whole image, centres at ¼ and ¾, against its left half, a middle box, and one beside it."""
    others = torch.tensor([[0.0, 0.0, 0.5, 1.0], [0.3, 0.3, 0.7, 0.7], [1.5, 0.0, 2.5, 1.0]], dtype=torch.float64)
    inside = in_intersection(WHOLE.expand(3, 4), others, (2, 2))
    assert inside.tolist() == [[True, False, True, False], [False] * 4, [False] * 4]
    assert in_intersection(others[1:2], WHOLE, (2, 2)).all()
    assert in_intersection(WHOLE, WHOLE, (2, 3)).all()


def test_a_centre_on_the_rim_is_inside() -> None:
    other = torch.tensor([[0.25, 0.75, 1.0, 1.0]], dtype=torch.float64)
    assert in_intersection(WHOLE, other, (2, 2)).tolist() == [[False, False, True, True]]
    point = torch.tensor([[0.5, 0.5, 0.5, 0.5]], dtype=torch.float64)
    assert in_intersection(point, point, (2, 2)).all()


@pytest.mark.parametrize(("axis", "order"), [(1, [0, 3, 2, 1]), (2, [2, 1, 0, 3])])
def test_flipping_moves_the_cells_and_flipping_the_other_view_changes_nothing(axis: int, order: list[int]) -> None:
    boxes, others = random_boxes(64, 0), random_boxes(64, 1)
    plain = in_intersection(boxes, others, (3, 5)).unflatten(1, (3, 5))
    assert plain.any()
    assert not plain.all()
    assert in_intersection(boxes[:, order], others, (3, 5)).unflatten(1, (3, 5)).equal(plain.flip(axis))
    assert in_intersection(boxes, others[:, order], (3, 5)).unflatten(1, (3, 5)).equal(plain)


def test_scaling_and_shifting_both_boxes_changes_nothing() -> None:
    boxes, others = random_boxes(64, 2), random_boxes(64, 3)
    assert in_intersection(4 * boxes + 1, 4 * others + 1, (4, 6)).equal(in_intersection(boxes, others, (4, 6)))


def test_every_cell_in_the_intersection_has_a_positive_from_half_a_diagonal_on() -> None:
    boxes, others = random_boxes(500, 4), random_boxes(500, 5)
    inside = in_intersection(boxes, others, (3, 4))
    assert positive_mask(boxes, others, (3, 4), 0.5 + 1e-9).any(2)[inside].all()


def test_loss_by_hand() -> None:
    """One image of 1 × 3 cells at temperature ½; keys e1, e2, −e1, so logits of e1 are 2, 0, −2 and of e2 0, 2, 0.

    Cell 0 (e1) has positives 0 and 1; cell 1 (e2) has positive 0; cell 2 is outside the intersection.
    """
    e1, e2 = torch.eye(2, dtype=torch.float64)
    query = torch.stack([e1, e2, e1], dim=1).view(1, 2, 1, 3)
    key = torch.stack([e1, e2, -e1], dim=1).view(1, 2, 1, 3)
    mask = torch.tensor([[[True, True, False], [True, False, False], [True, False, False]]])
    counted = torch.tensor([[True, True, False]])
    first = -math.log((math.exp(2) + 1) / (math.exp(2) + 1 + math.exp(-2)))
    second = -math.log(1 / (1 + math.exp(2) + 1))
    assert pixel_contrast(query, key, mask, counted, 0.5).item() == pytest.approx((first + second) / 2)
    two_images = pixel_contrast(
        query.repeat(2, 1, 1, 1),
        key.repeat(2, 1, 1, 1),
        mask.repeat(2, 1, 1),
        torch.stack([counted[0], ~counted[0]]),
        0.5,
    )
    third = -math.log(math.exp(2) / (math.exp(2) + 1 + math.exp(-2)))
    assert two_images.item() == pytest.approx(((first + second) / 2 + third) / 2)


def test_equals_the_definition_term_by_term() -> None:
    """Eq. 1 and 2 with their loops, over a 2 × 2 map and real crops."""
    query, key, boxes, others = (
        features(3, 5, 2, 2),
        features(3, 5, 2, 2, seed=1),
        random_boxes(3, 6),
        random_boxes(3, 7),
    )
    mask, counted = positive_mask(boxes, others, (2, 2), 0.7), in_intersection(boxes, others, (2, 2))
    q, k = query.flatten(2), key.flatten(2)
    images = []
    for b in range(3):
        terms = []
        for i in range(4):
            e = [math.exp((q[b, :, i] @ k[b, :, j]).item() / 0.3) for j in range(4)]
            positives = sum(e[j] for j in range(4) if mask[b, i, j])
            negatives = sum(e[j] for j in range(4) if not mask[b, i, j])
            if counted[b, i]:
                terms.append(-math.log(positives / (positives + negatives)))
        images.append(sum(terms) / len(terms) if terms else 0)
    assert any(images)
    assert pixel_contrast(query, key, mask, counted, 0.3).item() == pytest.approx(sum(images) / 3)


def test_all_positive_gives_zero() -> None:
    everything = torch.ones(2, 4, 4, dtype=torch.bool)
    assert (
        pixel_contrast(features(2, 8, 2, 2), features(2, 8, 2, 2, seed=1), everything, everything[0, :2], 0.3).item()
        == 0
    )


def test_one_cell_has_nothing_to_be_told_from() -> None:
    one = torch.ones(3, 1, 1, dtype=torch.bool)
    assert pixel_contrast(features(3, 8, 1, 1), features(3, 8, 1, 1, seed=1), one, one[:, 0], 0.3).item() == 0


def test_equal_features_give_the_share_of_positives() -> None:
    same = unit(torch.ones(1, 8, 2, 2, dtype=torch.float64))
    mask = torch.tensor([[[True, False, False, False], [True, True, False, False]] * 2])
    loss = pixel_contrast(same, same, mask, torch.ones(1, 4, dtype=torch.bool), 0.3)
    assert loss.item() == pytest.approx((math.log(4) + math.log(2)) / 2)


@pytest.mark.parametrize("counted", [True, False])
def test_no_overlap_gives_zero_loss_and_gradient(counted: bool) -> None:
    query = features(2, 8, 3, 3).requires_grad_()
    loss = pixel_contrast(
        query, features(2, 8, 3, 3, seed=1), torch.zeros(2, 9, 9).bool(), torch.full((2, 9), counted), 0.3
    )
    loss.backward()
    assert loss.item() == 0
    assert query.grad is not None
    assert not query.grad.any()


def test_gradient_by_differences() -> None:
    """Positives many, one, none; a cell that is not counted."""
    query, key = features(2, 4, 2, 2).requires_grad_(), features(2, 4, 2, 2, seed=1).requires_grad_()
    mask = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(3)) < 0.4
    mask[0, 1] = False
    counted = torch.tensor([[True, True, True, False], [True] * 4])
    assert torch.autograd.gradcheck(lambda q, k: pixel_contrast(q, k, mask, counted, 0.3), (query, key))


def test_small_temperature_stays_finite() -> None:
    query = features(2, 8, 3, 3).float().requires_grad_()
    mask = torch.eye(9, dtype=torch.bool).expand(2, 9, 9)
    loss = pixel_contrast(query, -query.detach(), mask, torch.ones(2, 9, dtype=torch.bool), 1e-3)
    loss.backward()
    assert loss.isfinite()
    assert loss > 100
    assert query.grad is not None
    assert query.grad.isfinite().all()


def test_paper_defaults() -> None:
    config = PixContrast.Config()
    assert (config.temperature, config.threshold, config.momentum, config.hidden, config.dim) == (
        0.3,
        0.7,
        0.99,
        4096,
        256,
    )
    assert (config.instance, config.alpha) == ("none", 1.0)


def test_method_is_the_sum_of_both_ways() -> None:
    method, batch = pixcontrast().double(), views(dtype=torch.float64)
    x1, x2 = (unit(method.projector(method.backbone(x))) for x in (batch.view1, batch.view2))
    mask = positive_mask(batch.box1, batch.box2, (2, 2), 0.7)
    inside1, inside2 = (in_intersection(a, b, (2, 2)) for a, b in ((batch.box1, batch.box2), (batch.box2, batch.box1)))
    one, other = pixel_contrast(x1, x2, mask, inside1, 0.3), pixel_contrast(x2, x1, mask.transpose(1, 2), inside2, 0.3)
    assert one.item() > 0
    assert other.item() > 0
    assert method(batch)["loss"].item() == pytest.approx((one + other).item())  # the target is still a copy


def test_swapping_the_views_changes_nothing() -> None:
    batch = views(dtype=torch.float64)
    swapped = batch._replace(view1=batch.view2, view2=batch.view1, box1=batch.box2, box2=batch.box1)
    one, other = pixcontrast().double()(batch), pixcontrast().double()(swapped)
    assert one["loss"].item() == pytest.approx(other["loss"].item(), abs=1e-12)


def test_no_overlap() -> None:
    batch: Views = views()
    scalars = pixcontrast()(batch._replace(box2=batch.box1 + 5))
    assert scalars["loss"].item() == scalars["positives"].item() == 0


def test_gradients_reach_the_student_alone() -> None:
    method = pixcontrast()
    method(views())["loss"].backward()
    with_gradient = {name for name, p in method.named_parameters() if p.grad is not None}
    assert with_gradient == {name for name, _ in method.named_parameters() if not name.startswith("momentum_encoder.")}


def test_loss_in_full_precision_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        scalars = pixcontrast()(views())
    assert {name: x.dtype for name, x in scalars.items()} == dict.fromkeys(scalars, torch.float32)
    scalars["loss"].backward()

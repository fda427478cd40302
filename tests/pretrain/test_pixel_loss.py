"""The pixel consistency loss: hand-derived values, limits, gradients, and the official losses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pretrain.losses import PAIRS, unit
from pretrain.losses.geometry import positive_mask
from pretrain.losses.pixel import pixel_consistency, pulls

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "loss.npz")
CASES = [(case, index) for case in GOLDEN["cases"] for index in range(len(GOLDEN[f"{case}/pos_ratio"]))]


def features(*shape: int, seed: int = 0) -> torch.Tensor:
    return unit(torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize(("case", "index"), CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("f64", 1e-9), ("f32", 1e-6)])
def test_loss_and_gradient_of_the_official_code(case: str, index: int, dtype: str, tolerance: float) -> None:
    q, k, boxes_q, boxes_k = (torch.from_numpy(GOLDEN[f"{case}/{name}"]) for name in ("q", "k", "coord_q", "coord_k"))
    if dtype == "f64":
        q, k, boxes_q, boxes_k = q.double(), k.double(), boxes_q.double(), boxes_k.double()
    q.requires_grad_()
    mask = positive_mask(boxes_q, boxes_k, (q.shape[2], q.shape[3]), float(GOLDEN[f"{case}/pos_ratio"][index]))
    loss = pixel_consistency(q, k, mask)
    loss.backward()
    assert loss.dtype == q.dtype
    np.testing.assert_allclose(loss.item(), GOLDEN[f"{case}/loss_{dtype}"][index], rtol=0, atol=tolerance)
    np.testing.assert_allclose(q.grad, GOLDEN[f"{case}/grad_q_{dtype}"][index], rtol=0, atol=tolerance)


def test_by_hand() -> None:
    """Two images of 1 × 2 cells. Image 1: pairs (0,0) with cosine 1 and (0,1) with 0 -> 1/2. Image 2: no pair -> 0."""
    q = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]] * 2, dtype=torch.float64)  # cell 0 is (1, 0), cell 1 is (0, 1)
    mask = torch.tensor([[[True, True], [False, False]], [[False, False], [False, False]]])
    assert pixel_consistency(q, q, mask).item() == pytest.approx(-2 * (1 / 2 + 0) / 2, abs=1e-6)


def test_no_overlap_gives_zero_loss_and_gradient() -> None:
    q, k = features(2, 8, 3, 3).requires_grad_(), features(2, 8, 3, 3, seed=1)
    loss = pixel_consistency(q, k, torch.zeros(2, 9, 9, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert q.grad is not None
    assert not q.grad.any()


def test_identical_views_reach_minus_two_a_direction() -> None:
    q = features(3, 8, 4, 4)
    mask = torch.eye(16, dtype=torch.bool).expand(3, 16, 16)
    assert pixel_consistency(q, q, mask).item() == pytest.approx(-2, abs=1e-6)
    assert pixel_consistency(q, -q, mask).item() == pytest.approx(2, abs=1e-6)


def test_one_cell() -> None:
    q, k = features(5, 8, 1, 1), features(5, 8, 1, 1, seed=1)
    expected = -2 * (q * k).sum(1).mean().item()
    assert pixel_consistency(q, k, torch.ones(5, 1, 1, dtype=torch.bool)).item() == pytest.approx(expected, abs=1e-5)


def test_symmetric_loss_does_not_depend_on_the_order_of_the_views() -> None:
    q1, q2, k1, k2 = (features(2, 8, 2, 3, seed=s) for s in range(4))
    mask = torch.rand(2, 6, 6, generator=torch.Generator().manual_seed(9)) < 0.3
    back = mask.transpose(1, 2)
    one = pixel_consistency(q1, k2, mask) + pixel_consistency(q2, k1, back)
    other = pixel_consistency(q2, k1, back) + pixel_consistency(q1, k2, back.transpose(1, 2))
    assert one.item() == other.item()


def test_gradient_by_differences() -> None:
    q, k = features(2, 4, 2, 2).requires_grad_(), features(2, 4, 2, 2, seed=1).requires_grad_()
    mask = torch.eye(4, dtype=torch.bool).expand(2, 4, 4)
    assert torch.autograd.gradcheck(lambda q, k: pixel_consistency(q, k, mask), (q, k))


@pytest.mark.parametrize("pairs", [1, 2**20])
def test_both_ways_at_once(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of `pulls`, image by image or all at once, has the value and the gradients of both directions."""
    monkeypatch.setitem(PAIRS, "cpu", pairs)
    generator = torch.Generator().manual_seed(3)
    boxes = tuple(torch.rand(3, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = positive_mask(*boxes, (3, 4), 0.7)
    queries = [features(3, 5, 3, 4, seed=s).requires_grad_() for s in (0, 1)]
    keys = [features(3, 5, 3, 4, seed=s) for s in (2, 3)]
    plain = pixel_consistency(queries[0], keys[1], mask) + pixel_consistency(queries[1], keys[0], mask.mT)
    pull, count = pulls(keys, boxes, 0.7)
    loss = (queries[0] * pull[0]).sum() + (queries[1] * pull[1]).sum()
    assert count.tolist() == mask.sum((1, 2)).tolist() != [0, 0, 0]
    torch.testing.assert_close(loss, plain, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(torch.autograd.grad(loss, queries), torch.autograd.grad(plain, queries), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_full_precision_under_autocast() -> None:
    """Half-precision features are widened before the sum over 49 × 49 pairs; float64 is not narrowed."""
    q, k = features(2, 64, 7, 7).bfloat16(), features(2, 64, 7, 7, seed=1).bfloat16()
    mask = torch.ones(2, 49, 49, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        loss = pixel_consistency(q, k, mask)
        assert pixel_consistency(q.double(), k.double(), mask).dtype == torch.float64
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(pixel_consistency(q.double(), k.double(), mask).item(), rel=1e-4)

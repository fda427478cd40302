"""MoCo: the loss by hand, the queue, who gets gradients; what tells version 1 from version 2."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import backbone, views
from torch.nn.functional import normalize

from pixbench.errors import UserError
from pretrain.losses.instance import info_nce
from pretrain.methods.moco import MoCoV1, MoCoV2
from pretrain.models.queue import enqueue


def moco(queue_size: int = 8, **settings: float) -> MoCoV2:
    model = backbone()
    return MoCoV2(model, MoCoV2.Config(queue_size=queue_size, hidden=32, dim=16, **settings), total_steps=10)


def test_paper_defaults() -> None:
    config = MoCoV2.Config()
    assert (config.queue_size, config.temperature, config.momentum) == (65536, 0.2, 0.999)
    assert (config.hidden, config.dim) == (2048, 128)
    first = MoCoV1.Config()
    assert (first.queue_size, first.temperature, first.momentum, first.dim) == (65536, 0.07, 0.999, 128)


def test_projector_of_each_version() -> None:
    """Version 1 is linear in the average of C5, version 2 has a hidden layer; neither has BN."""
    model = backbone()
    first = MoCoV1(model, MoCoV1.Config(queue_size=8, dim=16), total_steps=10)
    shapes = {name: tuple(p.shape) for name, p in first.projector.named_parameters()}
    assert shapes == {"linear.weight": (16, 64), "linear.bias": (16,)}
    assert {name for name, _ in moco().projector.named_parameters()} == {
        *("linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias")
    }
    maps = torch.randn(2, 64, 2, 2)
    torch.testing.assert_close(
        first.projector(maps), maps.mean((2, 3)) @ first.projector.linear.weight.T + first.projector.linear.bias
    )


def test_version_1_learns_from_view_1_alone() -> None:
    model = backbone()
    method = MoCoV1(model, MoCoV1.Config(queue_size=8, dim=16), total_steps=10).double()
    batch, queue = views(dtype=torch.float64), method.queue.clone()
    scalars = method(batch)
    scalars["loss"].backward()
    with_gradient = {name for name, p in method.named_parameters() if p.grad is not None}
    assert with_gradient == {name for name, _ in method.named_parameters() if not name.startswith("momentum_encoder.")}
    query = normalize(method.projector(method.backbone(batch.view1)), dim=1)
    key = normalize(method.momentum_encoder.projector(method.momentum_encoder.backbone(batch.view2)), dim=1)
    assert scalars["loss"].item() == pytest.approx(info_nce(query, key, queue, 0.07)[0].item())


def test_loss_by_hand() -> None:
    """Cosines 1 with the key and 0, −1 with two negatives at temperature ½; then 0 with the key and 1 with a negative."""
    query = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double()
    key = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).double()
    negatives = torch.tensor([[0.0, 1.0], [-1.0, 0.0]]).double()
    loss, accuracy = info_nce(query, key, negatives, 0.5)
    first = math.log(math.exp(2) + 1 + math.exp(-2)) - 2
    second = math.log(1 + math.exp(2) + 1)
    assert loss.item() == pytest.approx((first + second) / 2)
    assert accuracy.item() == 0.5


def test_gradient_by_differences() -> None:
    torch.manual_seed(0)
    query, key, negatives = (normalize(torch.randn(n, 4).double(), dim=1) for n in (3, 3, 5))
    assert torch.autograd.gradcheck(lambda q: info_nce(q, key, negatives, 0.2)[0], query.requires_grad_())


def test_queue_is_filled_in_order_and_wraps() -> None:
    method = moco()
    first, second, third = (torch.full((4, 16), float(n)) for n in (1, 2, 3))
    for keys in (first, second, third):
        enqueue(method, "queue", keys)
    assert method.queue.equal(torch.cat([third, second]))
    assert method.queue_pointer == 4


def test_batch_goes_into_the_queue_after_it_was_used() -> None:
    """The negatives of a step are the keys of earlier steps; the loss does not see the keys it adds."""
    method = moco(queue_size=4).double()
    batch = views(dtype=torch.float64)
    before = method.queue.clone()
    loss = method(batch)["loss"]
    assert not method.queue.equal(before)
    torch.testing.assert_close(method.queue.norm(dim=1), torch.ones(4, dtype=torch.float64))
    again = moco(queue_size=4).double()
    again.queue.copy_(before)
    query = normalize(again.projector(again.backbone(batch.view1)), dim=1)
    key = normalize(again.momentum_encoder.projector(again.momentum_encoder.backbone(batch.view2)), dim=1)
    assert loss.item() == pytest.approx(info_nce(query, key, before, 0.2)[0].item())


@pytest.mark.parametrize(("queue_size", "advice"), [(2, 4), (10, 8), (13, 12)])
def test_queue_that_the_batch_does_not_divide(queue_size: int, advice: int) -> None:
    with pytest.raises(
        UserError, match=f"queue_size {queue_size} is not a multiple of the total batch 4; set it to {advice}"
    ):
        moco(queue_size)(views())


def test_gradients_reach_the_student_alone() -> None:
    method = moco()
    method(views())["loss"].backward()
    with_gradient = {name for name, p in method.named_parameters() if p.grad is not None}
    assert with_gradient == {name for name, _ in method.named_parameters() if not name.startswith("momentum_encoder.")}


def test_loss_before_learning() -> None:
    """Nothing learned and a temperature that drowns the cosines: ln(K + 1)."""
    assert moco(queue_size=64, temperature=1e6)(views())["loss"].item() == pytest.approx(math.log(65), abs=1e-3)


def test_queue_and_pointer_are_saved() -> None:
    method = moco()
    method(views())
    resumed = moco()
    resumed.load_state_dict(method.state_dict())
    assert resumed.queue.equal(method.queue)
    assert resumed.queue_pointer == 4


def test_loss_in_full_precision_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        scalars = moco()(views())
    assert {name: x.dtype for name, x in scalars.items()} == dict.fromkeys(scalars, torch.float32)
    scalars["loss"].backward()

"""DenseCL: matching of cells by hand, both losses by the plain definition, both queues."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import backbone, views
from torch import Tensor
from torch.nn.functional import normalize

from pixbench.errors import UserError
from pretrain.methods.densecl import DenseCL, matched


def densecl(queue_size: int = 8, **settings: float) -> DenseCL:
    model = backbone()
    return DenseCL(model, DenseCL.Config(queue_size=queue_size, hidden=32, dim=16, **settings), total_steps=10)


def test_paper_defaults() -> None:
    config = DenseCL.Config()
    assert (config.weight, config.queue_size, config.temperature, config.momentum) == (0.5, 65536, 0.2, 0.999)
    assert (config.hidden, config.dim) == (2048, 128)


def test_matching_by_hand() -> None:
    """2 × 2 cells. View 2 has e2, e1, −e1, −e2 of other lengths: cells e1, 3·e1, e2, (1, 2) match 1, 1, 0, 0."""
    cells = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 1.0], [1.0, 2.0]]).T.reshape(1, 2, 2, 2)
    others = torch.tensor([[0.0, 5.0], [0.1, 0.0], [-9.0, 0.0], [0.0, -1.0]]).T.reshape(1, 2, 2, 2)
    values = torch.tensor([10.0, 11.0, 12.0, 13.0]).view(1, 1, 2, 2)
    assert matched(cells, others, values).flatten().tolist() == [11, 11, 10, 10]


def test_matching_is_within_each_image_and_carries_no_gradient_to_the_maps() -> None:
    torch.manual_seed(0)
    maps, others, values = torch.randn(3, 5, 2, 3).requires_grad_(), torch.randn(3, 5, 2, 3), torch.randn(3, 4, 2, 3)
    together = matched(maps, others, values)
    assert together.shape == (3, 6, 4)
    assert not together.requires_grad
    for image in range(3):
        one = slice(image, image + 1)
        assert matched(maps[one], others[one], values[one]).equal(together[one])


def nce(query: Tensor, key: Tensor, queue: Tensor) -> float:
    positive = math.exp((query @ key).item() / 0.2)
    return -math.log(positive / (positive + sum(math.exp((query @ other).item() / 0.2) for other in queue)))


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_equals_the_definition_term_by_term(weight: float) -> None:
    method, batch = densecl(weight=weight).double(), views(dtype=torch.float64)
    with torch.no_grad():
        method.projector_dense.linear2.weight.mul_(torch.randn(16, 1, 1, 1, dtype=torch.float64))
    queue, queue_dense = method.queue.clone(), method.queue_dense.clone()
    with torch.no_grad():
        maps, others = method.backbone(batch.view1), method.momentum_encoder.backbone(batch.view2)
        query, key = normalize(method.projector(maps)), normalize(method.momentum_encoder.projector(others))
        cells = method.projector_dense(maps).flatten(2)
        dense = method.momentum_encoder.get_submodule("projector_dense")(others).flatten(2)
    image = sum(nce(query[b], key[b], queue) for b in range(4)) / 4
    terms = []
    for b in range(4):
        similar = normalize(maps[b].flatten(1), dim=0).T @ normalize(others[b].flatten(1), dim=0)
        for i in range(4):
            match = normalize(dense[b, :, similar[i].argmax()], dim=0)
            terms.append(nce(normalize(cells[b, :, i], dim=0), match, queue_dense))
    scalars = method(batch)
    assert scalars["loss_image"].item() == pytest.approx(image)
    assert scalars["loss_cells"].item() == pytest.approx(sum(terms) / 16)
    assert scalars["loss"].item() == pytest.approx((1 - weight) * image + weight * sum(terms) / 16)
    torch.testing.assert_close(method.queue[:4], key)
    torch.testing.assert_close(method.queue_dense[:4], normalize(dense.mean(2)))
    assert method.queue[4:].equal(queue[4:])
    assert method.get_buffer("queue_dense_pointer") == method.get_buffer("queue_pointer") == 4


def test_dense_head_has_no_batch_norm() -> None:
    names = {n.removeprefix("projector_dense.") for n in densecl().state_dict() if n.startswith("projector_dense.")}
    assert names == {"linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias"}


def test_gradients_reach_the_student_alone() -> None:
    method = densecl()
    method(views())["loss"].backward()
    with_gradient = {name for name, p in method.named_parameters() if p.grad is not None}
    assert with_gradient == {name for name, _ in method.named_parameters() if not name.startswith("momentum_encoder.")}


def test_loss_before_learning() -> None:
    scalars = densecl(queue_size=64, temperature=1e6)(views())
    assert scalars["loss"].item() == pytest.approx(math.log(65), abs=1e-3)


def test_queue_that_the_batch_does_not_divide() -> None:
    with pytest.raises(UserError, match="queue_size 10 is not a multiple of the total batch 4; set it to 8"):
        densecl(queue_size=10)(views())


def test_loss_in_full_precision_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        scalars = densecl()(views())
    assert {name: x.dtype for name, x in scalars.items()} == dict.fromkeys(scalars, torch.float32)
    scalars["loss"].backward()

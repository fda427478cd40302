"""Supervised training: the loss by hand, labels that do not fit."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import backbone, views

from pixbench.errors import UserError
from pretrain.losses.instance import cross_entropy
from pretrain.methods.cds import CDS
from pretrain.methods.supervised import Supervised


def supervised(classes: int = 5) -> Supervised:
    model = backbone()
    return Supervised(model, Supervised.Config(classes=classes), total_steps=10)


def test_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0, 0.0], [2.0, 0.0, 0.0]], dtype=torch.float64)
    loss, accuracy = cross_entropy(logits, torch.tensor([0, 1]))
    total = math.exp(2) + 2
    assert loss.item() == pytest.approx((-math.log(math.exp(2) / total) - math.log(1 / total)) / 2)
    assert accuracy.item() == 0.5


def test_loss_before_learning() -> None:
    method = supervised(7)
    torch.nn.init.zeros_(method.classifier.linear.weight)
    torch.nn.init.zeros_(method.classifier.linear.bias)
    assert method(views())["loss"].item() == pytest.approx(math.log(7))


def test_only_view_1_is_looked_at() -> None:
    batch = views()
    assert supervised()(batch)["loss"].item() == supervised()(batch._replace(view2=batch.view1 + 1))["loss"].item()


def test_every_parameter_gets_a_gradient() -> None:
    method = supervised()
    method.update_momentum_encoder()  # there is none: nothing happens
    method(views())["loss"].backward()
    assert all(p.grad is not None for p in method.parameters())


@pytest.mark.parametrize("cls", [Supervised, CDS])
def test_labels_that_do_not_fit(cls: type[Supervised | CDS]) -> None:
    model = backbone()
    method = cls(model, cls.Config(classes=3), total_steps=10)
    method.check_labels(0, 2)
    with pytest.raises(UserError, match=r"label 3, but method\.classes is 3"):
        method.check_labels(0, 3)
    with pytest.raises(UserError, match="class_folder"):
        method.check_labels(-1, -1)
    with pytest.raises(UserError, match=r"some have none; .* cds with method\.semi_supervised true"):
        method.check_labels(-1, 2)


def test_loss_in_full_precision_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        scalars = supervised()(views())
    assert {name: x.dtype for name, x in scalars.items()} == dict.fromkeys(scalars, torch.float32)
    scalars["loss"].backward()

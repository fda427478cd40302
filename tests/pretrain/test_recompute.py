"""Activation checkpointing changes the memory, and nothing else."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny import backbone, views
from torch import Tensor

from pretrain.methods.pixpro import PixPro
from pretrain.models.recompute import recompute_blocks
from pretrain.models.resnet import Block


def method() -> PixPro:
    return PixPro(backbone(), PixPro.Config(hidden=16, dim=8), total_steps=4)


def kept(model: PixPro) -> int:
    """Bytes that autograd keeps between forward and backward."""
    found: dict[int, int] = {}

    def note(x: Tensor) -> Tensor:
        found[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        loss = model(views())["loss"]
        total = sum(found.values())
        del loss
    return total


def test_the_same_to_the_last_bit() -> None:
    plain = method()
    ours = copy.deepcopy(plain)
    assert recompute_blocks(ours.backbone, Block) == 4
    for model in (plain, ours):
        for seed in (0, 1):
            model.update_momentum_encoder()
            model(views(seed=seed))["loss"].backward()
    gradients = [{name: p.grad for name, p in model.named_parameters() if p.requires_grad} for model in (plain, ours)]
    for name, gradient in gradients[0].items():
        assert gradient is not None
        assert torch.equal(gradient, gradients[1][name]), name
    ours_now = ours.state_dict()
    assert ours_now.keys() == plain.state_dict().keys()
    for name, value in plain.state_dict().items():  # batch norm has counted and averaged each batch once
        assert torch.equal(value, ours_now[name]), name


def test_less_is_kept() -> None:
    plain, ours = method(), method()
    recompute_blocks(ours.backbone, Block)
    assert kept(ours) < 0.7 * kept(plain)


@pytest.mark.parametrize("train", [True, False])
def test_no_gradient_no_recomputation(train: bool) -> None:
    ours = backbone().train(train)
    recompute_blocks(ours, Block)
    with torch.no_grad():
        assert not ours(torch.randn(2, 3, 64, 64)).requires_grad

"""1×1 convolutions as products: the values, gradients and names of a convolution."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pretrain.models.pointwise import Pointwise


@pytest.mark.parametrize("shape", [(3, 6, 4, 5), (2, 6, 1, 1), (1, 6, 30, 30)])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_a_convolution(shape: tuple[int, ...], memory_format: torch.memory_format, bias: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(6, 8, 1, bias=bias).double()
    ours = Pointwise(6, 8, bias=bias).double()
    ours.load_state_dict(plain.state_dict())
    x = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=memory_format).requires_grad_()
    found = []
    for layer in (plain, ours):
        layer.to(memory_format=memory_format)
        y = layer(x)
        found.append([y, *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])])
    for theirs, mine in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
    assert found[1][0].is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("channels", [3, 4, 5, 8])
@pytest.mark.parametrize("side", [8, 7, 1])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_strides(channels: int, side: int, memory_format: torch.memory_format) -> None:
    """With one thread, oneDNN's convolution of fewer than 8 channels ends the process here, or gives wrong gradients."""
    torch.manual_seed(0)
    layer = Pointwise(channels, 16, 2, bias=False).to(memory_format=memory_format)
    x = torch.randn(4, channels, side, side).contiguous(memory_format=memory_format).requires_grad_()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = [layer(x), *torch.autograd.grad(layer(x).square().sum(), [x, layer.weight])]
    finally:
        torch.set_num_threads(threads)
    weight = layer.weight.detach().double().requires_grad_()
    exact = x.detach().double().requires_grad_()
    y = torch.einsum("bchw,oc->bohw", exact[..., ::2, ::2], weight[..., 0, 0])
    wanted = [y, *torch.autograd.grad(y.square().sum(), [exact, weight])]
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-4, atol=1e-4)
    assert found[0].is_contiguous(memory_format=memory_format)


def test_an_image_without_a_batch() -> None:
    assert Pointwise(3, 2)(torch.randn(3, 4, 4)).shape == (2, 4, 4)
    assert Pointwise(3, 2, 2)(torch.randn(3, 4, 4)).shape == (2, 2, 2)


def test_the_gradient_lies_in_memory_as_the_weight() -> None:
    """Otherwise several processes copy it once more, and PyTorch warns of that in each of them."""
    layer = Pointwise(8, 4).to(memory_format=torch.channels_last)
    layer(torch.rand(2, 8, 7, 7).contiguous(memory_format=torch.channels_last)).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.stride() == layer.weight.stride()

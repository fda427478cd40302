"""What each network in `examples/backbones` promises: maps, attributes, numbers of parameters, training, messages."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any

import pytest
import torch
from torch import nn

from examples.backbones.nat import nat_mini, nat_tiny
from examples.backbones.shunted import shunted_base, shunted_small, shunted_tiny
from examples.backbones.uniformer import uniformer_base, uniformer_small
from pixbench.errors import UserError

Maker = Callable[..., Any]
TINY: list[tuple[Maker, dict[str, Any]]] = [
    (nat_mini, {"width": 16, "head_dim": 8, "depths": [1, 1, 2, 1]}),
    (uniformer_small, {"widths": [8, 16, 24, 32], "head_dim": 8, "depths": [1, 1, 2, 1]}),
    (shunted_small, {"width": 16, "head_dim": 8, "depths": [1, 1, 2, 1]}),
]
tiny = pytest.mark.parametrize(("make", "options"), TINY, ids=[make.__name__ for make, _ in TINY])


@pytest.mark.parametrize("size", [(224, 224), (96, 64), (75, 101), (33, 32)])
@tiny
def test_maps_have_the_channels_and_strides_that_are_declared(
    make: Maker, options: dict[str, Any], size: tuple[int, int]
) -> None:
    net = make(**options).eval()
    with torch.no_grad():
        maps = net(torch.randn(2, 3, *size))
    assert isinstance(net.channels, tuple)
    assert net.strides == (4, 8, 16, 32)
    cells = [tuple(ceil(side / stride) for side in size) for stride in net.strides]
    assert [tuple(each.shape) for each in maps] == [
        (2, channels, *side) for channels, side in zip(net.channels, cells, strict=True)
    ]


@pytest.mark.parametrize(
    ("make", "channels", "millions"),
    [
        (uniformer_small, (64, 128, 320, 512), 22),
        (uniformer_base, (64, 128, 320, 512), 50),
        (shunted_tiny, (64, 128, 256, 512), 11.5),
        (shunted_small, (64, 128, 256, 512), 22.4),
        (shunted_base, (64, 128, 256, 512), 39.6),
        (nat_mini, (64, 128, 256, 512), 20),
        (nat_tiny, (64, 128, 256, 512), 28),
    ],
)
def test_there_are_as_many_parameters_as_in_the_papers_tables(
    make: Maker, channels: tuple[int, ...], millions: float
) -> None:
    """The tables include the classifier, and round or cut off at the last digit that they print."""
    with torch.device("meta"):
        net = make()
        classifier = nn.Linear(net.channels[-1], 1000)
    assert net.channels == channels
    number = sum(parameter.numel() for part in (net, classifier) for parameter in part.parameters())
    assert abs(number / 1e6 - millions) < (0.06 if millions % 1 else 0.5)


@tiny
def test_the_coarsest_map_alone_trains_every_parameter(make: Maker, options: dict[str, Any]) -> None:
    """Most methods read that map alone, and DistributedDataParallel waits for parameters without a gradient."""
    torch.manual_seed(0)
    net = make(**options)
    last = net(torch.randn(3, 3, 64, 96))[-1]
    (last * torch.randn_like(last)).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@tiny
def test_stochastic_depth_acts_in_training_alone(make: Maker, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    images = torch.randn(4, 3, 32, 32)
    net = make(**options, drop_path=0.9)
    assert not torch.equal(net(images)[-1], net(images)[-1])
    net.eval()
    with torch.no_grad():
        assert all(torch.equal(once, again) for once, again in zip(net(images), net(images), strict=True))
        alone = net(images[:1])
    assert torch.allclose(alone[-1], net(images)[-1][:1], atol=1e-5)


@pytest.mark.parametrize(
    ("make", "options", "named"),
    [
        (nat_mini, {"width": 48}, "width 48"),
        (nat_mini, {"kernel": 6}, "kernel 6"),
        (uniformer_small, {"widths": (64, 128, 300, 512)}, "300"),
        (uniformer_small, {"depths": (1, 1, 1)}, r"\[1, 1, 1\]"),
        (shunted_tiny, {"width": 32}, "width 32"),
        (shunted_tiny, {"depths": (1, 1)}, r"\[1, 1\]"),
    ],
)
def test_options_that_do_not_fit_are_refused(make: Maker, options: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        make(**options)

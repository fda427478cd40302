"""Activation checkpointing: keep only the input of each block, and compute the rest again for the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recompute_blocks(network: nn.Module, block: type[nn.Module]) -> int:
    """Let each ``block`` in ``network`` keep only its input, and return their number.

    Values and gradients stay the same. Running statistics of batch norm are updated in the first pass only, so they stay the same
    too. The names of parameters do not change.
    """
    found = [module for module in network.modules() if isinstance(module, block)]
    for module in found:
        module.forward = partial(_recomputed, module, module.forward)
    return len(found)


def _recomputed(module: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    if not x.requires_grad and not any(p.requires_grad for p in module.parameters()):
        return forward(x)
    result: Tensor = checkpoint(
        forward, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _without_statistics(module))
    )
    return result


@contextmanager
def _without_statistics(module: nn.Module) -> Iterator[None]:
    """Let no batch norm in ``module`` update its statistics."""
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count

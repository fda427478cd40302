"""One step of a pre-training method on tensors without values, of a GPU that need not exist: what it refuses, and what it costs.

Nothing is computed, so a whole batch of the paper's size takes a few seconds. Operations and activations are those of the code
that runs on a GPU, with its precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from pretrain.data.views import Views
from pretrain.methods import METHODS
from pretrain.methods.base import Method, TwoPassMethod
from pretrain.models.families import Spec, build_backbone
from pretrain.models.shapes_only import shapes_only
from pretrain.settings import MethodConfig, RunConfig
from pretrain.step import PRECISIONS
from pretrain.teacher import add_teacher, find_teacher

STATES = {"adamw": 2}
"""Optimiser -> number of values that it keeps for each trained weight; the others keep one, the momentum."""


@dataclass(frozen=True)
class DryStep:
    """What one part of a batch costs, over all processes."""

    images: int
    """Images in the part."""
    operations: int
    """Floating-point operations, forward and backward: a backward pass counts as two forward passes."""
    activations: int
    """Bytes that are kept between a forward and its backward pass."""
    parameters: int
    """Bytes of all parameters, with those of the momentum encoder."""
    trained: int
    """Bytes of those that the optimiser changes."""
    buffers: int
    """Bytes of statistics and queues."""
    states: int
    """Number of values that the optimiser keeps for each trained weight."""
    pixels: int
    """Bytes of the normalised views."""

    @property
    def checkpoint(self) -> int:
        """Bytes of a checkpoint: the method and the state of its optimiser."""
        return self.parameters + self.buffers + self.states * self.trained

    def memory(self, processes: int) -> int:
        """Return about how many bytes each GPU needs: weights, gradients, optimiser, activations and views."""
        return self.checkpoint + self.trained + (self.activations + self.pixels) // processes


def dry_step(config: RunConfig) -> DryStep:
    """Send one part of a batch of ``config``, of all processes together, through its method.

    Raises:
        UserError: The method refuses it, for example because the queue is not a multiple of the batch.
    """
    part = config.batch_size // config.accumulate
    data, states = config.data, STATES.get(config.optimizer.name, 1)
    sizes = (data.image_size, data.local_crops, data.local_size)
    return _dry(config.method, config.backbone, sizes, part, config.precision, config.activation_checkpointing, states)


def without_values(config: RunConfig) -> Method:
    """Return the method of ``config`` with parameters that have a shape, but no values."""
    return _method(config.method, config.backbone)


def _method(method: MethodConfig, backbone: Spec) -> Method:
    teacher = find_teacher(method.settings)
    with shapes_only():
        built = METHODS[method.name](build_backbone(backbone), method.settings, 1)
        add_teacher(built, teacher and replace(teacher, state=None))
    return built


@cache
def _dry(
    method: MethodConfig,
    backbone: Spec,
    sizes: tuple[int, int, int],
    part: int,
    precision: str,
    recompute: bool,
    states: int,
) -> DryStep:
    built = _method(method, backbone)
    if recompute:
        built.backbone.keep_inputs_only()
    step = _Step(built)
    trained = {name for name, weight in step.named_parameters() if weight.requires_grad}
    like = {name: (x.shape, x.stride(), x.dtype) for name, x in step.state_dict().items()}
    with FakeTensorMode(), _autocast(PRECISIONS[precision]), _Operations() as counter:
        state = {
            name: torch.empty_strided(shape, stride, dtype=dtype, device="cuda").requires_grad_(name in trained)
            for name, (shape, stride, dtype) in like.items()
        }
        views = _views(part, *sizes)
        activations = torch.func.functional_call(step, state, (views,))
        parameters = {name for name, _ in step.named_parameters()}
        bytes_of = {name: x.untyped_storage().nbytes() for name, x in state.items()}
        crops = (views.view1, views.view2, *([] if views.local is None else [views.local]))
        pixels = sum(crop.untyped_storage().nbytes() for crop in crops)
    return DryStep(
        images=part,
        operations=counter.total,
        activations=activations,
        parameters=sum(bytes_of[name] for name in parameters),
        trained=sum(bytes_of[name] for name in trained),
        buffers=sum(count for name, count in bytes_of.items() if name not in parameters),
        states=states,
        pixels=pixels,
    )


def _views(count: int, size: int, crops: int, crop_size: int) -> Views:
    images = [torch.empty(count, 3, size, size, device="cuda", memory_format=torch.channels_last) for _ in range(2)]
    boxes = [torch.empty(count, 4, device="cuda") for _ in range(2)]
    numbers = [torch.empty(count, dtype=torch.int64, device="cuda") for _ in range(2)]
    local = torch.empty(count, crops, 3, crop_size, crop_size, device="cuda") if crops else None
    return Views(*images, *boxes, *numbers)._replace(local=local)


class _Step(nn.Module):
    """All of a step that belongs to a method; returns the largest number of bytes that a loss keeps for its gradient."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, views: Views) -> int:
        self.method.update_momentum_encoder()
        own = {x.untyped_storage()._cdata for x in (*self.method.parameters(), *self.method.buffers())}
        kept: dict[int, int] = {}
        alive = []

        def keep(x: Tensor) -> Tensor:
            storage = x.untyped_storage()
            if storage._cdata not in own:
                kept[storage._cdata] = storage.nbytes()
                alive.append(storage)  # so that no other gets its number
            return x

        most = 0
        losses = self._losses(views)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            for _ in losses:
                most = max(most, sum(kept.values()))
                kept.clear()
        return most

    def _losses(self, views: Views) -> Iterator[Tensor]:
        """Yield what the engine sends backward in a step, one after the other."""
        if not isinstance(self.method, TwoPassMethod):
            yield self.method(views)["loss"]
            return
        with torch.no_grad():
            targets = self.method.targets(views)
        for view in (0, 1):
            yield self.method(views, targets, view)["loss"]


class _Operations(TorchDispatchMode):
    """Count floating-point operations: those with a gradient three times."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func._overloadpacket):
            self.total += (3 if torch.is_grad_enabled() else 1) * count(*args, **(kwargs or {}), out_val=result)
        return result


@contextmanager
def _autocast(dtype: torch.dtype) -> Iterator[None]:
    """Compute as `torch.autocast` does on a GPU. It refuses to where there is none."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", dtype != torch.float32)
    torch.set_autocast_dtype("cuda", dtype if dtype != torch.float32 else before[1])
    try:
        yield
    finally:
        torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])

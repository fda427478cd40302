"""One step of a run: a batch goes through the method, and the weights are updated once."""

from __future__ import annotations

import random
from contextlib import nullcontext
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from pixbench.distributed import mean_over_processes, rank
from pretrain.data.views import Views
from pretrain.methods.base import TwoPassMethod, add_up
from pretrain.run import Run
from pretrain.settings import RunConfig

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def train_step(run: Run, views: Views) -> dict[str, Any]:
    """Make one update and return the values to log; "loss" is the mean over the processes.

    If the loss or a gradient is NaN or infinite, weights, optimiser and batch norm statistics stay as they are, and "bad" is
    True; the momentum encoder, the queues and the counters move on.
    The host never waits for the device: the values are tensors on it, except "lr".
    """
    config, method = run.config, run.method
    lr = run.schedule.lr(run.step)
    decay = run.schedule.weight_decay(config.optimizer.weight_decay, run.step)
    for group in run.optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
        if group.get("adapt", True):  # all but the one-dimensional parameters of LARS and AdamW
            group["weight_decay"] = decay
    torch.manual_seed(step_seed(config, run.step, rank()))
    method.update_momentum_encoder()
    run.guard.keep()
    run.optimizer.zero_grad(set_to_none=True)
    parts = views.chunks(config.accumulate)
    logged = [passes(run, on_device(part, run), last=number == len(parts)) for number, part in enumerate(parts, 1)]
    values = {name: torch.stack([part[name] for part in logged]).mean(0) for name in logged[0]}
    loss = mean_over_processes(values["loss"])
    for weight in method.frozen_in_step():
        weight.grad = None
    if config.optimizer.clip_norm:
        run.scaler.unscale_(run.optimizer)
        torch.nn.utils.clip_grad_norm_(run.method.parameters(), config.optimizer.clip_norm, foreach=True)
    bad = ~(loss if run.scaler.is_enabled() else loss + gradient_size(run)).isfinite()
    if not run.scaler.is_enabled():  # else it finds bad gradients itself: with fp16 some are normal
        run.optimizer.found_inf = bad.to(torch.float32)  # type: ignore[attr-defined]
        run.optimizer.grad_scale = None  # type: ignore[attr-defined]
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.guard.restore(bad)
    return {**values, "loss": loss, "lr": lr, "bad": bad}


def passes(run: Run, views: Views, last: bool) -> dict[str, Tensor]:
    """Send one part of a batch forward and backward and return its scalars. The processes exchange the gradients of the last."""
    config, method, model = run.config, run.method, run.model
    autocast = partial(
        torch.autocast, run.device.type, PRECISIONS[config.precision], enabled=config.precision != "fp32"
    )
    inputs: list[tuple[Any, ...]] = [(views,)]
    if isinstance(method, TwoPassMethod):
        with torch.no_grad(), autocast():
            targets = method.targets(views)
        inputs = [(views, targets, view) for view in (0, 1)]
    scalars = []
    for number, given in enumerate(inputs, 1):
        waits = isinstance(model, DistributedDataParallel) and not (last and number == len(inputs))
        with model.no_sync() if waits else nullcontext():  # type: ignore[operator]
            with autocast():
                found = model(*given)
            run.scaler.scale(found["loss"] / config.accumulate).backward()
        scalars.append({name: value.detach() for name, value in found.items()})
    return add_up(scalars) if len(scalars) > 1 else scalars[0]


def gradient_size(run: Run) -> Tensor:
    """Return the sum of the norms of all gradients, on the device: not finite if one value is not."""
    gradients = [weight.grad for weight in run.method.parameters() if weight.grad is not None]
    return torch.stack(torch._foreach_norm(gradients)).sum()


def step_seed(config: RunConfig, step: int, rank: int) -> int:
    """Return the seed of the random numbers that a method draws in the step after ``step`` steps.

    They depend on nothing else, so no generator state has to be saved.
    """
    return random.Random(f"{config.seed}/{step}/{rank}").getrandbits(63)


def on_device(views: Views, run: Run) -> Views:
    """Return ``views`` on the device of ``run``, ready for its method and in its memory format."""
    memory_format = torch.channels_last if run.config.channels_last else torch.contiguous_format
    views = copied(views, run.device).ready()
    return views._replace(
        view1=views.view1.contiguous(memory_format=memory_format),
        view2=views.view2.contiguous(memory_format=memory_format),
    )


def copied(views: Views, device: torch.device) -> Views:
    """Return ``views`` on ``device``. A GPU copies them in a stream of its own, while it still computes the step before."""
    if device.type != "cuda":
        return views.to(device)
    copies, steps = _copy_stream(device), torch.cuda.current_stream(device)
    with torch.cuda.stream(copies):
        views = views.to(device)
    steps.wait_stream(copies)
    for part in views:
        if part is not None and part.is_cuda:
            part.record_stream(steps)  # its memory belongs to the other stream, which must not reuse it before
    return views


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)

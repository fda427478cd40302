"""One step of a run: a batch goes through the method, and the weights are updated once."""

from __future__ import annotations

import random
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from pixbench.distributed import mean_over_processes, rank
from pretrain.config import RunConfig
from pretrain.data.views import Views
from pretrain.run import Run

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def train_step(run: Run, views: Views) -> dict[str, Any]:
    """Make one update and return the values to log; "loss" is the mean over the processes.

    If the loss is not finite, the weights are not updated, and "bad" is set.
    """
    config, device = run.config, run.device
    lr = run.schedule.lr(run.step)
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    torch.manual_seed(step_seed(config, run.step, rank()))
    run.method.update_momentum_encoder()
    run.optimizer.zero_grad(set_to_none=True)
    logged: list[dict[str, Tensor]] = []
    for number, part in enumerate(views.chunks(config.accumulate), 1):
        model = run.model
        waits = isinstance(model, DistributedDataParallel) and number < config.accumulate
        with model.no_sync() if waits else nullcontext():  # type: ignore[operator]  # exchange gradients with the last part only
            with torch.autocast(device.type, PRECISIONS[config.precision], enabled=config.precision != "fp32"):
                found = model(on_device(part, run))
            run.scaler.scale(found["loss"] / config.accumulate).backward()
        logged.append({name: value.detach() for name, value in found.items()})
    values = {name: torch.stack([part[name] for part in logged]).mean(0) for name in logged[0]}
    loss = mean_over_processes(values["loss"])
    bad = not loss.isfinite()
    if not bad:
        run.scaler.step(run.optimizer)
        run.scaler.update()
    return {**values, "loss": loss, "lr": lr, "bad": bad}


def step_seed(config: RunConfig, step: int, rank: int) -> int:
    """Return the seed of the random numbers that a method draws in the step after ``step`` steps.

    They depend on nothing else, so no generator state has to be saved.
    """
    return random.Random(f"{config.seed}/{step}/{rank}").getrandbits(63)


def on_device(views: Views, run: Run) -> Views:
    """Return ``views`` on the device of ``run`` and in its memory format."""
    memory_format = torch.channels_last if run.config.channels_last else torch.contiguous_format
    views = views.to(run.device)
    return views._replace(
        view1=views.view1.contiguous(memory_format=memory_format),
        view2=views.view2.contiguous(memory_format=memory_format),
    )

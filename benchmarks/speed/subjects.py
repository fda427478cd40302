"""The pieces of work that are timed: each function prepares one and returns a function that does it once.

Shapes: B batch, S view size, C channels, N = H·W cells.
"""

from __future__ import annotations

import atexit
import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.models import ResNet as TorchvisionResNet
from torchvision.models.resnet import Bottleneck

from benchmarks.input_rate import photos
from benchmarks.speed import reference
from pixbench.paths import CONFIGS
from pretrain import cpu
from pretrain.config import parse
from pretrain.data import opencv, pil
from pretrain.data.augment import RECIPES, Changes
from pretrain.data.batched import normalised
from pretrain.data.views import Views, draw_views
from pretrain.losses import unit
from pretrain.losses.pixel import pulls
from pretrain.models.families import build_backbone
from pretrain.models.ppm import PixelPropagation
from pretrain.run import setup
from pretrain.settings import RunConfig
from pretrain.step import train_step

Work = Callable[[], Any]
BATCH = {"cpu": 8, "cuda": 64}
"""Images in a step at the published size."""
CHANNELS = 256
"""Channels of the maps with which loss and PPM are timed."""


def input_reference() -> Work:
    """Two normalised views and boxes of each photo, with the published transforms."""
    makers = (reference.ViewMaker(224, blur=1.0, solarise=0.0), reference.ViewMaker(224, blur=0.1, solarise=0.2))
    files = photos()
    random.seed(0)
    torch.manual_seed(0)
    return lambda: [reference.make_views(file, makers) for file in files]


def _input(backend: Any, colours: bool = True) -> Work:
    files, rng = photos(), random.Random(0)

    def work() -> None:
        for file in files:
            image = backend.load(file, "photo", None)
            plans = draw_views(rng, RECIPES["byol"], image.shape[1], image.shape[0], (0.08, 1.0))
            if not colours:
                plans = plans[0]._replace(changes=Changes()), plans[1]._replace(changes=Changes())
            views = np.stack([backend.render(image, plan, 224) for plan in plans])
            if colours:
                normalised(torch.from_numpy(views).permute(0, 3, 1, 2))

    return work


def input_opencv() -> Work:
    """The same with the backend opencv."""
    return _input(opencv)


def input_crops() -> Work:
    """What the CPU does of it if a GPU changes the colours and normalises."""
    return _input(opencv, colours=False)


def input_pil() -> Work:
    """The same with the backend pil."""
    return _input(pil)


def _wait(work: Work, device: str) -> Work:
    """Return ``work`` that ends when a GPU has done all of it."""
    if device == "cpu":
        return work

    def both() -> None:
        work()
        torch.cuda.synchronize()

    return both


def _boxes(batch: int, generator: torch.Generator) -> Tensor:
    corner = torch.rand(batch, 2, generator=generator) * 0.4
    return torch.cat([corner, corner + 0.2 + torch.rand(batch, 2, generator=generator) * 0.4], dim=1)


def _views(batch: int, size: int, device: str) -> Views:
    generator = torch.Generator().manual_seed(0)
    one, two = torch.randn(2, batch, 3, size, size, generator=generator).unbind()
    index = torch.arange(batch)
    return Views(one, two, _boxes(batch, generator), _boxes(batch, generator), index, index).to(torch.device(device))


def _config(*files: str) -> RunConfig:
    return parse([word for name in files for word in ("--config", str(CONFIGS / "pretrain" / f"{name}.yaml"))])


def step_reference(device: str, fp16: bool = False) -> Work:
    """A step of PixPro with ResNet-50 at 224 pixels, written plainly."""
    network = reference.trunk(TorchvisionResNet(Bottleneck, [3, 4, 6, 3]))
    torch.manual_seed(0)
    trainer, views = reference.Trainer(network, 2048, device=device, fp16=fp16), _views(BATCH[device], 224, device)
    return lambda: trainer.step(views.view1, views.view2, views.box1, views.box2)


def step_reference_fp16(device: str) -> Work:
    """The same in mixed precision, as published."""
    return step_reference(device, fp16=True)


def mini_reference(device: str) -> Work:
    """The same at mini scale: a network of a quarter of the width, 64 images of 64 pixels."""
    config = _config("pixpro_100ep", "mini")
    network = build_backbone(config.backbone)
    torch.manual_seed(0)
    settings = config.method.settings
    trainer = reference.Trainer(network, network.channels, settings.hidden, settings.dim, device=device)
    views = _views(64, 64, device)
    return lambda: trainer.step(views.view1, views.view2, views.box1, views.box2)


def _step(config: RunConfig, size: int, device: str) -> Work:
    """Prepare the engine's own step of ``config``, for a run on images that are never read."""
    cpu.keep_freed_memory()
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for number in range(config.batch_size):
        Image.new("RGB", (8, 8)).save(folder / f"{number}.png")
    data = replace(config.data, root=str(folder), layout="flat")
    run = setup(replace(config, data=data, out=str(folder / "run")), torch.device(device))
    run.model.train()
    views = _views(config.batch_size, size, device)

    def work() -> float:
        return float(train_step(run, views)["loss"])  # reading the loss waits for the device

    return work


def step_ours(device: str, **changes: Any) -> Work:
    """The same step by this project."""
    changes = {"batch_size": BATCH[device], "precision": "fp32", **changes}
    return _step(replace(_config("pixpro_100ep"), **changes), 224, device)


def step_bf16(device: str) -> Work:
    """The same step with bf16."""
    return step_ours(device, precision="bf16")


def step_fp16(device: str) -> Work:
    """The same step with fp16 and scaled gradients."""
    return step_ours(device, precision="fp16")


def step_recomputed(device: str) -> Work:
    """The same step with activation checkpointing."""
    return step_ours(device, activation_checkpointing=True)


def step_accumulated(device: str) -> Work:
    """The same step in two parts."""
    return step_ours(device, accumulate=2)


def mini_ours(device: str) -> Work:
    """The same step at mini scale by this project."""
    return _step(_config("pixpro_100ep", "mini"), 64, device)


def _maps(side: int, batch: int, device: str) -> tuple[list[Tensor], list[Tensor], tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(batch, CHANNELS, side, side, generator=generator).to(device) for _ in range(4)]
    boxes = _boxes(batch, generator).to(device), _boxes(batch, generator).to(device)
    return [unit(x).requires_grad_() for x in maps[:2]], [unit(x) for x in maps[2:]], boxes


def loss_reference(side: int, batch: int, device: str) -> Work:
    """The loss in both directions and its gradient, with dense matrices."""
    queries, keys, (box1, box2) = _maps(side, batch, device)

    def work() -> Any:
        loss = reference.consistency(queries[0], keys[1], box1, box2)
        loss = loss + reference.consistency(queries[1], keys[0], box2, box1)
        return torch.autograd.grad(loss, queries), loss

    return work


def loss_ours(side: int, batch: int, device: str) -> Work:
    """The same by this project."""
    cpu.keep_freed_memory()
    queries, keys, boxes = _maps(side, batch, device)

    def work() -> Any:
        pull, _ = pulls(keys, boxes, 0.7)
        loss = (queries[0] * pull[0]).sum() + (queries[1] * pull[1]).sum()
        return torch.autograd.grad(loss, queries), loss

    return work


def ppm_reference(side: int, batch: int, device: str) -> Work:
    """The PPM and its gradient, with dense matrices."""
    module, x = PixelPropagation(CHANNELS).to(device), _maps(side, batch, device)[0][0]
    return lambda: torch.autograd.grad(reference.propagate(x, module.transform).sum(), x)


def ppm_ours(side: int, batch: int, device: str) -> Work:
    """The same by this project."""
    cpu.keep_freed_memory()
    module, x = PixelPropagation(CHANNELS).to(device), _maps(side, batch, device)[0][0]
    return lambda: torch.autograd.grad(module(x).sum(), x)


INPUTS: dict[str, Callable[[], Work]] = {f.__name__: f for f in (input_reference, input_opencv, input_crops, input_pil)}
STEPS: dict[str, Callable[[str], Work]] = {
    **{f.__name__: f for f in (step_reference, step_reference_fp16, step_ours, step_bf16, step_fp16)},
    **{f.__name__: f for f in (step_recomputed, step_accumulated, mini_reference, mini_ours)},
}
SIDED: dict[str, Callable[[int, int, str], Work]] = {
    f.__name__: f for f in (loss_reference, loss_ours, ppm_reference, ppm_ours)
}


def prepare(name: str) -> Work:
    """Return the work called ``name``.

    It is a key of `INPUTS` or `STEPS`, or of `SIDED` with cells on a side and batch ("loss_ours:28:32"). A name that ends in
    "@cuda" means the work on a GPU.
    """
    what, _, device = name.partition("@")
    device = device or "cpu"
    kind, *numbers = what.split(":")
    if kind in INPUTS:
        return INPUTS[kind]()
    if kind in STEPS:
        return STEPS[kind](device)
    side, batch = map(int, numbers)
    return _wait(SIDED[kind](side, batch, device), device)

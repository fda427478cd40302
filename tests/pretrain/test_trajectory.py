"""A whole training run of the official code, step by step in float64 (tests/golden/README.md, trajectory.npz)."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pretrain.data.views import Views
from pretrain.methods.pixpro import PixPro
from pretrain.models.resnet import ResNet
from pretrain.optim import OptimizerConfig, build_optimizer, scaled_lr
from pretrain.schedule import LRSchedule, ScheduleConfig

pytestmark = pytest.mark.slow

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "trajectory.npz")
RUN = json.loads(str(GOLDEN["lars/config"]))
NAMES = [str(name) for name in GOLDEN["lars/names"]]
OURS = {  # the official code's prefixes and ours
    "encoder_k.": "momentum_encoder.backbone.",
    "projector_k.": "momentum_encoder.projector.",
    "encoder.": "backbone.",
    "projector.": "projector.",
    "value_transform.": "propagation.transform.",
}


def ours(name: str) -> str:
    prefix = next(p for p in OURS if name.startswith(p))
    return OURS[prefix] + name.removeprefix(prefix)


def initial_value(name: str, like: Tensor) -> Tensor:
    name = name.replace("_k.", ".", 1)  # the key side starts as a copy
    if name.endswith((".bias", "running_mean")):
        return torch.zeros_like(like)
    if name.endswith("running_var") or like.ndim == 1:
        return torch.ones_like(like)
    random = np.random.RandomState(zlib.crc32(name.encode()))
    return torch.from_numpy(0.02 * random.standard_normal(like.numel()).reshape(like.shape)).to(like)


def method() -> PixPro:
    config = PixPro.Config(
        gamma=RUN["pixpro_p"],
        layers=RUN["pixpro_transform_layer"],
        clamp=RUN["pixpro_clamp_value"],
        threshold=RUN["pixpro_pos_ratio"],
        momentum=RUN["pixpro_momentum"],
        dim=RUN["feature_dim"],
    )
    method = PixPro(ResNet(tuple(RUN["blocks"])), config, total_steps=int(GOLDEN["lars/ema_K"])).double()
    state = method.state_dict()
    assert {n for n in state if state[n].is_floating_point()} == {ours(name) for name in NAMES}
    for name in NAMES:
        state[ours(name)] = initial_value(name, state[ours(name)])
    method.load_state_dict(state)
    return method


def images(step: int, view: int) -> Tensor:
    size, cell, count = RUN["image_size"], RUN["noise_cell"], RUN["batch_size"]
    random = np.random.RandomState(RUN["seed_image"] + 2 * step + view)
    low = random.standard_normal((count, 3, size // cell, size // cell)).repeat(cell, axis=2).repeat(cell, axis=3)
    pixels = low + 0.1 * random.standard_normal((count, 3, size, size))
    check = [pixels.sum(), pixels.flat[0], pixels.flat[-1]]
    np.testing.assert_allclose(check, GOLDEN["lars/image_check"][step, view], rtol=1e-9)
    return torch.from_numpy(pixels)


def batches() -> Iterator[Views]:
    for step in range(RUN["steps"]):
        box1, box2 = (torch.from_numpy(GOLDEN[f"lars/coord_{side}"][step]).double() for side in (1, 2))
        index = torch.arange(RUN["batch_size"])
        yield Views(images(step, 0), images(step, 1), box1, box2, index, index)


def assert_state(model: PixPro, step: int) -> None:
    state = model.state_dict()
    tensors = [state[ours(name)] for name in NAMES]
    norms, sums = GOLDEN["lars/param_norm_f64"][step], GOLDEN["lars/param_sum_f64"][step]
    np.testing.assert_allclose([x.norm() for x in tensors], norms, rtol=1e-5, atol=1e-9)
    # A sum may cancel to nearly nothing, so it is held against the norm, which bounds it up to the root of the size.
    scale = norms * np.sqrt([x.numel() for x in tensors]) + 1e-9
    np.testing.assert_array_less(abs(np.array([x.sum() for x in tensors]) - sums) / scale, 1e-5)
    heads = np.array([x.flatten()[:3].numpy() for x in tensors])
    expected = GOLDEN["lars/param_head_f64"][step]
    np.testing.assert_array_less(abs(heads - expected).max(1), 1e-5 * norms + 1e-9)


def assert_gradients(model: PixPro, step: int) -> None:
    names, expected = GOLDEN["lars/trainable"], GOLDEN["lars/grad_norm_f64"][step]
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {ours(name) for name in names}
    for name, norm in zip(names, expected, strict=True):
        if norm > 1e-6:  # smaller ones vanish in exact arithmetic: rounding noise
            gradient = model.get_parameter(ours(name)).grad
            assert gradient is not None
            assert gradient.norm().item() == pytest.approx(norm, rel=1e-5), f"{name} at step {step}"


def run(steps: int) -> None:
    model = method()
    optimizer_config = OptimizerConfig("lars", RUN["base_learning_rate"], RUN["momentum"], RUN["weight_decay"])
    optimizer = build_optimizer(model, optimizer_config)
    schedule = LRSchedule(
        ScheduleConfig("cosine", RUN["warmup_epoch"], RUN["warmup_multiplier"]),
        scaled_lr(optimizer_config, RUN["batch_size"] * RUN["world_size"]),
        RUN["n_iter_per_epoch"],
        RUN["epochs"],
    )
    for step, views in zip(range(steps), batches(), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = schedule.lr(step)
        assert schedule.lr(step) == pytest.approx(GOLDEN["lars/lr"][step], rel=1e-9)
        assert int(model.momentum_encoder.step) == GOLDEN["lars/ema_k"][step]
        assert model.momentum_encoder.momentum() == pytest.approx(GOLDEN["lars/ema_momentum"][step], abs=1e-12)
        model.update_momentum_encoder()
        scalars = model(views)
        assert scalars["loss"].item() == pytest.approx(GOLDEN["lars/loss_f64"][step], abs=1e-6), f"step {step}"
        assert scalars["positives"].item() == pytest.approx(GOLDEN["lars/pos_count"][step].mean())
        optimizer.zero_grad()
        scalars["loss"].backward()
        assert_gradients(model, step)
        optimizer.step()
        assert_state(model, step)
    state = model.state_dict()
    for name, count in json.loads(str(GOLDEN["lars/num_batches_tracked"])).items():
        assert state[ours(name)] * RUN["steps"] == count * steps  # two forward passes a step on both sides


def test_first_steps_of_the_official_run() -> None:
    """The first warm-up steps; the whole run is an e2e test because of its time."""
    run(2)


@pytest.mark.e2e
def test_whole_official_run() -> None:
    run(RUN["steps"])

"""What needs a real GPU: a whole step, forward and backward, in which the host never waits for the device; fp16 with scaling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import VIT

from pixbench.errors import explain
from pixbench.file_versions import CHECKPOINT_FILE, RESULT_FILE
from pixbench.results import read_result
from pretrain import checkpoint, engine
from pretrain.config import from_dict
from pretrain.data.augment import RECIPES
from pretrain.data.batched import change, normalised, packed
from pretrain.data.loader import ViewLoader
from pretrain.data.two_views import TwoViews
from pretrain.methods import METHODS
from pretrain.run import batches, setup
from pretrain.settings import RunConfig
from pretrain.step import train_step

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

SETTINGS: dict[str, dict[str, Any]] = {
    name: {key: value for key, value in {"hidden": 16, "dim": 8, "queue_size": 16}.items() if hasattr(cls.Config, key)}
    for name, cls in METHODS.items()
}


@pytest.fixture
def config_of(image_tree: Callable[..., Path], tmp_path: Path) -> Callable[..., RunConfig]:
    root = image_tree(2, 16, size=(80, 72))

    def make(method: str, **changes: Any) -> RunConfig:
        content = {
            "method": {"name": method, **SETTINGS[method]},
            "data": {"root": str(root), "image_size": 64, "workers": 0},
            "augment": {"device": "cuda"},
            "backbone": VIT.as_dict() if METHODS[method].needs_tokens else {"width": 0.0625, "output_stride": 16},
            "schedule": {"warmup_epochs": 0},
            **{"epochs": 2, "batch_size": 8, "out": str(tmp_path / method)},
        }
        return replace(from_dict(content), **changes)

    return make


@contextmanager
def no_waiting() -> Iterator[None]:
    """Make it an error that the host waits for the device."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("method", METHODS)
def test_a_step_never_waits(method: str, precision: str, config_of: Callable[..., RunConfig]) -> None:
    config = config_of(method, precision=precision)
    run = setup(config, torch.device("cuda"))
    data = config.data
    views = TwoViews(
        run.source, size=data.image_size, scale=(0.2, 1.0), recipe="byol", seed=0, cache=False, colours=False
    )
    loader = iter(ViewLoader(views, batches(config, run.order, 0, 8), pin_memory=True))
    for number in range(3):
        batch = next(loader)
        if number < 2:  # the first steps allocate and choose algorithms
            train_step(run, batch)
            torch.cuda.synchronize()
        else:
            with no_waiting():
                train_step(run, batch)
        run.step += 1


def test_colours_on_the_gpu_are_those_on_the_cpu() -> None:
    import random

    generator = torch.Generator().manual_seed(0)
    images = (torch.rand(8, 3, 64, 64, generator=generator) * 255).to(torch.uint8)
    rows = packed([RECIPES["byol"][seed % 2].draw(random.Random(seed)) for seed in range(8)])
    here, there = normalised(change(images, rows)), normalised(change(images.cuda(), rows)).cpu()
    assert (here - there).abs().mean() < 0.01


@pytest.mark.parametrize("method", METHODS)
def test_a_whole_run_in_fp16(method: str, config_of: Callable[..., RunConfig]) -> None:
    assert engine.train(config_of(method, precision="fp16", epochs=5)) == 0


@pytest.mark.parametrize("name", ["lars", "sgd", "adamw"])
def test_an_overflow_in_the_first_step_changes_nothing(name: Any, config_of: Callable[..., RunConfig]) -> None:
    """With fp16, the scale of the gradients is too large at first."""
    config = config_of("moco_v2", precision="fp16")
    config = replace(config, optimizer=replace(config.optimizer, name=name), data=replace(config.data, workers=0))
    run = setup(config, torch.device("cuda"))
    run.scaler = torch.amp.GradScaler("cuda", init_scale=1e30)
    before = [weight.detach().clone() for weight in run.method.parameters()]
    views = TwoViews(run.source, size=64, scale=(0.2, 1.0), recipe="byol", seed=0, cache=False, colours=False)
    loader = iter(ViewLoader(views, batches(config, run.order, 0, 2), pin_memory=True))
    train_step(run, next(loader))
    trained = {id(weight) for group in run.optimizer.param_groups for weight in group["params"]}
    pairs = zip(before, run.method.parameters(), strict=True)
    assert all(old.equal(new) for old, new in pairs if id(new) in trained)
    momenta = [
        state[key] for state in run.optimizer.state.values() for key in state if key in ("momentum_buffer", "exp_avg")
    ]
    assert momenta
    assert not any(bool(momentum.count_nonzero()) for momentum in momenta)


def test_a_run_in_fp16_goes_on_with_the_scale_of_its_gradients(config_of: Callable[..., RunConfig]) -> None:
    config = config_of("pixpro", precision="fp16")
    assert engine.train(config) == 0
    saved = checkpoint.load(Path(config.out) / CHECKPOINT_FILE)["scaler"]
    assert saved["scale"] > 0
    longer = setup(replace(config, epochs=3), torch.device("cuda"))
    assert longer.scaler.state_dict() == saved


def test_too_little_memory_is_explained_and_recorded(config_of: Callable[..., RunConfig]) -> None:
    config = config_of("pixpro", batch_size=32)
    config = replace(config, data=replace(config.data, image_size=512))  # a step needs more than 1 GB
    torch.cuda.empty_cache()
    left = torch.cuda.memory_reserved() + 300 * 2**20
    torch.cuda.set_per_process_memory_fraction(left / torch.cuda.mem_get_info()[1])
    try:
        with pytest.raises(torch.OutOfMemoryError) as caught:
            engine.train(config)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert explain(caught.value).startswith("the GPU has too little memory for this run")
    assert read_result(Path(config.out) / RESULT_FILE)["reason"] == explain(caught.value)

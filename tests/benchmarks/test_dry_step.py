"""A step without values counts what a real one costs, and refuses what a real one refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from benchmarks.dry_step import DryStep, dry_step
from benchmarks.speed import methods as real
from pixbench.errors import UserError
from pixbench.paths import CONFIGS
from pretrain.config import parse
from pretrain.methods import METHODS
from pretrain.settings import RunConfig

Make = Callable[..., RunConfig]


@pytest.fixture
def small() -> Make:
    """Configs of the paper's methods with a small network on small images."""

    def make(method: str, **changes: object) -> RunConfig:
        file = real.config_files(method)[0]
        words = {
            "backbone.depth": 18,
            "backbone.width": 0.25,
            "data.image_size": 64,
            "batch_size": 8,
            "precision": "fp32",
            **changes,
        }
        sizes = {"method.hidden": 64, "method.dim": 32, "method.queue_size": 64, "method.channels": 32}
        known = {f"method.{name}" for name in METHODS[method].Config.__dataclass_fields__}
        words |= {key: value for key, value in sizes.items() if key in known}
        given = [f"--{key}={value}" for key, value in words.items()]
        return parse(["--config", str(CONFIGS / "pretrain" / file), *given])

    return make


@pytest.mark.parametrize("method", ["pixpro", "moco_v2"])
def test_it_counts_what_a_step_on_the_cpu_costs(method: str, small: Make) -> None:
    config, found = small(method), dry_step(small(method))
    torch.manual_seed(0)
    backbone = real.build_backbone(config.backbone)
    built = METHODS[method](backbone, config.method.settings, 10).train()
    images = real.views(8, 64)
    state = sum(x.numel() * x.element_size() for x in built.state_dict().values())
    assert found.parameters + found.buffers == state
    assert found.trained == sum(4 * p.numel() for p in built.parameters() if p.requires_grad)
    # a real backward pass leaves out the gradient of the images, and the losses differ a little between devices
    assert found.operations == pytest.approx(real.operations(built, images), rel=0.12)
    assert found.activations == pytest.approx(real.activations(built, images), rel=0.25)


def test_half_precision_and_recomputing_save_memory(small: Make) -> None:
    def of(**changes: object) -> DryStep:
        return dry_step(small("pixpro", **{"data.image_size": 224, "batch_size": 64, **changes}))

    full, half, again = of(), of(precision="bf16"), of(activation_checkpointing="true")
    assert 0.4 * full.activations < half.activations < 0.7 * full.activations
    assert again.activations < 0.7 * full.activations
    assert full.operations == half.operations == again.operations
    assert not torch.is_autocast_enabled("cuda")


def test_more_processes_and_parts_need_less_memory(small: Make) -> None:
    whole, parts = dry_step(small("simclr", batch_size=16)), dry_step(small("simclr", batch_size=16, accumulate=2))
    assert parts.images == 8
    assert parts.memory(2) < whole.memory(2) < whole.memory(1)
    assert whole.memory(1) > whole.checkpoint


def test_adamw_keeps_two_values(small: Make) -> None:
    config = small("byol")
    other = replace(config, optimizer=replace(config.optimizer, name="adamw"))
    assert dry_step(other).checkpoint - dry_step(config).checkpoint == dry_step(config).trained


def test_a_queue_that_no_batch_fills(small: Make) -> None:
    config = small("moco_v2", batch_size=12)
    with pytest.raises(UserError, match=r"queue_size 64 is not a multiple of the total batch 12; set it to 60"):
        dry_step(config)

"""One step: nothing in it makes the host wait for the device, and a bad step changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import VIT, views
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from pretrain import step
from pretrain.config import from_dict
from pretrain.data.views import Views
from pretrain.methods import METHODS
from pretrain.methods.base import Method
from pretrain.methods.supervised import Supervised
from pretrain.models.families import build_backbone
from pretrain.models.resnet import build_resnet
from pretrain.run import Run, setup
from pretrain.settings import RunConfig
from pretrain.step import train_step

Tree = Callable[..., Path]
SETTINGS: dict[str, dict[str, Any]] = {
    name: {key: value for key, value in {"hidden": 16, "dim": 8, "queue_size": 16}.items() if hasattr(cls.Config, key)}
    for name, cls in METHODS.items()
}
BRANCHES = [("pixpro", "contrastive"), ("pixcontrast", "regression"), ("pixpro_fpn", "contrastive")]
CASES = [(name, {}) for name in METHODS] + [(name, {"instance": branch}) for name, branch in BRANCHES]


@pytest.fixture
def config_of(image_tree: Tree, tmp_path: Path) -> Callable[..., RunConfig]:
    root = image_tree(2, 8, size=(40, 36))

    def make(method: str, settings: dict[str, Any] | None = None, **changes: Any) -> RunConfig:
        content = {
            "method": {"name": method, **SETTINGS[method], **(settings or {})},
            "data": {"root": str(root), "image_size": 32, "workers": 0},
            "backbone": VIT.as_dict()
            if METHODS[method].needs_tokens
            else {"depth": 18, "width": 0.125, "output_stride": 16},
            "schedule": {"warmup_epochs": 0},
            **{"epochs": 2, "batch_size": 8, "out": str(tmp_path / method)},
        }
        return replace(from_dict(content), **changes)

    return make


def state(run: Run) -> dict[str, torch.Tensor]:
    found = {f"model.{name}": value.clone() for name, value in run.method.state_dict().items()}
    for number, of_weight in run.optimizer.state_dict()["state"].items():
        found |= {f"{number}.{n}": v.clone() for n, v in of_weight.items() if isinstance(v, torch.Tensor)}
    return found


@pytest.mark.parametrize(("method", "settings"), CASES, ids=lambda x: str(x))
def test_no_method_reads_from_the_device(
    method: str, settings: dict[str, Any], config_of: Callable[..., RunConfig]
) -> None:
    """On tensors that have no values, of a GPU that need not exist: reading one, or mixing devices, is an error."""
    config = config_of(method, settings)
    scalars = on_no_device(METHODS[method](build_backbone(config.backbone), config.method.settings, 10))
    assert all(value.device.type == "cuda" for value in scalars.values())


def test_reading_from_the_device_would_be_noticed(config_of: Callable[..., RunConfig]) -> None:
    class Reads(Method):
        def forward(self, views: Views) -> dict[str, torch.Tensor]:
            loss = self.backbone(views.view1).mean()
            return {"loss": loss if loss.isfinite() else loss * 0}

    backbone = build_resnet(config_of("byol").backbone)
    with pytest.raises(DataDependentOutputException):
        on_no_device(Reads(backbone, None, 10))
    with pytest.raises(RuntimeError, match="two different devices"):
        on_no_device(Supervised(backbone, Supervised.Config(classes=5), 10), on_cpu=("label",))


def on_no_device(method: Method, on_cpu: tuple[str, ...] = ()) -> dict[str, torch.Tensor]:
    """Make a step of ``method`` on a GPU that need not exist; the fields ``on_cpu`` of the batch stay behind."""
    step = Step(method)
    like = {name: (value.shape, value.dtype) for name, value in step.state_dict().items()}
    sizes = [(part.shape, part.dtype) for part in views(8, size=32)[:6]]
    with FakeTensorMode():
        state = {name: torch.empty(shape, dtype=dtype, device="cuda") for name, (shape, dtype) in like.items()}
        batch = Views(*(torch.empty(shape, dtype=dtype, device="cuda") for shape, dtype in sizes))
        left = {name: torch.empty_like(getattr(batch, name), device="cpu") for name in on_cpu}
        batch = batch._replace(**left)
        scalars: dict[str, torch.Tensor] = torch.func.functional_call(step, state, (batch,))
    return scalars


class Step(torch.nn.Module):
    """All of a step that belongs to a method."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, batch: Views) -> dict[str, torch.Tensor]:
        self.method.update_momentum_encoder()
        return self.method(batch)


@pytest.mark.parametrize("optimizer", ["lars", "sgd", "adamw"])
@pytest.mark.parametrize("where", ["image", "gradient"])
def test_a_bad_step_changes_nothing(
    optimizer: str, where: str, config_of: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """NaN in an image, or in one gradient alone; the steps before and after it are good."""
    config = config_of("moco_v2")
    config = replace(config, optimizer=replace(config.optimizer, name=optimizer, base_lr=0.1))
    run = setup(config, torch.device("cpu"))
    batch = views(8, size=32)
    assert not train_step(run, batch)["bad"]
    before = state(run)
    bad = batch._replace(view1=batch.view1.clone())
    if where == "image":
        bad.view1[3, 0, 5, 5] = torch.nan
    else:
        original = step.gradient_size

        def spoil(run: Run) -> torch.Tensor:
            next(iter(run.method.parameters())).grad[0] = torch.inf  # type: ignore[union-attr]
            return original(run)

        monkeypatch.setattr(step, "gradient_size", spoil)
    run.step += 1
    assert train_step(run, bad)["bad"]
    monkeypatch.undo()
    after = state(run)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    allowed = ("num_batches_tracked", "momentum_encoder", "queue", ".step")
    assert all(any(word in name for word in allowed) for name in moved), moved
    assert all(value.isfinite().all() for value in after.values() if value.is_floating_point())
    run.step += 1
    assert not train_step(run, batch)["bad"]
    assert any(not torch.equal(after[name], value) for name, value in state(run).items() if "backbone.conv1" in name)


@pytest.mark.parametrize("optimizer", ["lars", "sgd", "adamw"])
def test_a_rate_of_0_moves_only_the_statistics_of_batch_norm(
    optimizer: str, config_of: Callable[..., RunConfig]
) -> None:
    config = config_of("pixpro")
    schedule = replace(config.schedule, min_lr=0.0)
    config = replace(config, optimizer=replace(config.optimizer, name=optimizer, base_lr=0.0), schedule=schedule)
    run = setup(config, torch.device("cpu"))
    before = {name: tensor.clone() for name, tensor in run.method.backbone.state_dict().items()}
    train_step(run, views(8, size=32))
    moved = {name for name, tensor in run.method.backbone.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved
    assert all(name.endswith(("running_mean", "running_var", "num_batches_tracked")) for name in moved), moved

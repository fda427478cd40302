"""LARS against the official updates; parameter groups; the optimisers by name."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pixbench.errors import UserError
from pretrain.optim import LARS, OptimizerConfig, build_optimizer, parameter_groups, scaled_lr

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "lars.npz")
NEEDS_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
NAMES = [str(name) for name in GOLDEN["names"]]


def official(weight_decay: float, dtype: torch.dtype) -> tuple[dict[str, nn.Parameter], LARS]:
    parameters = {name: nn.Parameter(torch.from_numpy(GOLDEN[f"init/{name}"]).to(dtype)) for name in NAMES}
    model = nn.ParameterDict(parameters)
    groups = parameter_groups(model, weight_decay)
    adapted = {name for name in NAMES if any(parameters[name] is p for p in groups[0]["params"])}
    assert adapted == {name for name, group in zip(NAMES, GOLDEN["group"], strict=True) if group == "adapted"}
    config = OptimizerConfig("lars", weight_decay=weight_decay)
    optimizer = build_optimizer(model, config)
    assert isinstance(optimizer, LARS)
    return parameters, optimizer


def update(parameters: dict[str, nn.Parameter], optimizer: LARS, step: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = float(GOLDEN["lr"][step])
    for name, parameter in parameters.items():
        parameter.grad = torch.from_numpy(GOLDEN[f"grad/{name}"][step]).to(parameter.dtype)
    optimizer.step()


@pytest.mark.parametrize("weight_decay", [1e-5, 1e-2])
@pytest.mark.parametrize(("suffix", "dtype", "tolerance"), [("f64", torch.float64, 1e-9), ("f32", torch.float32, 2e-6)])
def test_five_updates_of_the_official_lars(
    weight_decay: float, suffix: str, dtype: torch.dtype, tolerance: float
) -> None:
    parameters, optimizer = official(weight_decay, dtype)
    for step in range(5):
        update(parameters, optimizer, step)
        for name, parameter in parameters.items():
            expected = GOLDEN[f"wd{weight_decay:g}/after/{name}_{suffix}"][step]
            np.testing.assert_allclose(parameter.detach(), expected, rtol=tolerance, atol=tolerance, err_msg=name)


def test_resumes_from_its_state_dict() -> None:
    parameters, optimizer = official(1e-2, torch.float64)
    for step in range(2):
        update(parameters, optimizer, step)
    resumed, again = official(1e-2, torch.float64)
    with torch.no_grad():
        for name in NAMES:
            resumed[name].copy_(parameters[name])
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for step in range(2, 5):
        update(parameters, optimizer, step)
        update(resumed, again, step)
    assert all(resumed[name].equal(parameters[name]) for name in NAMES)


def test_one_update_by_hand() -> None:
    """W = (3, 4), g = (0, 2), λ = 0.5: g + λw = (1.5, 4), ratio 0.1·5 / √18.25; 1-D parameters take the plain gradient."""
    matrix, vector = nn.Parameter(torch.tensor([[3.0, 4.0]]).double()), nn.Parameter(torch.tensor([3.0, 4.0]).double())
    groups = parameter_groups(nn.ParameterList([matrix, vector]), weight_decay=0.5)
    optimizer = LARS(groups, lr=2.0, trust_coefficient=0.1, eps=0.0)
    matrix.grad, vector.grad = torch.tensor([[0.0, 2.0]]).double(), torch.tensor([0.0, 2.0]).double()
    optimizer.step()
    ratio = 0.1 * 5 / 18.25**0.5
    torch.testing.assert_close(matrix.detach(), torch.tensor([[3 - 2 * ratio * 1.5, 4 - 2 * ratio * 4]]).double())
    assert vector.tolist() == [3, 0]


def test_frozen_and_unused_parameters_are_left_alone() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    before = [p.clone() for p in model.parameters()]
    optimizer = build_optimizer(model, OptimizerConfig())
    model[2](torch.randn(3, 2)).sum().backward()
    optimizer.step()
    changed = [not p.equal(b) for p, b in zip(model.parameters(), before, strict=True)]
    assert changed == [False] * 4 + [True] * 2


def test_decay_by_optimiser() -> None:
    """SGD decays everything, as MoCo and the official PixPro code; LARS and AdamW spare one-dimensional parameters."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    sgd = build_optimizer(model, OptimizerConfig("sgd", weight_decay=1e-4))
    assert [(len(g["params"]), g["weight_decay"]) for g in sgd.param_groups] == [(4, 1e-4)]
    adamw = build_optimizer(model, OptimizerConfig("adamw", weight_decay=1e-4))
    assert [(len(g["params"]), g["weight_decay"]) for g in adamw.param_groups] == [(1, 1e-4), (3, 0.0)]
    assert isinstance(sgd, torch.optim.SGD)
    assert isinstance(adamw, torch.optim.AdamW)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
@pytest.mark.parametrize("name", ["lars", "sgd", "adamw"])
def test_a_bad_first_step_leaves_no_trace(name: Any, device: str) -> None:
    def weights_after(*bad: bool) -> torch.Tensor:
        model = nn.Linear(64, 64, bias=False, device=device)
        nn.init.eye_(model.weight)
        optimizer = build_optimizer(model, OptimizerConfig(name))
        for step in bad:
            model.weight.grad = torch.full_like(model.weight, torch.nan if step else 1.0)
            leftover = torch.full_like(model.weight, torch.nan)
            del leftover  # whoever takes memory now and does not fill it finds NaN
            optimizer.found_inf = torch.tensor(float(step), device=device)  # type: ignore[attr-defined]
            optimizer.grad_scale = None  # type: ignore[attr-defined]
            optimizer.step()
        return model.weight.detach()

    torch.testing.assert_close(weights_after(True, True, False, False), weights_after(False, False), rtol=0, atol=0)


def test_rate_grows_with_the_batch() -> None:
    assert scaled_lr(OptimizerConfig(base_lr=1.0), 1024) == 4.0
    assert scaled_lr(OptimizerConfig(base_lr=0.3), 64) == pytest.approx(0.075)


def test_unknown_optimiser() -> None:
    with pytest.raises(UserError, match="'adam' is not known"):
        build_optimizer(nn.Linear(1, 1), OptimizerConfig("adam"))

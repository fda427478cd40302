"""Optimisers: LARS as in the official PixPro code, SGD and AdamW.

Notation in this file: w parameter, g gradient, λ weight decay, t trust coefficient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from pixbench.errors import UserError
from pretrain.models.feature_network import FeatureNetwork


@dataclass(frozen=True)
class OptimizerConfig:
    """Settings of the optimiser.

    Args:
        name: "lars" (as in PixPro and SimCLR), "sgd" (as in MoCo) or "adamw".
        base_lr: peak learning rate for 256 images per step; it is scaled in proportion to the total batch. With 0, and `min_lr`
            0, only the statistics of batch norm change: a random backbone with those of its images.
        momentum: momentum of LARS and SGD; AdamW uses PyTorch's default betas.
        weight_decay: weight decay; LARS and AdamW leave out one-dimensional parameters (BN, biases), SGD does not, as published.
        trust_coefficient: length of a LARS update relative to its weight, before the learning rate.
        eps: constant added to the gradient's norm (LARS) or to the root of its second moment (AdamW).
        layer_decay: factor on the learning rate of each layer of the backbone, from the last one to the first; heads have the
            whole rate, and 1 gives it to all layers. Not for SGD.
        clip_norm: largest norm of the gradient of all parameters; a larger one is scaled down. 0 for no limit.
    """

    name: Literal["lars", "sgd", "adamw"] = "lars"
    base_lr: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 1e-5
    trust_coefficient: float = 0.001
    eps: float = 1e-8
    layer_decay: float = 1.0
    clip_norm: float = 0.0

    def __post_init__(self) -> None:
        if self.layer_decay < 1 and self.name == "sgd":
            raise UserError("optimizer.layer_decay is for lars and adamw, but optimizer.name is sgd; leave it out")


def scaled_lr(config: OptimizerConfig, total_batch: int) -> float:
    """Return the peak learning rate for ``total_batch`` images per step (over all processes and accumulated parts)."""
    return config.base_lr * total_batch / 256


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Return the trained parameters in two groups, or in two for each layer of ``model.backbone`` with a ``layer_decay``.

    Matrices and kernels have weight decay and LARS scaling. One-dimensional parameters have neither. "lr_scale" is the factor
    on the learning rate: 1 for everything after the backbone, ``layer_decay`` for its last layer, and so on.
    """
    scales = lr_scales(model, layer_decay) if layer_decay < 1 else {}
    by_scale: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            by_scale.setdefault(scales.get(name, 1.0), []).append(parameter)
    groups = []
    for scale, trained in by_scale.items():
        high, low = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
        groups.append({"params": high, "weight_decay": weight_decay, "adapt": True, "lr_scale": scale})
        groups.append({"params": low, "weight_decay": 0.0, "adapt": False, "lr_scale": scale})
    return groups


def lr_scales(model: nn.Module, layer_decay: float) -> dict[str, float]:
    """Return the factor on the learning rate of each parameter of ``model.backbone`` by its name in ``model``.

    Layers are those of `FeatureNetwork.layer_groups`: timm's own for its networks, stem and blocks for a ResNet.
    """
    layers = cast(FeatureNetwork, model.get_submodule("backbone")).layer_groups()
    return {
        f"backbone.{name}": layer_decay ** (len(layers) - number)
        for number, names in enumerate(layers)
        for name in names
    }


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> Optimizer:
    """Build the optimiser for the trained parameters of ``model``. Its rate is `base_lr` until the schedule changes it."""
    if config.name == "sgd":  # one group: with SGD, MoCo and the official PixPro code decay all parameters
        return sgd([p for p in model.parameters() if p.requires_grad], config)
    groups = parameter_groups(model, config.weight_decay, config.layer_decay)
    if config.name == "lars":
        return LARS(groups, config.base_lr, config.momentum, trust_coefficient=config.trust_coefficient, eps=config.eps)
    if config.name == "adamw":
        return AdamW(groups, config.base_lr, eps=config.eps, fused=True)
    raise UserError(f"optimizer.name '{config.name}' is not known; choose lars, sgd or adamw")


def sgd(weights: list[nn.Parameter], config: OptimizerConfig) -> torch.optim.SGD:
    """Build PyTorch's SGD, with momenta that are 0 at first.

    Fused SGD (seen in PyTorch 2.11) takes memory for the momenta in the first step, and if that step is bad, as is usual with
    fp16, it leaves in them whatever was in that memory. After momenta of 0, the first good step is the same as without momenta.
    """
    optimizer = torch.optim.SGD(weights, config.base_lr, config.momentum, weight_decay=config.weight_decay, fused=True)
    if config.momentum:
        for weight in weights:
            optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
    return optimizer


class LARS(Optimizer):
    """SGD with momentum on gradients that are rescaled layer by layer (You et al., arXiv 1708.03888).

    g ← g + λw, then g ← g · t‖w‖ / (‖g‖ + eps) in groups with ``adapt``, then momentum and the step. The weight
    decay is added before the ratio is computed, as in `contrast/lars.py` of the official PixPro code; timm, lightly and
    solo-learn divide by ‖g‖ + λ‖w‖ instead. If ‖w‖ or ‖g‖ is 0, the gradient is not rescaled.

    As in PyTorch's fused optimisers, the attribute ``found_inf``, a tensor that is not 0 after a bad step, makes `step` change
    nothing, and gradients are first divided by ``grad_scale``. On a GPU neither is read by the host.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
        eps: float = 1e-8,
    ) -> None:
        self._step_supports_amp_scaling = True  # GradScaler passes `grad_scale` and `found_inf` and does not read them
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "eps": eps,
            "adapt": True,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all parameters once and return the result of ``closure``, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        bad: Tensor | None = getattr(self, "found_inf", None)
        if bad is not None and bad.device.type == "cpu" and bad:
            return loss
        for group in self.param_groups:
            self._update(group, bad if bad is None or bad.is_cuda else None)
        return loss

    def _update(self, group: dict[str, Any], bad: Tensor | None) -> None:
        """Update the parameters of ``group``; if ``bad`` (a tensor on the GPU) is not 0, leave them as they are."""
        weights = [weight for weight in group["params"] if weight.grad is not None]
        gradients = [weight.grad for weight in weights]
        if not weights:
            return
        if (scale := getattr(self, "grad_scale", None)) is not None:
            torch._foreach_mul_(gradients, scale.reciprocal())
        if bad is not None:  # NaN times 0 would be NaN
            gradients = [torch.where(bad > 0, 0, gradient) for gradient in gradients]
        if group["weight_decay"]:
            gradients = list(torch._foreach_add(gradients, weights, alpha=group["weight_decay"]))
        if group["adapt"]:
            weight_norm, gradient_norm = (torch.stack(torch._foreach_norm(x)) for x in (weights, gradients))
            ratio = group["trust_coefficient"] * weight_norm / (gradient_norm + group["eps"])
            # torch.where instead of `if`: reading the norms would make the CPU wait for the GPU
            ratio = torch.where((weight_norm > 0) & (gradient_norm > 0), ratio, torch.ones_like(ratio))
            gradients = list(torch._foreach_mul(gradients, ratio.unbind()))
        for weight in weights:
            if "momentum_buffer" not in self.state[weight]:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        buffers = [self.state[weight]["momentum_buffer"] for weight in weights]
        if bad is None:
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, gradients)
            torch._foreach_add_(weights, buffers, alpha=-group["lr"])
        else:
            good = (bad == 0).to(weights[0].dtype)
            torch._foreach_mul_(buffers, 1 - (1 - group["momentum"]) * good)
            torch._foreach_add_(buffers, torch._foreach_mul(gradients, good))
            torch._foreach_add_(weights, torch._foreach_mul(buffers, -group["lr"] * good))

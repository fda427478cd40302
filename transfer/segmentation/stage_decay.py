"""A learning rate that is lower in earlier stages of the backbone, as MMSegmentation has it for its own ConvNeXt.

Importing this file imports MMSegmentation and registers the class.
"""

from __future__ import annotations

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmseg.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from pretrain.models.named_network import NamedNetwork
from pretrain.models.named_stages import stage_places


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class StageDecay(DefaultOptimWrapperConstructor):
    """Multiply the learning rate of a backbone by name by a factor per stage; biases and norms have no weight decay.

    With ``decay_rate`` r and ``num_layers`` n in ``paramwise_cfg``, stage i (from 0) has r^(n − i) of the learning rate, stem
    and downsampling layers r^(n + 1), and the heads all of it. For ConvNeXt these are the numbers of
    ``LearningRateDecayOptimizerConstructor`` with ``stage_wise`` in mmseg/engine/optimizers.
    """

    def add_params(self, params: list[dict[str, Any]], module: nn.Module, **_: Any) -> None:
        """Append a group of ``module``, a whole segmentor, to ``params`` for each learning rate and weight decay."""
        rate, depth = self.paramwise_cfg["decay_rate"], self.paramwise_cfg["num_layers"]
        network: Any = module.backbone
        assert isinstance(network, NamedNetwork)
        stages = {f"backbone.{name}": place for name, place in stage_places(network.spec).items()}
        groups: dict[tuple[float, float], dict[str, Any]] = {}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            scale = rate ** (depth + 1 - stages[name]) if name in stages else 1.0
            decay = 0.0 if parameter.dim() == 1 else self.base_wd
            group = groups.setdefault((scale, decay), {"params": [], "lr": scale * self.base_lr, "weight_decay": decay})
            group["params"].append(parameter)
        params.extend(groups.values())

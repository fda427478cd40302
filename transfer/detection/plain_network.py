"""A plain network by name, with windowed attention, as Detectron2's ViTDet takes it.

The network stays as it was pre-trained: with its class and register tokens, its positions and its last norm. Only the
attention of some blocks is confined to windows, by Detectron2's own functions. The class and register tokens stand in every
window, as each window of DINOv3's detector (`dinov3/eval/detection/models/windows.py`) and of RF-DETR
(`dinov2_with_windowed_attn.py`) has them; their mean over the windows goes on. Rotary positions count from the corner of the
window, as in EVA-02 (`EVA-02/det/detectron2/modeling/backbone/vit.py`, ``rope_win``).

Shapes: B images of H × W pixels, h × w cells, C channels, P class and register tokens, K windows of s × s cells.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from detectron2.modeling.backbone.utils import window_partition, window_unpartition
from torch import Tensor, nn

from pretrain.models.named_network import NamedNetwork
from pretrain.models.named_spec import NamedSpec

FEATURE = "last_feat"
"""Detectron2's name of the map that the pyramid is made from."""


class PlainNetwork(NamedNetwork, Backbone):
    """A plain `NamedNetwork` with windowed attention that gives Detectron2 its last map.

    Args:
        name: as in `NamedSpec`.
        options: as in `NamedSpec`, as JSON.
        drop_path_rate: drop path rate of the last block; None leaves the one of ``options``.
        window_size: side s of a window in cells.
        window_block_indexes: the blocks that attend inside windows; the others attend to the whole image.
    """

    def __init__(
        self,
        name: str,
        options: str = "{}",
        drop_path_rate: float | None = None,
        window_size: int = 0,
        window_block_indexes: Sequence[int] = (),
    ) -> None:
        spec = NamedSpec(name, json.loads(options))
        super().__init__(spec if drop_path_rate is None else dropping(spec, drop_path_rate))
        self.spec, self.window, self.cells = spec, window_size, (0, 0)
        for block in window_block_indexes:
            attention = attentions(self.net)[block]
            attention.register_forward_pre_hook(partial(self._divide, block), with_kwargs=True)
            attention.register_forward_hook(self._join)

    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """Return the last map (B, C, h, w) by name for images ``x`` (B, 3, H, W)."""
        self._measure(x)
        return {FEATURE: super().forward(x)}

    def forward_stages(self, x: Tensor) -> dict[str, Tensor]:
        """Return the maps (B, C, h, w) of all stages for images ``x`` (B, 3, H, W)."""
        self._measure(x)
        return super().forward_stages(x)

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return channels and stride of the map."""
        return {FEATURE: ShapeSpec(channels=self.channels, stride=self.stride)}

    def lr_scales(self, decay: float) -> dict[str, float]:
        """Return the factor on the learning rate of each parameter by its name in the detector.

        As in ViTDet, the last block learns by ``decay`` slower than the heads, and what follows the blocks as fast as these.
        """
        if decay == 1:
            return {}
        layers = self.layer_groups()
        blocks = [i for i, names in enumerate(layers) if any(name.startswith("net.blocks.") for name in names)]
        last = blocks[-1] if blocks else len(layers) - 1
        depths = {
            name: 0 if i == last and blocks and not name.startswith("net.blocks.") else max(last + 1 - i, 0)
            for i, names in enumerate(layers)  # timm adds what follows the blocks to the layer of the last one
            for name in names
        }
        return {f"backbone.net.{name}": decay**depth for name, depth in depths.items()}

    def without_decay(self) -> list[nn.Parameter]:
        """Return the parameters without weight decay: positions, tokens, norms and layer scales, as in DINOv2."""
        spared = {"pos_embed", *getattr(self.net, "no_weight_decay", set)()}
        return [
            parameter
            for name, parameter in self.net.named_parameters()
            if parameter.requires_grad and (name in spared or (parameter.ndim <= 1 and not name.endswith("bias")))
        ]

    def _measure(self, x: Tensor) -> None:
        self.cells = (-(-x.shape[2] // self.stride), -(-x.shape[3] // self.stride))

    def _divide(
        self, block: int, _attention: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Divide the tokens (B, P + h·w, C) that enter an attention into windows (B·K, P + s·s, C)."""
        x, count = args[0], self.cells[0] * self.cells[1]
        prefix, cells = x.split([x.shape[1] - count, count], 1)
        windows, _ = window_partition(cells.unflatten(1, self.cells), self.window)
        prefix = prefix.repeat_interleave(len(windows) // len(x), 0)
        if kwargs.get("rope") is not None:
            rope = self.net.rope.get_embed(shape=(self.window, self.window))
            kwargs = kwargs | {"rope": rope[block] if getattr(self.net, "rope_mixed", False) else rope}
        return (torch.cat([prefix, windows.flatten(1, 2)], 1), *args[1:]), kwargs

    def _join(self, _attention: nn.Module, _args: Any, x: Tensor) -> Tensor:
        """Join the windows (B·K, P + s·s, C) that leave an attention: (B, P + h·w, C)."""
        side, (high, wide) = self.window, (-(-n // self.window) for n in self.cells)
        prefix, windows = x.split([x.shape[1] - side**2, side**2], 1)
        padded = (high * side, wide * side)
        cells = window_unpartition(windows.unflatten(1, (side, side)), side, padded, self.cells)
        return torch.cat([prefix.unflatten(0, (-1, high * wide)).mean(1), cells.flatten(1, 2)], 1)


def attentions(net: Any) -> list[nn.Module]:
    """Return the attention of each block, or nothing if one of them is no attention between tokens that is known."""
    try:
        from timm.layers import Attention, AttentionRope, DiffAttention
        from timm.models.eva import EvaAttention
    except ImportError:
        return []
    known = (Attention, AttentionRope, DiffAttention, EvaAttention)
    found: list[Any] = [getattr(block, "attn", None) for block in getattr(net, "blocks", [])]
    return found if all(isinstance(attention, known) for attention in found) else []


def dropping(spec: NamedSpec, rate: float) -> NamedSpec:
    """Return ``spec`` with this drop path rate of the last block."""
    return replace(spec, options=spec.options | {"drop_path_rate": rate})

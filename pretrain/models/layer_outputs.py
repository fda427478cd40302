"""Outputs of inner layers of any network, chosen by name or index.

A map may come as (B, C, H, W), as (B, H, W, C), or as tokens (B, N, C). No shape shows which, so it is declared: by the user, by
the network (timm's ``output_fmt`` and ``num_prefix_tokens``), or by layers that know one layout only, such as convolutions.

Shapes: B batch, C channels, (H, W) map of cells, N = H·W tokens and those before them, such as a class token.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import BatchNorm2d
from torch.nn.modules.conv import Conv2d
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AvgPoolNd, _MaxPoolNd

from pixbench.errors import UserError

Layout = Literal["NCHW", "NHWC", "tokens"]
"""Order of the dimensions of a map."""
_FIRST = (Conv2d, BatchNorm2d, _AdaptiveAvgPoolNd, _AvgPoolNd, _MaxPoolNd)
"""Layers that have the channels in the second dimension."""
_LAST = (nn.Linear, nn.LayerNorm)
"""Layers that have the channels in the last dimension."""


class LayerOutputs(nn.Module):
    """Network that returns the outputs of two of its inner layers: images -> (B, C, H, W) and (B, C', H', W').

    ``pixel`` and ``instance`` are the layers: a name as in `named_modules`, or the index of a child. ``layout`` is that of their
    maps; None takes it from the network.
    """

    def __init__(self, net: nn.Module, pixel: str | int, instance: str | int, layout: Layout | None = None) -> None:
        super().__init__()
        self.net = net
        self.layers = (_find(net, pixel), _find(net, instance))
        self.layout = layout

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs of both layers with the channels second; vectors (B, C) become maps (B, C, 1, 1)."""
        # Hooks exist for one pass only: in a copy of the network, copied hooks would write to the original's results.
        seen: dict[str, Tensor] = {}
        hooks = [
            self.net.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
            for name in self.layers
        ]
        try:
            self.net(images)
        finally:
            for hook in hooks:
                hook.remove()
        pixel, instance = (self._map(name, seen.get(name)) for name in self.layers)
        return pixel, instance

    def _map(self, name: str, output: Tensor | None) -> Tensor:
        what = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        if not isinstance(output, Tensor) or output.dim() not in (2, 3, 4):
            raise UserError(f"layer {name!r} gives {what}, not a map or vectors (B, C); choose another layer")
        if output.dim() == 2:
            return output[:, :, None, None]
        layout = self.layout or declared_layout(self.net, self.net.get_submodule(name))
        if layout == "tokens" and output.dim() == 3:
            return _map_of_tokens(name, output, int(getattr(self.net, "num_prefix_tokens", 0)))
        if output.dim() == 3 or layout in (None, "tokens"):
            why = "nothing declares its layout" if layout is None else f"that is not {layout}"
            raise UserError(
                f"layer {name!r} gives {what}, and {why}; say it with "
                "layout='NCHW' for (B, C, H, W), 'NHWC' for (B, H, W, C) or 'tokens' for (B, N, C)"
            )
        return output.permute(0, 3, 1, 2) if layout == "NHWC" else output


def declared_layout(net: nn.Module, layer: nn.Module) -> Layout | None:
    """Return the layout of the maps of ``layer`` in ``net`` as the network itself declares it; None if it does not."""
    for module in (layer, net):
        declared = getattr(module, "output_fmt", None)
        if (name := getattr(declared, "value", declared)) in ("NCHW", "NHWC"):
            return "NHWC" if name == "NHWC" else "NCHW"
    if hasattr(net, "num_prefix_tokens"):
        return "tokens"
    parts = [part for part in layer.modules() if isinstance(part, (*_FIRST, *_LAST))]
    if parts:
        return "NCHW" if all(isinstance(part, _FIRST) for part in parts) else None
    return None if any(isinstance(part, nn.LayerNorm) for part in net.modules()) else "NCHW"


def _map_of_tokens(name: str, tokens: Tensor, before: int) -> Tensor:
    """Return the map (B, C, H, W) of tokens (B, N, C), without the first ``before`` of them."""
    cells = tokens[:, before:]
    side = round(cells.shape[1] ** 0.5)
    if side**2 != cells.shape[1]:
        raise UserError(
            f"layer {name!r} gives {tokens.shape[1]} tokens, {before} of them before the cells, and {cells.shape[1]} cells make "
            "no square map; set the attribute num_prefix_tokens of the network to the number of tokens before them"
        )
    return cells.transpose(1, 2).unflatten(2, (side, side))


def _find(net: nn.Module, layer: str | int) -> str:
    names = [name for name, _ in net.named_modules() if name]
    children = [name for name, _ in net.named_children()]
    if isinstance(layer, int) and -len(children) <= layer < len(children):
        return children[layer]
    if layer in names:
        return str(layer)
    of = f"its {len(children)} children: {', '.join(children)}" if isinstance(layer, int) else ", ".join(names)
    raise UserError(f"{type(net).__name__} has no layer {layer!r}; choose from {of}")

"""Outputs of inner layers of any network, chosen by name or index.

Shapes: B batch, C channels, (H, W) map of cells.
"""

from __future__ import annotations

from torch import Tensor, nn

from pixbench.errors import UserError


class LayerOutputs(nn.Module):
    """Network that returns the outputs of two of its inner layers: images -> (B, C, H, W) and (B, C', H', W').

    ``pixel`` and ``instance`` are the layers: a name as in `named_modules`, or the index of a child.
    """

    def __init__(self, net: nn.Module, pixel: str | int, instance: str | int) -> None:
        super().__init__()
        self.net = net
        self.layers = (_find(net, pixel), _find(net, instance))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs of both layers; vectors (B, C) become maps (B, C, 1, 1)."""
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
        if isinstance(output, Tensor) and output.dim() in (2, 4):
            return output if output.dim() == 4 else output[:, :, None, None]
        what = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UserError(f"layer {name!r} gives {what}, not a map (B, C, H, W) or vectors (B, C); choose another layer")


def _find(net: nn.Module, layer: str | int) -> str:
    names = [name for name, _ in net.named_modules() if name]
    children = [name for name, _ in net.named_children()]
    if isinstance(layer, int) and -len(children) <= layer < len(children):
        return children[layer]
    if layer in names:
        return str(layer)
    of = f"its {len(children)} children: {', '.join(children)}" if isinstance(layer, int) else ", ".join(names)
    raise UserError(f"{type(net).__name__} has no layer {layer!r}; choose from {of}")

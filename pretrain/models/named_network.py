"""Backbones that are built by their name: networks of timm, and networks of one's own.

What a network gives is seen by `pretrain.models.named_look`. Parameters that no map depends on, such as those of a norm before
a classifier, are not trained.

Shapes: B images of H × W pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from pixbench.errors import UserError
from pretrain.models.feature_network import FeatureNetwork
from pretrain.models.named_build import build
from pretrain.models.named_look import look, maps_of
from pretrain.models.named_spec import NamedSpec
from pretrain.models.shapes_only import shapes_only


class NamedNetwork(FeatureNetwork):
    """Network of a `NamedSpec`. Its parameters have the names of the network itself, after "net.".

    A hierarchical network has the stages "stem" (stride 2), "layer1" (4) to "layer4" (32), as far as it has maps of these
    strides, and others by their stride ("stride64"). A plain one (all maps of one stride, such as a ViT) has "block N" after
    each quarter of its blocks, and its last norm, if any, is applied to each map.

    Raises:
        UserError: There is no such network, it does not take these options, or it makes no maps.
    """

    net: Any

    def __init__(self, spec: NamedSpec) -> None:
        super().__init__()
        seen = look(spec)
        self.spec = spec
        self.net = build(spec)
        self.stage_channels, self.stage_strides = seen.stage_channels, seen.stage_strides
        self.indices = {name: stage.index for name, stage in seen.stages.items()}
        self.taken = seen.taken
        self.channels, self.stride = self.stage_channels[self.taken], self.stage_strides[self.taken]
        self.has_tokens = _has_tokens(self.net)
        self.learn_for([self.taken])

    def learn_for(self, stages: Iterable[str]) -> None:
        """Let the parameters learn that the maps of ``stages`` depend on, and no others."""
        behind = look(self.spec).behind
        used = frozenset[str]().union(*(behind[stage] for stage in stages))
        for name, parameter in self.net.named_parameters():
            parameter.requires_grad_(name in used)

    def forward_stages(self, x: Tensor) -> dict[str, Tensor]:
        """Return the maps (B, C, h, w) of all stages for images ``x`` (B, 3, H, W)."""
        return dict(zip(self.indices, maps_of(self.net, x, [*self.indices.values()]), strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """Return the map (B, channels, H / stride, W / stride), rounded up, of the stage that the spec chooses."""
        return maps_of(self.net, x, [self.indices[self.taken]])[0]

    def tokens(self, x: Tensor, mask: Tensor | None = None, mask_token: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the class token (B, C) and the patch tokens (B, h·w, C) of images ``x`` (B, 3, H, W), after the last norm.

        Patches at which ``mask`` (B, h, w) is True are seen as ``mask_token`` (1, C), at their positions.
        """

        def masked(module: nn.Module, given: object, patches: Tensor) -> Tensor:
            assert mask is not None
            assert mask_token is not None
            return torch.where(mask.view(*patches.shape[:-1], 1), mask_token.to(patches.dtype), patches)

        hook = None if mask is None else self.net.patch_embed.register_forward_hook(masked)
        try:
            [(cells, prefix)] = self.net.forward_intermediates(
                x, indices=1, norm=True, intermediates_only=True, return_prefix_tokens=True
            )
        finally:
            if hook is not None:
                hook.remove()
        return prefix[:, 0], cells.flatten(2).transpose(1, 2)

    def keep_inputs_only(self) -> None:
        """Let the network's blocks compute their inside again for the backward pass, as timm's networks can."""
        if not hasattr(self.net, "set_grad_checkpointing"):
            raise UserError(
                f"backbone {self.spec.name} has no method set_grad_checkpointing, as timm's networks have; set "
                "activation_checkpointing to false"
            )
        self.net.set_grad_checkpointing(True)

    def layer_groups(self) -> list[list[str]]:
        """Return the names of the parameters in layers, by the ``group_matcher`` of timm's networks.

        Left out are those that no map depends on, such as a classifier's norm, which timm counts as a layer after all others.
        """
        if not hasattr(self.net, "group_matcher"):
            raise UserError(
                f"backbone {self.spec.name} has no method group_matcher, as timm's networks have, so its layers are not known; "
                "choose settings without a learning rate by layer (in pre-training, optimizer.layer_decay 1)"
            )
        from timm.models import group_parameters

        matcher = self.net.group_matcher()
        if isinstance(matcher, dict) and isinstance(matcher.get("stem"), str):
            # Learnt frequencies of rotary positions have no place in eva.py; qwen3_vit.py and deepseek_vit.py have them here.
            matcher = {**matcher, "stem": rf"{matcher['stem']}|^rope\b"}
        groups, used = group_parameters(self.net, matcher), frozenset[str]().union(*look(self.spec).behind.values())
        layers = [[f"net.{name}" for name in groups[layer] if name in used] for layer in sorted(groups)]
        return [names for names in layers if names]


@lru_cache(maxsize=16)
def with_shapes_only(spec: NamedSpec) -> NamedNetwork:
    """Return the network of ``spec`` without values. It is shared: do not change it."""
    with shapes_only():
        return NamedNetwork(spec)


def _has_tokens(net: nn.Module) -> bool:
    """Return whether ``net`` is a Vision Transformer of timm that has a class token and keeps all patches."""
    try:
        from timm.models.vision_transformer import VisionTransformer
    except ImportError:
        return False
    return isinstance(net, VisionTransformer) and net.cls_token is not None and isinstance(net.patch_drop, nn.Identity)

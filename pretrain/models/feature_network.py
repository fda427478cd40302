"""The interface of all backbones: what methods, weights, probes and detectors know of a network.

Shapes: B images of H × W pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from torch import Tensor, nn

from pixbench.errors import UserError


class FeatureNetwork(nn.Module):
    """Network that makes maps of images; the last one, or the one of the spec's stride, is the map that methods take."""

    channels: int
    """Number of channels C of the map that methods take."""
    stride: int
    """Side of a cell of that map in pixels."""
    stage_channels: Mapping[str, int]
    """Number of channels of the map of each stage, from input to output."""
    stage_strides: Mapping[str, int]
    """Side of a cell of the map of each stage in pixels."""

    has_tokens: bool = False
    """Whether `tokens` can be called."""

    def learn_for(self, stages: Iterable[str]) -> None:
        """Let only parameters learn that the maps of ``stages`` depend on. All of a ResNet do that."""

    def forward_stages(self, x: Tensor) -> dict[str, Tensor]:
        """Return the maps (B, C, h, w) of all stages for images ``x`` (B, 3, H, W)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return the map (B, channels, H / stride, W / stride), rounded up, that methods take."""
        raise NotImplementedError

    def tokens(self, x: Tensor, mask: Tensor | None = None, mask_token: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the class token (B, C) and the patch tokens (B, h·w, C) of images ``x`` (B, 3, H, W), after the last norm.

        Patches at which ``mask`` (B, h, w) is True are seen as ``mask_token`` (1, C), at their positions.
        """
        raise NotImplementedError

    def keep_inputs_only(self) -> None:
        """Let each block keep only its input for the backward pass and compute the rest again (activation checkpointing).

        Raises:
            UserError: The network cannot do that.
        """
        raise NotImplementedError

    def layer_groups(self) -> list[list[str]]:
        """Return the names of the parameters in layers, from input to output, for a learning rate that decays by layer.

        Raises:
            UserError: The network has no such order.
        """
        raise NotImplementedError


class Stages(Protocol):
    """What is known of the stages of a network, built or not."""

    @property
    def stage_channels(self) -> Mapping[str, int]:
        """As in `FeatureNetwork`."""

    @property
    def stage_strides(self) -> Mapping[str, int]:
        """As in `FeatureNetwork`."""


STRIDES = {"layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32}
"""Stages of hierarchical networks -> side of a cell in pixels."""


def needed(backbone: Stages, stages: tuple[str, ...], what: str) -> dict[str, int]:
    """Return the numbers of channels of ``stages``, which ``what`` needs.

    Raises:
        UserError: The backbone has no such stages.
    """
    if any(stage not in backbone.stage_channels for stage in stages):
        strides = ", ".join(map(str, dict.fromkeys(backbone.stage_strides.values())))
        raise UserError(
            f"{what} needs maps of several strides ({', '.join(str(STRIDES[stage]) for stage in stages)} pixels), but this "
            f"backbone has maps of stride {strides} only; choose a hierarchical backbone, such as a ResNet, ConvNeXt or Swin"
        )
    return {stage: backbone.stage_channels[stage] for stage in stages}

"""iBOT: self-distillation of class tokens and of masked patch tokens (Zhou et al., arXiv 2111.07832).

Shapes: B batch of this process, C channels, D bottleneck, K prototypes, (h, w) map of cells, M masked cells of both
views, L local crops.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from pixbench.distributed import mean_over_processes
from pixbench.errors import UserError
from pretrain.data.masks import Shape, draw_masks, places
from pretrain.data.views import Views
from pretrain.losses import full_precision
from pretrain.losses.self_distillation import class_token_loss, masked_cells_loss, sharpened
from pretrain.methods.base import MomentumMethod, feature_std
from pretrain.models.feature_network import FeatureNetwork
from pretrain.models.momentum_encoder import MomentumEncoder
from pretrain.models.prototype_head import PrototypeHead
from pretrain.schedule import teacher_temperature


class IBOT(MomentumMethod):
    """iBOT: the student sees images with masked patches and predicts what the momentum encoder makes of the whole images.

    Loss: w_class · (cross-entropy of the class tokens of different views) + w_patch · (cross-entropy of the masked patch tokens
    of the same view), in [0, ∞). The targets are centred and sharpened; the centres are averages over all processes, and their
    buffers are saved with the model. The patch tokens' logits are computed for masked cells only, which gives the same loss.
    """

    title = "iBOT: self-distillation of class tokens and masked patch tokens, for ViTs"
    needs_tokens = True
    takes_local_crops = True

    @dataclass(frozen=True)
    class Config:
        """Settings of iBOT, with the authors' values for ViT-S/16.

        Args:
            momentum: fraction of the old weights that the momentum encoder keeps per step, at the start; it grows to 1
                along a cosine.
            hidden: width of the hidden layers of the head.
            bottleneck: width of the unit vectors before the prototypes.
            dim: K, number of prototypes of class tokens.
            patch_dim: K of patch tokens; not used with `shared_head`.
            shared_head: whether patch tokens share the prototypes of class tokens.
            fixed_lengths: whether prototypes keep the length 1 (as for ViT-B); otherwise their lengths are trained.
            frozen_epochs: number of epochs at the start in which the prototypes are not trained.
            mask_ratios: middles of the ranges of the fraction of masked cells; one is chosen for each view.
            mask_spreads: half the width of each of these ranges.
            mask_shape: "block" (rectangles) or "random" (single cells).
            mask_start_epoch: number of epochs at the start without masks.
            temperature: softmax temperature of the student.
            teacher_temperature: of the momentum encoder for class tokens, after its warm-up.
            teacher_patch_temperature: of the momentum encoder for patch tokens, after its warm-up.
            teacher_temperature_start: of both kinds of tokens, at the start.
            teacher_warmup_epochs: number of epochs in which these temperatures grow, a step each epoch.
            centre_momentum: fraction of the old centres that is kept per step.
            class_weight: weight of the class tokens' loss.
            patch_weight: weight of the patch tokens' loss.
        """

        momentum: float = 0.996
        hidden: int = 2048
        bottleneck: int = 256
        dim: int = 8192
        patch_dim: int = 8192
        shared_head: bool = True
        fixed_lengths: bool = False
        frozen_epochs: int = 1
        mask_ratios: tuple[float, ...] = (0.0, 0.3)
        mask_spreads: tuple[float, ...] = (0.0, 0.2)
        mask_shape: Shape = "block"
        mask_start_epoch: int = 0
        temperature: float = 0.1
        teacher_temperature: float = 0.07
        teacher_patch_temperature: float = 0.07
        teacher_temperature_start: float = 0.04
        teacher_warmup_epochs: int = 30
        centre_momentum: float = 0.9
        class_weight: float = 1.0
        patch_weight: float = 1.0

        def __post_init__(self) -> None:
            if len(self.mask_ratios) != len(self.mask_spreads) or not self.mask_ratios:
                raise UserError(
                    f"method.mask_ratios {list(self.mask_ratios)} and method.mask_spreads {list(self.mask_spreads)} must have "
                    "one number for each range; give both lists the same length"
                )
            if any(not s <= r <= 1 - s for r, s in self.ranges):
                raise UserError(
                    f"method.mask_ratios {list(self.mask_ratios)} ± method.mask_spreads {list(self.mask_spreads)} must be "
                    "fractions of the cells, from 0 to 1"
                )

        @property
        def ranges(self) -> Sequence[tuple[float, float]]:
            """Middle and spread of each range of the fraction of masked cells."""
            return [*zip(self.mask_ratios, self.mask_spreads, strict=True)]

    config: Config
    centre: Tensor
    patch_centre: Tensor

    def __init__(self, backbone: FeatureNetwork, config: Config, total_steps: int) -> None:
        super().__init__(backbone, config, total_steps)
        patch_dim = config.dim if config.shared_head else config.patch_dim
        self.head = PrototypeHead(
            backbone.channels,
            config.hidden,
            config.bottleneck,
            config.dim,
            0 if config.shared_head else patch_dim,
            config.fixed_lengths,
        )
        self.mask_token = nn.Parameter(torch.zeros(1, backbone.channels))
        self.register_buffer("centre", torch.zeros(config.dim))
        self.register_buffer("patch_centre", torch.zeros(patch_dim))
        self.momentum_encoder = MomentumEncoder(self, ("backbone", "head"), config.momentum, total_steps)
        self._seed: int | None = None

    @property
    def epoch(self) -> int:
        """Number of finished epochs before the current step."""
        return max(self.momentum_encoder.steps - 1, 0) // self.steps_per_epoch

    def frozen_in_step(self) -> list[nn.Parameter]:
        """Return the prototypes in the first epochs."""
        return self.head.last_layer() if self.epoch < self.config.frozen_epochs else []

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Return "loss", its parts "loss_class" and "loss_patch" before their weights, and "feature_std"; move the centres.

        "feature_std" is that of the class tokens before the prototypes. Before training both parts are about ln K.
        """
        config, epoch = self.config, self.epoch
        images = torch.cat([views.view1, views.view2])  # (2B, 3, H, W)
        masks = self._masks(images)
        masked, weights = places(masks)
        cells = torch.tensor(masked).to(images.device, non_blocking=True)
        with torch.no_grad():
            targets, patch_targets = self._targets(images, cells, epoch)
        mask = torch.tensor(masks).to(images.device, non_blocking=True)
        tokens, patches = self.backbone.tokens(images, mask, self.mask_token)
        features = self.head(torch.cat([tokens, patches.flatten(0, 1).index_select(0, cells)]))
        of_class, of_cells = features.split([len(images), len(masked)])
        of_class = of_class.unflatten(0, (2, -1))  # (2, B, D)
        everywhere = torch.cat([of_class, *self._local(views)])  # (2 + L, B, D)
        loss_class = class_token_loss(self.head.class_logits(everywhere), targets, config.temperature)
        weight = torch.tensor(weights).to(images.device, patch_targets.dtype, non_blocking=True)
        loss_patch = masked_cells_loss(self.head.patch_logits(of_cells), patch_targets, weight, config.temperature)
        return {
            "loss": config.class_weight * loss_class + config.patch_weight * loss_patch,
            "loss_class": loss_class.detach(),
            "loss_patch": loss_patch.detach(),
            "feature_std": feature_std(of_class[0]),
        }

    def _local(self, views: Views) -> list[Tensor]:
        """Return the features (L, B, D) of the class tokens of all local crops, which are not masked; none without crops."""
        if views.local is None:
            return []
        tokens, _ = self.backbone.tokens(views.local.flatten(0, 1))
        return [self.head(tokens).unflatten(0, views.local.shape[:2]).transpose(0, 1)]

    def _targets(self, images: Tensor, cells: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Return the targets (2, B, K) of the class tokens and (M, K) of the masked ``cells`` (M,), and move the centres."""
        config, head = self.config, cast(PrototypeHead, self.momentum_encoder.get_submodule("head"))
        tokens, patches = cast(FeatureNetwork, self.momentum_encoder.backbone).tokens(images)
        logits, features = head.class_logits(head(tokens)), head(patches.flatten(0, 1))
        start, warmup = config.teacher_temperature_start, config.teacher_warmup_epochs
        temperature = teacher_temperature(start, config.teacher_temperature, epoch, warmup)
        patch_temperature = teacher_temperature(
            start, config.teacher_patch_temperature, epoch - config.mask_start_epoch, warmup
        )
        targets = sharpened(logits.unflatten(0, (2, -1)), self.centre, temperature)
        patch_targets = sharpened(
            head.patch_logits(features.index_select(0, cells)), self.patch_centre, patch_temperature
        )
        self._move(self.centre, logits)
        self._move(self.patch_centre, head.patch_logits(features.mean(0, keepdim=True)))  # of all cells: it is linear
        return targets, patch_targets

    def _move(self, centre: Tensor, logits: Tensor) -> None:
        """Move ``centre`` (K,) towards the mean of ``logits`` (n, K) of all processes, unless that is not finite."""
        mean = mean_over_processes(full_precision(logits).mean(0))
        moved = centre.lerp(mean.to(centre.dtype), 1 - self.config.centre_momentum)
        centre.copy_(torch.where(moved.isfinite().all(), moved, centre))

    def _masks(self, images: Tensor) -> np.ndarray:
        """Return a mask (h, w) for each of ``images`` (2B, 3, H, W), drawn on the host.

        The engine seeds PyTorch in each step. From that seed the masks are drawn, so that a continued run draws the same ones.
        """
        count, _, *sides = images.shape
        height, width = (-(-side // self.backbone.stride) for side in sides)
        if self._seed != torch.initial_seed():
            self._seed = torch.initial_seed()
            self._rng = random.Random(self._seed)
        if self.epoch < self.config.mask_start_epoch:
            return np.zeros((count, height, width), dtype=bool)
        return draw_masks(self._rng, count, height, width, self.config.ranges, self.config.mask_shape)

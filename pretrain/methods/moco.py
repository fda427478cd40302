"""MoCo: momentum contrast with a queue (He et al., arXiv 1911.05722; version 2: Chen et al., arXiv 2003.04297).

Shapes: B batch of this process, R processes, C channels, K keys in the queue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pretrain.data.views import Views
from pretrain.losses import unit
from pretrain.losses.instance import info_nce
from pretrain.methods.base import MomentumMethod, feature_std
from pretrain.models.feature_network import FeatureNetwork
from pretrain.models.heads import LinearHead, PooledHead
from pretrain.models.momentum_encoder import MomentumEncoder
from pretrain.models.queue import add_queue, enqueue


class MoCo(MomentumMethod):
    """Momentum contrast: view 1 gives the query, view 2 the momentum encoder's key, and earlier keys are the negatives.

    The loss has one direction only, as published. Batch norm: the published code shuffles the key batch over the GPUs,
    so that a query cannot recognise its key by shared batch statistics. Here BN is synchronised instead (the engine
    converts the whole model), so the statistics are those of all R·B images. In a single process neither has an effect.
    """

    config: Any
    queue: Tensor
    queue_pointer: Tensor

    def __init__(self, backbone: FeatureNetwork, config: Any, total_steps: int) -> None:
        super().__init__(backbone, config, total_steps)
        self.projector = self.build_projector()
        self.momentum_encoder = MomentumEncoder(self, ("backbone", "projector"), config.momentum)
        add_queue(self, "queue", config.queue_size, config.dim)

    def build_projector(self) -> nn.Module:
        """Return the projector of this version."""
        raise NotImplementedError

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Return "loss" in [0, ∞), "feature_std" of the queries and "accuracy", and put the keys into the queue.

        "accuracy" is the fraction of queries nearest to their own key. Before training the loss is about ln(K + 1).
        """
        query = unit(self.projector(self.backbone(views.view1)))
        with torch.no_grad():
            key = unit(self.momentum_encoder.projector(self.momentum_encoder.backbone(views.view2)))
        loss, accuracy = info_nce(query, key, self.queue.clone(), self.config.temperature)
        enqueue(self, "queue", key)
        return {"loss": loss, "feature_std": feature_std(query), "accuracy": accuracy}


class MoCoV1(MoCo):
    """MoCo with one linear layer after the average over cells."""

    title = "MoCo v1: contrastive loss with a queue of keys, one-layer projector"

    @dataclass(frozen=True)
    class Config:
        """Settings of MoCo v1, with the values of the paper.

        Args:
            queue_size: K, number of negative keys; a multiple of the total batch.
            temperature: softmax temperature.
            momentum: fraction of the old weights that the momentum encoder keeps per step, constant.
            dim: width of the projector's output.
        """

        queue_size: int = 65536
        temperature: float = 0.07
        momentum: float = 0.999
        dim: int = 128

    def build_projector(self) -> nn.Module:
        """Return one linear layer."""
        return LinearHead(self.backbone.channels, self.config.dim)


class MoCoV2(MoCo):
    """MoCo with two layers after the average over cells."""

    title = "MoCo v2: contrastive loss with a queue of keys, two-layer projector"

    @dataclass(frozen=True)
    class Config:
        """Settings of MoCo v2, with the values of the paper.

        Args:
            queue_size: K, number of negative keys; a multiple of the total batch.
            temperature: softmax temperature.
            momentum: fraction of the old weights that the momentum encoder keeps per step, constant.
            hidden: width of the projector's hidden layer.
            dim: width of the projector's output.
        """

        queue_size: int = 65536
        temperature: float = 0.2
        momentum: float = 0.999
        hidden: int = 2048
        dim: int = 128

    def build_projector(self) -> nn.Module:
        """Return two linear layers with a ReLU between them."""
        return PooledHead(self.backbone.channels, self.config.hidden, self.config.dim, batch_norm=False)

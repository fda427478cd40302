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
from pretrain.models.heads import LinearHead, PooledHead
from pretrain.models.momentum_encoder import MomentumEncoder
from pretrain.models.queue import add_queue, enqueue
from pretrain.models.resnet import ResNet


class MoCo(MomentumMethod):
    """View 1 is the query, view 2 the target's key, earlier keys are the negatives; one way only, as published.

    Batch norm: the published code shuffles the key batch over the GPUs so that a query cannot recognise its key by
    the batch statistics they share. Here BN is synchronised instead (the engine converts the whole model), which
    makes the statistics those of all R·B images. In a single process neither does anything.
    """

    config: Any
    queue: Tensor
    queue_pointer: Tensor

    def __init__(self, backbone: ResNet, config: Any, total_steps: int) -> None:
        super().__init__(backbone, config, total_steps)
        self.projector = self.build_projector()
        self.momentum_encoder = MomentumEncoder(self, ("backbone", "projector"), config.momentum)
        add_queue(self, "queue", config.queue_size, config.dim)

    def build_projector(self) -> nn.Module:
        raise NotImplementedError

    def forward(self, views: Views) -> dict[str, Tensor]:
        """`views` -> "loss" in [0, ∞), "feature_std" of the queries, "accuracy": share of queries nearest to their
        own key.

        Before anything is learned the loss is about ln(K + 1). The keys are put into the queue.
        """
        query = unit(self.projector(self.backbone(views.view1)))
        with torch.no_grad():
            key = unit(self.momentum_encoder.projector(self.momentum_encoder.backbone(views.view2)))
        loss, accuracy = info_nce(query, key, self.queue.clone(), self.config.temperature)
        enqueue(self, "queue", key)
        return {"loss": loss, "feature_std": feature_std(query), "accuracy": accuracy}


class MoCoV1(MoCo):
    """With one linear layer after the average over cells."""

    title = "MoCo v1: contrast with a queue of keys, linear projection"

    @dataclass(frozen=True)
    class Config:
        """Settings of MoCo v1, with the values of the paper.

        Args:
            queue_size: K, number of negative keys; a multiple of the total batch.
            temperature: of the softmax.
            momentum: of the target, constant.
            dim: width of the projection.
        """

        queue_size: int = 65536
        temperature: float = 0.07
        momentum: float = 0.999
        dim: int = 128

    def build_projector(self) -> nn.Module:
        return LinearHead(self.backbone.channels, self.config.dim)


class MoCoV2(MoCo):
    """With two layers after the average over cells."""

    title = "MoCo v2: contrast with a queue of keys"

    @dataclass(frozen=True)
    class Config:
        """Settings of MoCo v2, with the values of the paper.

        Args:
            queue_size: K, number of negative keys; a multiple of the total batch.
            temperature: of the softmax.
            momentum: of the target, constant.
            hidden: width of the projector's hidden layer.
            dim: width of the projector's output.
        """

        queue_size: int = 65536
        temperature: float = 0.2
        momentum: float = 0.999
        hidden: int = 2048
        dim: int = 128

    def build_projector(self) -> nn.Module:
        return PooledHead(self.backbone.channels, self.config.hidden, self.config.dim, batch_norm=False)

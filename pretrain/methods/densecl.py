"""DenseCL: momentum contrast of images and of their cells (Wang et al., arXiv 2011.09157).

Shapes: B batch of this process, C channels, (H, W) map of cells, N = H·W, K keys in each queue.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pretrain.data.views import Views
from pretrain.losses import full_precision, unit
from pretrain.losses.instance import info_nce
from pretrain.methods.base import MomentumMethod, feature_std
from pretrain.models.feature_network import FeatureNetwork
from pretrain.models.heads import ConvHead, PooledHead
from pretrain.models.momentum_encoder import MomentumEncoder
from pretrain.models.queue import add_queue, enqueue


def matched(maps: Tensor, momentum_maps: Tensor, values: Tensor) -> Tensor:
    """Return for each cell of view 1 the value of the most similar cell of view 2 (Eq. 3): (B, N, C).

    Args:
        maps: C5 of view 1 by the student, (B, C', H, W).
        momentum_maps: C5 of view 2 by the momentum encoder, (B, C', H, W).
        values: values of view 2, (B, C, H, W).
    """
    with torch.no_grad(), torch.autocast(maps.device.type, enabled=False):
        cosine = unit(maps).flatten(2).transpose(1, 2) @ unit(momentum_maps).flatten(2)
        nearest = cosine.argmax(2)  # (B, N)
    values = values.flatten(2).transpose(1, 2)
    return values.gather(1, nearest[:, :, None].expand(-1, -1, values.shape[2]))


class DenseCL(MomentumMethod):
    """MoCo v2, with a second loss of the same form for the cells: L = (1 − λ) L_image + λ L_cells.

    The positive of a cell is the momentum encoder's projection of the cell of view 2 that is most similar on C5. Its
    negatives are averages over the cells of earlier images, in a second queue (as in `openselfsup/models/densecl.py`).
    Crop boxes are not used. For BN see `pretrain.methods.moco`.
    """

    title = "DenseCL: the contrastive loss of MoCo v2 for images and for their cells"

    @dataclass(frozen=True)
    class Config:
        """Settings of DenseCL, with the values of the paper.

        Args:
            weight: λ, fraction of the loss that comes from the cells.
            queue_size: K, number of negative keys in each queue; a multiple of the total batch.
            temperature: softmax temperature of both losses.
            momentum: fraction of the old weights that the momentum encoder keeps per step, constant.
            hidden: width of the hidden layer in both projectors.
            dim: width of the output of both projectors.
        """

        weight: float = 0.5
        queue_size: int = 65536
        temperature: float = 0.2
        momentum: float = 0.999
        hidden: int = 2048
        dim: int = 128

    config: Config
    queue: Tensor
    queue_dense: Tensor

    def __init__(self, backbone: FeatureNetwork, config: Config, total_steps: int) -> None:
        super().__init__(backbone, config, total_steps)
        self.projector = PooledHead(backbone.channels, config.hidden, config.dim, batch_norm=False)
        self.projector_dense = ConvHead(backbone.channels, config.hidden, config.dim, batch_norm=False)
        self.momentum_encoder = MomentumEncoder(self, ("backbone", "projector", "projector_dense"), config.momentum)
        add_queue(self, "queue", config.queue_size, config.dim)
        add_queue(self, "queue_dense", config.queue_size, config.dim)

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Return "loss" in [0, ∞) and scalars for the log, and put the keys into the queues.

        "loss_image" and "loss_cells" are the terms of the loss, each about ln(K + 1) before training. "feature_std" is
        that of the cells' queries. "accuracy" and "accuracy_cells" are fractions of queries nearest to their own key.
        """
        config = self.config
        maps = self.backbone(views.view1)
        query, cells = unit(self.projector(maps)), unit(self.projector_dense(maps))  # (B, C), (B, C, H, W)
        with torch.no_grad():
            momentum_maps = self.momentum_encoder.backbone(views.view2)
            key = unit(self.momentum_encoder.projector(momentum_maps))
            dense = full_precision(self.momentum_encoder.get_submodule("projector_dense")(momentum_maps))
            cell_keys = matched(maps, momentum_maps, unit(dense)).flatten(0, 1)  # (B·N, C)
            dense_key = unit(dense.mean(dim=(2, 3)))
        cell_queries = cells.flatten(2).transpose(1, 2).flatten(0, 1)  # (B·N, C)
        image, accuracy = info_nce(query, key, self.queue.clone(), config.temperature)
        local, accuracy_cells = info_nce(cell_queries, cell_keys, self.queue_dense.clone(), config.temperature)
        enqueue(self, "queue", key)
        enqueue(self, "queue_dense", dense_key)
        return {
            "loss": (1 - config.weight) * image + config.weight * local,
            "loss_image": image.detach(),
            "loss_cells": local.detach(),
            "feature_std": feature_std(cells),
            "accuracy": accuracy,
            "accuracy_cells": accuracy_cells,
        }

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
from pretrain.models.heads import ConvHead, PooledHead
from pretrain.models.momentum_encoder import MomentumEncoder
from pretrain.models.queue import add_queue, enqueue
from pretrain.models.resnet import ResNet


def matched(maps: Tensor, momentum_maps: Tensor, values: Tensor) -> Tensor:
    """For each cell of view 1 the value of the cell of view 2 that looks most like it (Eq. 3): (B, N, C).

    Args:
        maps, momentum_maps: C5 of view 1 by the student, of view 2 by the target, (B, C', H, W).
        values: (B, C, H, W) of view 2.
    """
    with torch.no_grad(), torch.autocast(maps.device.type, enabled=False):
        cosine = unit(maps).flatten(2).transpose(1, 2) @ unit(momentum_maps).flatten(2)
        nearest = cosine.argmax(2)  # (B, N)
    values = values.flatten(2).transpose(1, 2)
    return values.gather(1, nearest[:, :, None].expand(-1, -1, values.shape[2]))


class DenseCL(MomentumMethod):
    """MoCo v2, and besides it the same for every cell: L = (1 − λ) L_image + λ L_cells.

    A cell's positive is the target's projection of the cell of view 2 that is most similar on C5; its negatives are
    the averages over the cells of earlier images, in a queue of their own (as `openselfsup/models/densecl.py`). Crop
    boxes are not used. BN as in `pretrain.methods.moco`.
    """

    title = "DenseCL: MoCo v2 for images and for their cells"

    @dataclass(frozen=True)
    class Config:
        """Settings of DenseCL, with the values of the paper.

        Args:
            weight: λ, share of the loss between cells.
            queue_size: K, number of negative keys in each queue; a multiple of the total batch.
            temperature: of both softmaxes.
            momentum: of the target, constant.
            hidden: width of the hidden layer of both projectors.
            dim: width of their outputs.
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

    def __init__(self, backbone: ResNet, config: Config, total_steps: int) -> None:
        super().__init__(backbone, config, total_steps)
        self.projector = PooledHead(backbone.channels, config.hidden, config.dim, batch_norm=False)
        self.projector_dense = ConvHead(backbone.channels, config.hidden, config.dim, batch_norm=False)
        self.momentum_encoder = MomentumEncoder(self, ("backbone", "projector", "projector_dense"), config.momentum)
        add_queue(self, "queue", config.queue_size, config.dim)
        add_queue(self, "queue_dense", config.queue_size, config.dim)

    def forward(self, views: Views) -> dict[str, Tensor]:
        """`views` -> "loss" in [0, ∞), its terms "loss_image" and "loss_cells", "feature_std" of the cells' queries,
        "accuracy" and "accuracy_cells": share of queries nearest to their own key.

        Before anything is learned each term is about ln(K + 1). The keys are put into the queues.
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

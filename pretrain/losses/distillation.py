"""Losses between a student and a teacher.

Shapes: B batch of this process, C channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pixbench.distributed import all_gather_cat
from pretrain.losses import full_precision


def soft_cross_entropy(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return the mean cross-entropy of softmax(``logits`` / temperature) with softmax(``teacher`` / temperature).

    Both are (B, classes). The result is not multiplied by temperature². Source: `CrossEntropy` in `CIFAR/distill.py` of the code
    of Contrastive Deep Supervision.
    """
    with torch.autocast(logits.device.type, enabled=False):
        return F.cross_entropy(full_precision(logits) / temperature, (full_precision(teacher) / temperature).softmax(1))


def distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the Euclidean distance of two whole matrices (B, C), of the images of all processes together.

    This is a root of a sum over images, not a mean: four times as many images double it. Source: `torch.dist` in
    `CIFAR/distill.py` of the code of Contrastive Deep Supervision.
    """
    with torch.autocast(student.device.type, enabled=False):
        own = torch.linalg.vector_norm(full_precision(student) - full_precision(teacher))
        return torch.linalg.vector_norm(all_gather_cat(own[None], grad=True))

"""U2PL's contrastive loss: anchors, the centres of their classes, and negatives from a memory of each class.

Shapes: maps of B pictures have h × w cells; K classes; D channels of a representation. Where the paper differs from the authors'
code (its issues 111 and 171), the code is followed, because the published numbers come from it:

* A cell is a negative of a class only if its label or pseudo-label is that class. A labelled cell never is one, therefore, and an
  unlabelled one only where the teacher's two predictions disagree (the paper has no such condition, equations 10 to 13).
* The n-th class of a batch, in their order, uses the anchors and the centre of class number n (equal if no class is missing).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmengine.dist import all_gather_object
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Contrast:
    """Settings of the contrastive loss, under the authors' names."""

    low_rank: int = 3
    high_rank: int = 20
    current_class_threshold: float = 0.3
    current_class_negative_threshold: float = 1
    num_queries: int = 256
    num_negatives: int = 50
    temperature: float = 0.5


class Memory:
    """The representations of each class's latest negatives, on the CPU. All processes keep the same ones.

    Args:
        sizes: how many representations are kept of each class.
        channels: D.
    """

    def __init__(self, sizes: Sequence[int], channels: int) -> None:
        self.sizes = sizes
        self.kept = [torch.zeros(0, channels) for _ in sizes]

    def add(self, place: int, keys: Tensor) -> None:
        """Keep ``keys`` (n, D) as the latest negatives of class ``place``."""
        self.kept[place] = torch.cat([self.kept[place], keys.detach().cpu().float()])[-self.sizes[place] :]

    def gather(self, centres: Tensor, where: Tensor) -> None:
        """Keep the representations (B, D, h, w) of all processes, by rank, where they are negatives (B, K, h, w) of a class."""
        cells = centres.detach().permute(0, 2, 3, 1)
        mine = [cells[chosen].cpu() for chosen in where.unbind(1)]
        for found in all_gather_object(mine):
            for place, keys in enumerate(found):
                self.add(place, keys)


def negatives(chances: Tensor, labels: Tensor, high: Tensor, labelled: int, settings: Contrast) -> Tensor:
    """Return where (B, K, h, w) a cell is a negative of a class.

    Args:
        chances: the teacher's class probabilities (B, K, h, w), of the ``labelled`` pictures first.
        labels: one-hot labels and pseudo-labels (B, K, h, w).
        high: the cells (B, 1, h, w) with a label, or with a pseudo-label that is unreliable.
        labelled: number of labelled pictures.
        settings: the ranks of unlikely classes and the largest probability.
    """
    order = chances.argsort(1, descending=True)
    rank = order.argsort(1)
    likely = (rank[:labelled] < settings.low_rank) & (labels[:labelled] == 0)
    unlikely = (rank[labelled:] >= settings.low_rank) & (rank[labelled:] < settings.high_rank)
    found = torch.cat([likely, unlikely]) & labels.bool() & high.bool()
    return found & (chances < settings.current_class_negative_threshold)


def contrastive_loss(
    student: Tensor,
    teacher: Tensor,
    chances: Tensor,
    labels: Tensor,
    low: Tensor,
    memory: Memory,
    settings: Contrast,
) -> Tensor:
    """Return the mean of the classes' losses (equation 7).

    Args:
        student: representations (B, D, h, w) with gradients: the anchors.
        teacher: the teacher's representations (B, D, h, w): the centres.
        chances: as for `negatives`.
        labels: as for `negatives`.
        low: the cells (B, 1, h, w) with a label, or with a pseudo-label that is reliable.
        memory: negatives of each class.
        settings: thresholds and numbers.
    """
    anchors, centres = student.permute(0, 2, 3, 1), teacher.permute(0, 2, 3, 1)
    reliable = labels.bool() & low.bool()
    present = [int(k) for k in reliable.sum((0, 2, 3)).nonzero()]
    loss = 0 * student.sum()
    if len(present) <= 1:
        return loss
    for n, k in enumerate(present):
        candidates = anchors[reliable[:, n] & (chances[:, n] > settings.current_class_threshold)]
        bank = memory.kept[k]
        if not len(candidates) or not len(bank):
            continue
        queries = candidates[_draw(len(candidates), settings.num_queries, student.device)]
        drawn = bank[_draw(len(bank), settings.num_queries * settings.num_negatives)].to(student)
        centre = centres[reliable[:, n]].mean(0)
        others = drawn.view(settings.num_queries, settings.num_negatives, -1)
        choices = torch.cat([centre.expand(settings.num_queries, 1, -1), others], 1)
        alike = functional.cosine_similarity(queries[:, None], choices, dim=2) / settings.temperature
        loss = loss + functional.cross_entropy(alike, torch.zeros(len(alike), dtype=torch.long, device=alike.device))
    return loss / len(present)


def _draw(count: int, number: int, device: torch.device | None = None) -> Tensor:
    return torch.randint(count, (number,), device=device)

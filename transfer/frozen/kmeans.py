"""k-means and principal components of features, as faiss defines them.

Shapes: N points of D values; K centroids.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pixbench.errors import UserError
from transfer.frozen.patches import PART, Rows

POINTS_EACH = 256
"""Most points for each centroid that k-means is trained on, drawn at random (``max_points_per_centroid`` of faiss)."""
SHIFT = 1 / 1024
"""Relative distance of the two halves of a cluster that is split because another one is empty."""


@dataclass(frozen=True)
class Clustering:
    """Found centroids."""

    centroids: Tensor
    """(K, D)."""
    spherical: bool
    """Whether a point belongs to the centroid of largest inner product (all have length 1), not to the nearest one."""

    def assign(self, points: Tensor) -> tuple[Tensor, float]:
        """Return the cluster (N,) of each point, and the sum of what is maximised: inner product, or −distance²."""
        found, total = [], 0.0
        for some in points.split(max(1, PART // len(self.centroids))):
            if self.spherical:
                best = (some @ self.centroids.T).max(1)
                total += best.values.double().sum().item()
            else:
                best = torch.addmm(self.centroids.square().sum(1), some, self.centroids.T, beta=-1, alpha=2).max(1)
                total += (best.values.double() - some.double().square().sum(1)).sum().item()
            found.append(best.indices)
        return torch.cat(found), total


def kmeans(
    points: Tensor, clusters: int, iterations: int, restarts: int, seed: int, spherical: bool = False
) -> Clustering:
    """Return the best of ``restarts`` runs of Lloyd's algorithm on ``points`` (N, D), each from random points.

    Raises:
        UserError: there are fewer points than clusters.
    """
    if len(points) < clusters:
        raise UserError(
            f"there are {len(points)} cells, fewer than the {clusters} clusters of settings.clusters; lower it, or add images"
        )
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(points), generator=generator)[: POINTS_EACH * clusters]
    points = points[chosen.to(points.device)] if len(chosen) < len(points) else points
    runs = (_run(points, clusters, iterations, generator, spherical) for _ in range(restarts))
    return max(runs, key=lambda run: run[1])[0]


def _run(
    points: Tensor, clusters: int, iterations: int, generator: torch.Generator, spherical: bool
) -> tuple[Clustering, float]:
    start = torch.randperm(len(points), generator=generator)[:clusters]
    found = Clustering(_placed(points[start.to(points.device)], spherical), spherical)
    before, total = None, float("-inf")
    for _ in range(iterations):
        members, total = found.assign(points)
        if before is not None and before.equal(members):  # nothing moves any more
            break
        sums = torch.zeros_like(found.centroids).index_add_(0, members, points)
        sizes = torch.bincount(members, minlength=clusters)
        centroids = sums / sizes.clamp(min=1)[:, None]
        _fill_empty(centroids, sizes.cpu(), generator)
        found, before = Clustering(_placed(centroids, spherical), spherical), members
    return found, total


def _placed(centroids: Tensor, spherical: bool) -> Tensor:
    return torch.nn.functional.normalize(centroids, dim=1) if spherical else centroids


def _fill_empty(centroids: Tensor, sizes: Tensor, generator: torch.Generator) -> None:
    """Split a cluster for each empty one, drawn with a probability that grows with its size."""
    signs = torch.ones(centroids.shape[1], dtype=centroids.dtype, device=centroids.device)
    signs[1::2] = -1
    for empty in (sizes == 0).nonzero().flatten().tolist():
        split = int(torch.multinomial((sizes - 1).clamp(min=0).double() + 1e-12, 1, generator=generator))
        centroids[empty] = centroids[split] * (1 + SHIFT * signs)
        centroids[split] *= 1 - SHIFT * signs
        sizes[empty] = sizes[split] // 2
        sizes[split] -= sizes[empty]


def principal(rows: Rows, components: int) -> Tensor:
    """Return standardised cells (N, components), projected on the directions in which they vary most.

    Raises:
        UserError: they have fewer channels.
    """
    channels = rows.cells.shape[1]
    if channels < components:
        raise UserError(
            f"the backbone has {channels} channels, fewer than the {components} principal components of settings.components; "
            "lower it"
        )
    size = max(1, PART // channels)
    covariance = torch.zeros(channels, channels, dtype=torch.float64, device=rows.device)
    for some in rows.parts(size):
        covariance += (some.T @ some).double()
    directions = torch.linalg.eigh(covariance / len(rows)).eigenvectors[:, -components:].flip(1)
    return torch.cat([some @ directions.to(some.dtype) for some in rows.parts(size)])

"""Find the exact nearest neighbours of patches in a memory that may be larger than RAM.

Shapes: m queries, n patches in the memory, C channels, k neighbours.

The memory is read in parts, and products are computed in tiles of `QUERIES` × `PATCHES`. The k best of each query so far stay
in a small table. What keeps the products the dominant cost, and not the choice of the largest: of each `GROUP` neighbouring
products of a query only the largest is compared with the worst of its k best. After a few tiles hardly any group passes, and
only the products of those that pass are looked at one by one. Nothing is approximated: a product that belongs to the k best
is larger than the worst of the k best so far, and so is the largest of its group.

Of equally near patches the one with the lower number is taken, so the result does not depend on the sizes of the parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from pixbench.errors import UserError

Metric = Literal["cosine", "inner", "l2"]
Backend = Literal["torch", "faiss"]
PART = 2**24
"""Number of values of the memory that are read at a time: 64 MiB in float32."""
QUERIES, PATCHES = 2048, 4096
"""Sides of a tile of products: 32 MiB in float32."""
GROUP = 64
"""Number of neighbouring products of which the largest is compared first."""


class Memory(Protocol):
    """What is searched: a tensor (n, C), or something that is read like one, part after part."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, C)."""

    def __getitem__(self, part: Any) -> Tensor: ...


@dataclass(frozen=True)
class Neighbours:
    """The k nearest patches of each query, the nearest first."""

    values: Tensor
    """(m, k): cosines, inner products or squared distances, as the metric says."""
    patches: Tensor
    """(m, k) int64: numbers of rows of the memory, or places in ``rows`` if those were given."""


def nearest(
    queries: Tensor,
    memory: Memory,
    k: int,
    metric: Metric = "cosine",
    rows: Tensor | None = None,
    backend: Backend = "torch",
    part: int = PART,
) -> Neighbours:
    """Return the k nearest patches of each query. It is computed on the device and in the type of the queries.

    Args:
        queries: (m, C).
        memory: (n, C); may be mapped from a file. It is read once from start to end.
        k: number of neighbours.
        metric: "cosine" and "inner" look for the largest, "l2" for the smallest squared distance.
        rows: rows of ``memory`` that are searched; None for all.
        backend: "faiss" searches each part with faiss on the CPU, in float32.
        part: number of values that are read at a time.

    Raises:
        UserError: the memory holds fewer patches than neighbours, features are not finite, or faiss is not installed.
    """
    count = memory.shape[0] if rows is None else len(rows)
    if not 1 <= k <= count:
        raise UserError(f"{k} neighbours are asked for, but the memory holds {count} patches; set fewer neighbours")
    faiss = package(backend)
    queries = _prepared(queries, metric)
    best = queries.new_full((len(queries), k), -torch.inf)
    found = torch.full((len(queries), k), -1, dtype=torch.int64, device=queries.device)
    space = queries.new_empty(min(QUERIES, len(queries)) * min(PATCHES, count))
    step = max(1, part // memory.shape[1] // PATCHES) * PATCHES  # whole tiles
    for first in range(0, count, step):
        some = memory[first : first + step] if rows is None else memory[rows[first : first + step].cpu()]
        some = _prepared(some.to(queries), metric)
        for start in range(0, len(queries), QUERIES):
            tile = slice(start, start + QUERIES)
            if faiss:
                _take_from_faiss(faiss, best[tile], found[tile], queries[tile], some, first, metric)
            else:
                _take_part(best[tile], found[tile], queries[tile], some, first, metric, space)
    values, order = best.sort(dim=1, descending=True, stable=True)
    if metric == "l2":
        values = (queries.square().sum(1, keepdim=True) - 2 * values).clamp(min=0)
    return Neighbours(values, found.gather(1, order))


def _prepared(features: Tensor, metric: Metric) -> Tensor:
    features = F.normalize(features, dim=1) if metric == "cosine" else features
    if not features.sum().isfinite() and not features.isfinite().all():  # the sum is the cheaper look
        raise UserError(
            "the features hold values that are not finite (NaN or infinity); look at the backbone's weights"
        )
    return features


def _take_part(
    best: Tensor, found: Tensor, queries: Tensor, some: Tensor, first: int, metric: Metric, space: Tensor
) -> None:
    """Update the k best products (b, k) and their patches with ``some`` of the memory, whose numbers begin at ``first``.

    Products are written into ``space``: fresh memory for each tile would cost a tenth of their time.
    """
    for start in range(0, len(some), PATCHES):
        patches = some[start : start + PATCHES]
        products = space[: len(queries) * len(patches)].view(len(queries), len(patches))
        torch.mm(queries, patches.T, out=products)
        if metric == "l2":  # the largest q·p − |p|²/2 is the smallest distance
            products -= 0.5 * patches.square().sum(1)
        if odd := len(patches) % GROUP:
            products = F.pad(products, (0, GROUP - odd), value=-torch.inf)
        _take(best, found, products, first + start)


def _take(best: Tensor, found: Tensor, products: Tensor, first: int) -> None:
    """Update ``best`` and ``found`` (b, k), both in the order of the patches, with ``products`` (b, p) of later patches."""
    k, groups = best.shape[1], products.view(len(products), -1, GROUP)
    largest = groups.amax(2)
    worst = best.amin(1, keepdim=True)  # an equal one that comes later does not replace it
    passing = largest > worst
    floor = None
    if k <= largest.shape[1] and worst.amin() == -torch.inf:  # the first tile: k groups have one that large
        floor = largest.topk(k, 1, sorted=False).values.amin(1, keepdim=True)
        passing &= largest >= floor
    query, group = passing.nonzero(as_tuple=True)
    if not len(query):
        return
    candidates = groups[query, group]
    wanted = candidates > worst[query]
    if floor is not None:
        wanted &= candidates >= floor[query]
    at, inside = wanted.nonzero(as_tuple=True)
    touched, place, counts = query[at].unique_consecutive(return_inverse=True, return_counts=True)
    column = k + torch.arange(len(at), device=at.device) - (counts.cumsum(0) - counts)[place]
    table = best.new_full((len(touched), k + int(counts.max())), -torch.inf)
    numbers = found.new_full(table.shape, -1)
    table[:, :k], numbers[:, :k] = best[touched], found[touched]
    table[place, column], numbers[place, column] = candidates[at, inside], first + group[at] * GROUP + inside
    kept = _largest(table, k)
    best[touched], found[touched] = table.gather(1, kept), numbers.gather(1, kept)


def _largest(values: Tensor, k: int) -> Tensor:
    """Return the columns (b, k) of the k largest ``values`` (b, c) in ascending order; of equal ones, the first columns."""
    worst = values.topk(k, 1, sorted=False).values.amin(1, keepdim=True)
    above, level = values > worst, values == worst
    wanted = above | (level & (level.cumsum(1) <= k - above.sum(1, keepdim=True)))
    return wanted.nonzero()[:, 1].view(len(values), k)


def _take_from_faiss(
    faiss: Any, best: Tensor, found: Tensor, queries: Tensor, some: Tensor, first: int, metric: Metric
) -> None:
    k, kind = best.shape[1], faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    arrays = [tensor.float().cpu().contiguous().numpy() for tensor in (queries, some)]
    values, patches = (torch.from_numpy(a).to(best.device) for a in faiss.knn(*arrays, min(k, len(some)), metric=kind))
    if metric == "l2":
        values = (queries.square().sum(1, keepdim=True) - values) / 2
    order = patches.argsort(1)
    table = torch.cat([best, values.gather(1, order).to(best)], 1)
    numbers = torch.cat([found, first + patches.gather(1, order)], 1)
    kept = _largest(table, k)
    best[:], found[:] = table.gather(1, kept), numbers.gather(1, kept)


def package(backend: Backend) -> Any:
    """Return the package that ``backend`` needs, or None.

    Raises:
        UserError: it is not installed.
    """
    if backend == "torch":
        return None
    try:
        import faiss
    except ImportError as error:
        raise UserError(
            "settings.search faiss needs the package faiss-cpu; install it, or set settings.search=torch"
        ) from error
    return faiss

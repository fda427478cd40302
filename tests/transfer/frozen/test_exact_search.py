"""The exact search: the neighbours of a full sort, whatever is read at a time, with the lower number first among equals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pixbench.errors import UserError
from transfer.frozen import search
from transfer.frozen.search import nearest

PARTS = (1, 5000 * 6, search.PART)


def sorted_all(products: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-products, 1, kind="stable")[:, :k]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("metric", ["inner", "l2"])
def test_many_equal_patches(metric: str, part: int) -> None:
    """Small whole numbers: every product is exact, and hundreds are equal."""
    generator = torch.Generator().manual_seed(0)
    queries, memory = (torch.randint(-2, 3, (n, 6), generator=generator).float() for n in (70, 9000))
    distances = (queries[:, None] - memory).square().sum(2)
    expected = sorted_all((queries @ memory.T if metric == "inner" else -distances).numpy(), 30)
    found = nearest(queries, memory, 30, metric, part=part)  # type: ignore[arg-type]
    assert (found.patches.numpy() == expected).all()
    if metric == "l2":
        assert torch.equal(found.values, distances.gather(1, found.patches))


@pytest.mark.parametrize("metric", ["cosine", "inner", "l2"])
def test_equals_numpy(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "QUERIES", 7)
    monkeypatch.setattr(search, "PATCHES", 128)
    rng = np.random.default_rng(0)
    queries, memory = rng.standard_normal((20, 5)), rng.standard_normal((1000, 5))
    products = queries @ memory.T
    if metric == "cosine":
        products /= np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(memory, axis=1)
    if metric == "l2":
        products = -((queries[:, None] - memory) ** 2).sum(2)
    expected = sorted_all(products, 11)
    found = nearest(torch.from_numpy(queries), torch.from_numpy(memory), 11, metric, part=1)  # type: ignore[arg-type]
    assert (found.patches.numpy() == expected).all()
    np.testing.assert_allclose(found.values, abs(np.take_along_axis(products, expected, 1)), rtol=0, atol=1e-9)


def test_memory_in_order_of_similarity() -> None:
    """The worst order: each later patch is nearer than all before it."""
    memory = torch.linspace(0, 1, 10_000, dtype=torch.float64)[:, None]
    found = nearest(torch.ones(3, 1, dtype=torch.float64), memory, 4, "inner")
    assert found.patches.tolist() == [[9999, 9998, 9997, 9996]] * 3


def test_some_rows_of_a_mapped_file(tmp_path: Path) -> None:
    values = np.memmap(tmp_path / "m", np.float32, "w+", shape=(600, 4))
    values[:] = np.random.default_rng(0).standard_normal((600, 4))
    memory, rows = torch.from_numpy(values), torch.arange(1, 600, 3)
    found = nearest(memory[:9], memory, 5, rows=rows, part=1)
    again = nearest(memory[:9], memory[rows].clone(), 5)
    assert torch.equal(found.patches, again.patches)
    assert torch.equal(found.values, again.values)


def test_as_many_neighbours_as_patches() -> None:
    found = nearest(torch.eye(3), torch.eye(3), 3)
    assert found.patches.tolist() == [[0, 1, 2], [1, 0, 2], [2, 0, 1]]


def test_more_neighbours_than_patches() -> None:
    with pytest.raises(UserError, match="4 neighbours are asked for, but the memory holds 3 patches"):
        nearest(torch.eye(3), torch.eye(3), 4)


def test_features_that_are_not_finite() -> None:
    memory = torch.eye(3)
    memory[1, 1] = torch.nan
    with pytest.raises(UserError, match="not finite"):
        nearest(torch.eye(3), memory, 1)


@pytest.mark.parametrize("metric", ["cosine", "inner", "l2"])
def test_faiss_finds_the_same(metric: str) -> None:
    pytest.importorskip("faiss")
    generator = torch.Generator().manual_seed(0)
    queries, memory = (torch.randn(n, 16, generator=generator) for n in (50, 9000))
    for part in PARTS:
        ours, theirs = (nearest(queries, memory, 30, metric, backend=b, part=part) for b in ("torch", "faiss"))  # type: ignore[arg-type]
        assert torch.equal(ours.patches, theirs.patches)
        torch.testing.assert_close(ours.values, theirs.values, rtol=0, atol=1e-4)


def test_without_faiss() -> None:
    try:
        import faiss  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match="needs the package faiss-cpu"):
            nearest(torch.eye(3), torch.eye(3), 1, backend="faiss")
    else:
        pytest.skip("faiss is installed")

"""RankMe, α-ReQ and uniformity by hand, against plain references, and on known spectra."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from transfer.frozen.spectrum import alpha_req, eigenspectrum, rank_me, uniformity


def random_cells(count: int, channels: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, channels)) + 0.5)


def turned(cells: torch.Tensor) -> torch.Tensor:
    rotation = np.linalg.qr(np.random.default_rng(9).normal(size=(cells.shape[1],) * 2))[0]
    return cells @ torch.from_numpy(rotation)


def with_spectrum(eigenvalues: np.ndarray, count: int) -> torch.Tensor:
    """Return cells (count, C) whose covariance has these eigenvalues, up to a factor."""
    rng = np.random.default_rng(1)
    centred = rng.normal(size=(count, len(eigenvalues)))
    axes = np.linalg.qr(centred - centred.mean(0))[0]  # orthonormal columns with mean 0
    return turned(torch.from_numpy(axes * np.sqrt(eigenvalues) + 3.0))


def test_rank_me_by_hand() -> None:
    shares = [0.75, 0.25]
    expected = math.exp(-sum(share * math.log(share) for share in shares))
    cells = torch.tensor([[3.0, 0], [0, 1], [0, 0]])
    assert rank_me(cells, 0) == pytest.approx(expected, abs=1e-9)
    assert rank_me(torch.eye(8), 0) == pytest.approx(8, abs=1e-9)
    assert rank_me(torch.ones(5, 4), 0) == pytest.approx(1, abs=1e-9)
    assert rank_me(torch.tensor([[2.0, 1.0]]), 0) == pytest.approx(1, abs=1e-9)  # one cell


@pytest.mark.parametrize(("count", "channels"), [(50, 8), (8, 50)])
def test_the_definitions_of_the_papers(count: int, channels: int) -> None:
    cells = random_cells(count, channels)
    values = np.linalg.svd(cells.numpy(), compute_uv=False)
    shares = values / values.sum() + 1e-7
    assert rank_me(cells, 1e-7) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), abs=1e-9)
    covariance = np.cov(cells.numpy(), rowvar=False)
    expected = np.sort(np.linalg.eigvalsh(covariance))[::-1][: min(count, channels)] / np.trace(covariance)
    assert eigenspectrum(cells) == pytest.approx(expected, abs=1e-9)
    unit = cells.numpy() / np.linalg.norm(cells.numpy(), axis=1, keepdims=True)
    pairs = [math.exp(-2 * ((unit[a] - unit[b]) ** 2).sum()) for a in range(count) for b in range(a + 1, count)]
    assert uniformity(cells, 2) == pytest.approx(math.log(np.mean(pairs)), abs=1e-9)


def test_uniformity_in_parts_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = random_cells(30, 4)
    whole = uniformity(cells, 2)
    monkeypatch.setattr("transfer.frozen.spectrum.ROWS", 7)
    assert uniformity(cells, 2) == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("decay", [0.5, 1.0, 1.7])
def test_the_decay_of_a_power_law_is_found(decay: float) -> None:
    spectrum = eigenspectrum(with_spectrum(np.arange(1, 121) ** -decay, 300))
    found, ranks = alpha_req(spectrum, 6, 100)
    assert found == pytest.approx(decay, abs=1e-9)
    assert ranks == (6, 100)


def test_the_fit_is_the_weighted_one_of_the_public_code() -> None:
    spectrum = eigenspectrum(random_cells(400, 60))
    ranks = np.arange(6, 61)
    design, weights = np.stack([-np.log(ranks), np.ones(55)], 1), 1 / ranks
    expected = np.linalg.solve(design.T @ (design * weights[:, None]), design.T @ (weights * np.log(spectrum[5:60])))
    found, fitted = alpha_req(spectrum, 6, 100)
    assert found == pytest.approx(expected[0], abs=1e-9)
    assert fitted == (6, 60)


def test_rotations_and_scales_change_nothing() -> None:
    cells = random_cells(60, 12)
    for other in (turned(cells), 30 * cells):
        assert rank_me(other, 1e-7) == pytest.approx(rank_me(cells, 1e-7), abs=1e-9)
        assert eigenspectrum(other) == pytest.approx(eigenspectrum(cells), abs=1e-9)
        assert uniformity(other, 2) == pytest.approx(uniformity(cells, 2), abs=1e-9)


def test_what_is_not_defined_is_nan() -> None:
    constant = torch.full((40, 20), 0.1)
    assert eigenspectrum(constant).tolist() == [0] * 20
    assert math.isnan(alpha_req(eigenspectrum(constant), 6, 100)[0])
    assert math.isnan(alpha_req(eigenspectrum(torch.ones(1, 4)), 6, 100)[0])
    assert uniformity(constant, 2) == pytest.approx(0, abs=1e-12)
    assert math.isnan(rank_me(torch.zeros(4, 4), 1e-7))
    assert math.isnan(uniformity(torch.ones(1, 4), 2))

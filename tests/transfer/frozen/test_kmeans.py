from __future__ import annotations

import numpy as np
import pytest
import torch

from pixbench.errors import UserError
from transfer.frozen import kmeans as module
from transfer.frozen import patches
from transfer.frozen.kmeans import kmeans, principal
from transfer.frozen.patches import Rows

CENTRES = torch.tensor([[0.0, 0], [10, 0], [0, 10], [10, 10]], dtype=torch.float64)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def clouds(each: int) -> torch.Tensor:
    noise = torch.randn(4 * each, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return CENTRES.repeat_interleave(each, 0) + 0.3 * noise


def test_three_points_and_two_clusters() -> None:
    points = torch.tensor([[0.0], [1], [9]])
    found = kmeans(points, 2, 10, 3, 0)
    assert sorted(found.centroids.flatten().tolist()) == [0.5, 9]
    members, total = found.assign(points)
    assert members[0] == members[1] != members[2]
    assert total == pytest.approx(-0.5)


def test_clouds_are_found_and_centroids_are_means() -> None:
    points = clouds(30)
    found = kmeans(points, 4, 100, 5, 1)
    members, total = found.assign(points)
    assert all(len(some.unique()) == 1 for some in members.split(30))
    distances = (points[:, None] - found.centroids).square().sum(2)
    assert torch.equal(members, distances.argmin(1))
    assert total == pytest.approx(-distances.amin(1).sum().item())
    for number in range(4):
        torch.testing.assert_close(found.centroids[number], points[members == number].mean(0))


def test_spherical_clusters_are_directions() -> None:
    points = torch.tensor([[1.0, 0.1], [30, -1], [0.1, 2], [-1, 20]], dtype=torch.float64)
    found = kmeans(points, 2, 20, 3, 0, spherical=True)
    members, _ = found.assign(points)
    assert members[0] == members[1] != members[2] == members[3]
    torch.testing.assert_close(found.centroids.norm(dim=1), torch.ones(2, dtype=torch.float64))


def test_a_seed_decides_and_restarts_never_make_it_worse() -> None:
    points = torch.randn(300, 4)
    one, same, five = (kmeans(points, 20, 30, n, 7) for n in (1, 1, 5))
    assert torch.equal(one.centroids, same.centroids)
    assert five.assign(points)[1] >= one.assign(points)[1]


def test_it_is_trained_on_a_share_of_many_points_and_fills_empty_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POINTS_EACH", 5)
    found = kmeans(clouds(30), 4, 100, 5, 1)
    assert len(found.assign(clouds(30))[0].unique()) == 4
    equal = kmeans(torch.ones(6, 2), 3, 5, 1, 0)  # two of three clusters are empty in each step
    assert equal.centroids.isfinite().all()


def test_fewer_points_than_clusters_are_refused() -> None:
    with pytest.raises(UserError, match="there are 3 cells, fewer than the 4 clusters"):
        kmeans(torch.zeros(3, 2), 4, 10, 1, 0)


def test_principal_components_are_those_of_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = torch.randn(200, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64)
    mean, std = cells.mean(0), cells.std(0, correction=0)
    monkeypatch.setattr(patches, "PART", 60)
    monkeypatch.setattr(module, "PART", 60)
    about = Rows(cells, torch.arange(200), mean, std, torch.device("cpu"))
    found = principal(about, 3).numpy()
    scaled = ((cells - mean) / std).numpy()
    left, values, _ = np.linalg.svd(scaled, full_matrices=False)
    wanted = (left * values)[:, :3]
    np.testing.assert_allclose(found @ found.T, wanted @ wanted.T, atol=1e-9)  # whatever the signs
    with pytest.raises(UserError, match="6 channels, fewer than the 7 principal components"):
        principal(about, 7)

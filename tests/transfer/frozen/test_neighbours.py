from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from held_splits import one_hot, random_split, run, split

from pixbench.errors import UserError
from transfer.frozen.method import Split
from transfer.frozen.methods import neighbours
from transfer.frozen.methods.neighbours import Settings, evaluate, transferred, votes
from transfer.frozen.patches import Rows

ONE = Settings(neighbours=(1,), distances=("cosine",), standardise=False)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def rows(values: torch.Tensor) -> Rows:
    channels = values.shape[1]
    return Rows(values, torch.arange(len(values)), values.new_zeros(channels), values.new_ones(channels), values.device)


def test_three_patches_and_two_classes() -> None:
    """Each query takes the pixels of its neighbours, one by one; a tie goes to the smaller number."""
    memory = rows(torch.tensor([[1.0, 0], [0.9, 0.1], [0, 1]]))
    labels = torch.tensor([[0, 1], [1, 1], [0, 0]], dtype=torch.uint8)
    queries = rows(torch.tensor([[2.0, 0], [0, 5]]))
    found = transferred(queries, memory, labels, (1, 2, 3), "cosine")
    assert found[1].tolist() == [[0, 1], [0, 0]]
    assert found[2].tolist() == [[0, 1], [0, 0]]
    assert found[3].tolist() == [[0, 1], [0, 1]]
    far = transferred(queries, memory, labels, (1,), "L2")
    assert far[1].tolist() == [[0, 1], [0, 0]]


@pytest.mark.parametrize("classes", [2, 9, 256])
def test_votes_are_the_modes_of_torch(classes: int) -> None:
    labels = torch.randint(0, classes, (40, 30, 16), dtype=torch.uint8)
    found = votes(labels, (1, 3, 10, 30))
    assert all(torch.equal(best, labels[:, :k].mode(1).values) for k, best in found.items())
    assert votes(torch.full((1, 127, 1), 4, dtype=torch.uint8), (127,))[127].tolist() == [[4]]


def distances(queries: np.ndarray, memory: np.ndarray, distance: str) -> np.ndarray:
    if distance == "L2":
        return np.linalg.norm(queries[:, None] - memory[None], axis=2)
    lengths = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(memory, axis=1)
    return 1 - queries @ memory.T / lengths


def brute(train: Split, test: Split, ks: tuple[int, ...], seed: int) -> tuple[dict[str, float], float]:
    """The protocol once more, in numpy: image after image, pixel after pixel."""

    def blocks(some: Split, index: int) -> tuple[np.ndarray, np.ndarray]:
        side, features = some.features.stride, some.features.map(index).numpy()
        labels = some.views.labels(index)
        cut = [
            labels[y * side : (y + 1) * side, x * side : (x + 1) * side].flatten()
            for y in range(features.shape[0])
            for x in range(features.shape[1])
        ]
        return features.reshape(-1, features.shape[-1]), np.array(cut)

    def gather(some: Split, images: list[int]) -> tuple[np.ndarray, np.ndarray]:
        parts = [blocks(some, index) for index in images]
        return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])

    def mode(values: np.ndarray) -> int:
        found, counts = np.unique(values, return_counts=True)
        return int(found[counts.argmax()])

    def score(x: np.ndarray, y: np.ndarray, qx: np.ndarray, qy: np.ndarray, k: int, distance: str) -> float:
        keep = np.array([mode(one) != 255 for one in y])
        x, y = x[keep], y[keep]
        order = distances(qx, x, distance).argsort(1)[:, :k]
        guess = np.array([[mode(y[near, pixel]) for pixel in range(y.shape[1])] for near in order])
        known = qy != 255
        truth, guess = qy[known], guess[known]
        present = np.union1d(truth, guess)
        return 100 * np.mean(
            [((truth == c) & (guess == c)).sum() / ((truth == c) | (guess == c)).sum() for c in present]
        )

    order = np.random.RandomState(seed).permutation(len(train)).tolist()
    held, fitted = order[: len(train) // 10], order[len(train) // 10 :]
    mean, std = gather(train, fitted)[0].mean(0), gather(train, fitted)[0].std(0)

    def scaled(some: Split, images: list[int]) -> tuple[np.ndarray, np.ndarray]:
        x, y = gather(some, images)
        return (x - mean) / std, y

    grid = [(k, distance) for k in ks for distance in ("cosine", "L2")]
    scores = {f"{k} {d}": score(*scaled(train, fitted), *scaled(train, held), k, d) for k, d in grid}
    k, distance = max(grid, key=lambda one: scores[f"{one[0]} {one[1]}"])
    every = score(*scaled(train, list(range(len(train)))), *scaled(test, list(range(len(test)))), k, distance)
    return scores, every


def test_the_whole_protocol_is_that_of_a_brute_force_reference() -> None:
    train, test = random_split(20, 3, 2, 4, 5, 0), random_split(4, 3, 2, 4, 5, 1)
    measured = evaluate({"train": train, "test": test}, Settings(neighbours=(1, 3, 10)), run(5))
    scores, wanted = brute(train, test, (1, 3, 10), 5)
    assert measured.facts["held_out_mIoU"] == pytest.approx(scores, abs=1e-9)
    assert measured.metrics["mIoU"] == pytest.approx(wanted, abs=1e-9)
    assert measured.deviations == (neighbours.PRECISION,)


def test_perfect_features_give_100_and_random_ones_chance() -> None:
    train, test = one_hot(20, 4, 8, 4, 0), one_hot(40, 4, 8, 4, 1)
    for settings in (ONE, Settings()):
        assert evaluate({"train": train, "test": test}, settings, run()).metrics == {"mIoU": 100, "aAcc": 100}
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(len(test.features.cells), 4, dtype=torch.float64, generator=generator)
    noise = replace(test.features, cells=values)
    measured = evaluate({"train": train, "test": Split(noise, test.views)}, ONE, run())
    assert measured.metrics["mIoU"] == pytest.approx(100 / 7, abs=5)  # four classes: IoU 1/7 each


def test_kept_label_maps_are_those_that_are_scored() -> None:
    perfect = one_hot(12, 4, 2, 5, seed=0)
    samples = evaluate({"train": perfect, "test": perfect}, Settings(), run()).kept.arrays["samples"]
    assert len(samples["images"]) == 6
    for number, name in enumerate(samples["images"].tolist()):
        assert (samples[f"truth_{number}"] == perfect.views.labels(int(name))).all()
        assert (samples[f"found_{number}"] == samples[f"truth_{number}"]).all()


def test_a_rotation_changes_nothing_in_the_cosine_and_duplicates_nothing_for_one_neighbour() -> None:
    train, test = random_split(12, 3, 2, 4, 5, 0), random_split(4, 3, 2, 4, 5, 1)
    settings = replace(ONE, neighbours=(1, 3))
    wanted = evaluate({"train": train, "test": test}, settings, run()).metrics
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    turned = {
        name: Split(replace(some.features, cells=some.features.cells @ turn), some.views)
        for name, some in (("train", train), ("test", test))
    }
    assert evaluate(turned, settings, run()).metrics == pytest.approx(wanted, abs=1e-9)
    maps = [train.features.map(index).numpy() for index in range(12)]
    labels = [train.views.labels(index) for index in range(12)]
    doubled = split(maps * 2, labels * 2, 5)
    assert (
        evaluate({"train": doubled, "test": test}, ONE, run()).metrics
        == evaluate({"train": train, "test": test}, ONE, run()).metrics
    )


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_maps_of_any_stride_and_shape(stride: int) -> None:
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(1 + index % 3, 2, 3)) for index in range(10)]
    labels = [rng.integers(0, 2, (one.shape[0] * stride, one.shape[1] * stride)) for one in maps]
    some = split(maps, labels, 2)
    measured = evaluate({"train": some, "test": some}, ONE, run())
    assert measured.metrics["mIoU"] == 100  # each cell finds itself
    assert measured.facts["memory_patches"] == len(some.features.cells)


def test_subsampling_keeps_every_second_cell_and_bad_settings_are_refused() -> None:
    train = random_split(10, 2, 2, 3, 2, 0)
    splits = {"train": train, "test": train}
    full, half = (evaluate(splits, replace(ONE, subsampling=n), run()).facts["memory_patches"] for n in (1, 2))
    assert half < full <= 40
    with pytest.raises(UserError, match=r"cells of a class to search in, but settings.neighbours asks for 41"):
        evaluate(splits, replace(ONE, neighbours=(41,)), run())
    with pytest.raises(UserError, match="has 9 images, but one in 10 is held out"):
        evaluate({"train": random_split(9, 2, 2, 3, 2, 0), "test": train}, ONE, run())
    with pytest.raises(ValueError, match="from 1 to 127"):
        Settings(neighbours=(3, 1))

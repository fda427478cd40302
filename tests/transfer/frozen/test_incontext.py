"""Segmentation in context: by hand, against a slow reference, against the public code, and what must not change the result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from patch_world import split
from scipy.stats import ortho_group

from pixbench.errors import UserError
from transfer.frozen.memory import Labelling, Memory, fill, retrieved
from transfer.frozen.method import Run, Split
from transfer.frozen.methods.incontext import STEPS, Settings, evaluate
from transfer.frozen.patch_labels import class_counts, rarest
from transfer.frozen.views import resized_labels

CPU = torch.device("cpu")
GOLDEN = Path(__file__).parents[2] / "golden" / "incontext.npz"
PUBLIC = Settings("class_0", "corner", matching=True, absent_counts=True, score_at="input")


def measured(train: Split, test: Split, settings: Settings) -> dict[str, float]:
    return evaluate({"train": train, "test": test}, settings, Run(0, CPU, Path())).metrics


def shares_of(memory: Memory, test: Split, k: int = 30, temperature: float = 0.02) -> list[np.ndarray]:
    return [some.numpy() for _, some in retrieved(memory, test, k, temperature, CPU)]


def noise(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def blocky(rng: np.random.Generator, h: int, w: int, stride: int, classes: int) -> np.ndarray:
    return np.kron(rng.integers(0, classes, (h, w)), np.ones((stride, stride), int))


def one_hot(labels: np.ndarray, stride: int, classes: int) -> np.ndarray:
    return np.eye(classes)[labels[::stride, ::stride]]


def test_three_patches_two_classes(tmp_path: Path) -> None:
    """Patches of 2 × 2 pixels: class 0; three quarters class 1; ignored. The ignored patch is not in the memory."""
    labels = np.array([[0, 0, 1, 1, 255, 255], [0, 0, 1, 0, 255, 255]])
    train = split(tmp_path / "a", [labels], [np.array([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]])], 2)
    test = split(tmp_path / "b", [np.array([[0, 0], [1, 1]])], [np.array([[[3.0, 4.0]]])], 2)
    memory = fill(train, Labelling(), None, 0)
    assert memory.rows.tolist() == [0, 1]
    assert memory.shares.toarray().tolist() == [[1, 0], [0.25, 0.75]]
    e1, e2 = np.exp(0.6 / 0.5), np.exp(0.8 / 0.5)
    (found,) = shares_of(memory, test, 2, 0.5)
    np.testing.assert_allclose(found, [[[(e1 + 0.25 * e2) / (e1 + e2), 0.75 * e2 / (e1 + e2)]]], rtol=0, atol=1e-12)
    metrics = measured(train, test, Settings(neighbours=2, temperature=0.5))
    # all four pixels are predicted to be class 0, and all are beside the boundary
    assert metrics == {"mIoU": 25.0, "aAcc": 50.0, "mIoU_paper": 25.0, "boundary_mIoU": 25.0}


def bilinear(planes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    for axis, size in enumerate(shape):
        length = planes.shape[axis]
        at = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, None)
        low = np.minimum(at.astype(int), length - 1)
        high, part = np.minimum(low + 1, length - 1), at - low
        part = part.reshape([-1 if a == axis else 1 for a in range(3)])
        planes = planes.take(low, axis) * (1 - part) + planes.take(high, axis) * part
    return planes


def test_equals_a_slow_reference(tmp_path: Path) -> None:
    """Maps of different shapes; patches are 4 × 4 pixels, the last ones partly outside the picture."""
    rng, sizes, classes = np.random.default_rng(0), [(18, 30), (32, 16), (20, 21)], 4
    labels = [rng.choice([0, 1, 2, 3, 255], size) for size in sizes]
    labels[0][:8, :12] = 255
    maps = [rng.standard_normal((-(-h // 4), -(-w // 4), 6)) for h, w in sizes]
    train, test = (
        split(tmp_path / name, labels[some], maps[some], classes)
        for name, some in (("a", slice(2)), ("b", slice(2, 3)))
    )
    train = Split(replace(train.features, stride=4), train.views)
    keys, values = [], []
    for label, map_ in zip(labels[:2], maps[:2], strict=True):
        for i, j in np.ndindex(map_.shape[:2]):
            patch = label[4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
            if (patch != 255).any():
                keys.append(map_[i, j] / np.linalg.norm(map_[i, j]))
                values.append([(patch == c).sum() / (patch != 255).sum() for c in range(classes)])
    expected = np.empty((*maps[2].shape[:2], classes))
    for place in np.ndindex(expected.shape[:2]):
        cosines = np.array(keys) @ maps[2][place] / np.linalg.norm(maps[2][place])
        best = sorted(range(len(keys)), key=lambda n: -cosines[n])[:7]
        weights = np.exp((cosines[best] - 1) / 0.1)
        expected[place] = weights @ np.array(values)[best] / weights.sum()
    memory = fill(train, Labelling(), None, 0)
    (found,) = shares_of(memory, test, 7, 0.1)
    assert memory.unlabelled == 6
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    predicted = bilinear(expected, sizes[2]).argmax(2)
    known = labels[2] != 255
    ious = [
        ((predicted == c) & (labels[2] == c)).sum() / (((predicted == c) | (labels[2] == c)) & known).sum()
        for c in range(classes)
    ]
    got = measured(train, test, Settings(neighbours=7, temperature=0.1))
    assert got["mIoU"] == pytest.approx(100 * np.mean(ious), abs=1e-9)
    assert got["aAcc"] == pytest.approx(100 * (predicted == labels[2])[known].mean(), abs=1e-9)


def test_equals_the_public_code(tmp_path: Path) -> None:
    golden = np.load(GOLDEN)
    kernel = torch.from_numpy(golden["projection"])

    def of(name: str) -> Split:
        images, masks = torch.from_numpy(golden[f"{name}_images"]), golden[f"{name}_masks"][:, 0]
        maps = F.conv2d(images, kernel, stride=8).permute(0, 2, 3, 1).numpy()
        return split(tmp_path / name, masks, maps, 5)

    train, test = of("train"), of("val")
    memory = fill(train, PUBLIC, None, 0)
    normalised = F.normalize(memory.features, dim=1)
    np.testing.assert_allclose(normalised, golden["feature_memory"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(memory.shares.toarray(), golden["label_memory"], rtol=0, atol=1e-6)
    shares = np.stack(shares_of(memory, test)).reshape(4, 64, 5)
    np.testing.assert_allclose(shares, golden["label_hat"], rtol=0, atol=1e-4)
    predicted = bilinear(shares.reshape(4, 8, 8, 5).transpose(1, 2, 0, 3).reshape(8, 8, 20), (64, 64))
    same = predicted.reshape(64, 64, 4, 5).argmax(3).transpose(2, 0, 1) == golden["prediction"]
    assert same.all()
    metrics = measured(train, test, PUBLIC)
    assert metrics["mIoU"] == pytest.approx(100 * float(golden["miou_public"]), abs=1e-9)
    confusion = golden["confusion"]
    assert metrics["aAcc"] == pytest.approx(100 * np.trace(confusion) / confusion.sum(), abs=1e-9)


@pytest.fixture
def noisy(tmp_path: Path) -> tuple[Split, Split]:
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, 3, (24, 24)) for _ in range(4)]
    maps = [rng.standard_normal((6, 6, 8)) for _ in range(4)]
    return split(tmp_path / "a", labels[:3], maps[:3], 3), split(tmp_path / "b", labels[3:], maps[3:], 3)


def changed(of: Split, cells: torch.Tensor) -> Split:
    return Split(replace(of.features, cells=cells), of.views)


def test_a_rotation_changes_nothing(noisy: tuple[Split, Split]) -> None:
    turn = torch.from_numpy(ortho_group.rvs(8, random_state=0))
    turned = [changed(of, 3 * of.features.cells @ turn) for of in noisy]
    (one,), (other,) = (shares_of(fill(train, Labelling(), None, 0), test, 5) for train, test in (noisy, turned))
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)


def test_doubles_and_twice_the_neighbours_change_nothing(noisy: tuple[Split, Split], tmp_path: Path) -> None:
    train, test = noisy
    labels = [train.views.labels(index) for index in (0, 1, 2, 0, 1, 2)]
    twice = split(tmp_path / "twice", labels, [train.features.map(i % 3).numpy() for i in range(6)], 3)
    (one,), (other,) = (shares_of(fill(of, Labelling(), None, 0), test, k) for of, k in ((train, 5), (twice, 10)))
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_labels_as_features_are_perfect(stride: int, tmp_path: Path) -> None:
    rng, classes = np.random.default_rng(0), 5
    labels = [blocky(rng, h, w, stride, classes) for h, w in ((6, 4), (3, 8), (5, 5))]
    parts = []
    for name, some in (("a", labels[:2]), ("b", labels[2:])):
        parts.append(split(tmp_path / name, some, [one_hot(map_, stride, classes) for map_ in some], classes))
    train, test = parts
    at_patches = [Settings(neighbours=3, score_at=5), replace(PUBLIC, neighbours=3, score_at=5)]
    assert [measured(train, test, settings)["mIoU"] for settings in at_patches] == [100, 100]
    assert 80 < measured(train, test, Settings(neighbours=3))["mIoU"] < 100  # interpolation rounds the corners


def test_random_features_give_chance(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, 2, (60, 60)) for _ in range(2)]
    train, test = (split(tmp_path / str(i), [labels[i]], [noise((60, 60, 16), i)], 2) for i in range(2))
    metrics = measured(train, test, Settings())
    assert metrics["aAcc"] == pytest.approx(50, abs=3)
    assert metrics["mIoU"] == pytest.approx(100 / 3, abs=3)


def test_class_0_is_one_of_its_own_where_files_number_from_1(tmp_path: Path) -> None:
    """As ADE20K: 0 is ignored when scores are made, but the public code remembers it as a class."""
    train = split(tmp_path / "a", [np.array([[0, 1], [2, 2]])], [noise((2, 2, 4), 0)], 2, zero_ignored=True)
    public, paper = fill(train, PUBLIC, None, 0), fill(train, Labelling(), None, 0)
    assert public.shares.toarray().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]]
    assert paper.shares.toarray().tolist() == [[1, 0], [0, 1], [0, 1]]
    # the first patch is asked for nowhere; class 0 is absent and counts as 0
    metrics = measured(train, train, replace(PUBLIC, neighbours=1))
    assert metrics == {"mIoU": pytest.approx(200 / 3), "aAcc": 100, "mIoU_paper": 100}


def test_matching_and_absent_classes(tmp_path: Path) -> None:
    """Swapped labels: nothing is right until classes are matched; the third class is nowhere."""
    maps = [noise((4, 4, 8), 0)]
    labels = np.random.default_rng(0).integers(0, 2, (4, 4))
    train, test = split(tmp_path / "a", [labels], maps, 3), split(tmp_path / "b", [1 - labels], maps, 3)
    settings = Settings(neighbours=1)
    assert measured(train, test, settings)["mIoU"] == 0
    assert measured(train, test, replace(settings, matching=True))["mIoU"] == 100
    both = measured(train, test, replace(settings, matching=True, absent_counts=True))
    assert both == {"mIoU": pytest.approx(200 / 3), "aAcc": 100, "mIoU_paper": 0}


def test_kept_label_maps_are_those_that_are_scored(tmp_path: Path) -> None:
    """Also after matching, where the swapped numbers are put right, and at other sizes."""
    rng, maps = np.random.default_rng(0), [noise((4, 4, 8), number) for number in range(8)]
    labels = [rng.integers(0, 2, (4, 4)) for _ in maps]
    train = split(tmp_path / "a", labels, maps, 2)
    test = split(tmp_path / "b", [1 - one for one in labels], maps, 2)
    for matching, right in ((False, 0), (True, 1)):
        kept = evaluate(
            {"train": train, "test": test}, Settings(neighbours=1, matching=matching), Run(0, CPU, Path())
        ).kept
        samples = kept.arrays["samples"]
        assert len(samples["images"]) == 6
        for number, name in enumerate(samples["images"].tolist()):
            assert (samples[f"truth_{number}"] == 1 - labels[int(name)]).all()
            assert ((samples[f"found_{number}"] == samples[f"truth_{number}"]) == right).all()


def test_a_bounded_memory_takes_the_patches_of_the_rarest_classes() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 0, 0, 1, 2, 255], (16, 16))
    labels[:4, :4] = 255
    counts = class_counts(labels, (4, 4), 4, 3)
    patches = [labels[4 * i : 4 * i + 4, 4 * j : 4 * j + 4] for i, j in np.ndindex(4, 4)]
    shown = [{*np.unique(patch)} - {255} for patch in patches]
    assert [[(patch == c).sum() for c in range(3)] for patch in patches] == counts.tolist()
    frequency = [sum(c in classes for classes in shown) for c in range(3)]
    draws = np.random.default_rng(7).random(16)
    scores = [
        sum(frequency[c] for c in classes) * draw if classes else np.inf
        for classes, draw in zip(shown, draws, strict=True)
    ]
    assert rarest(counts, 5, np.random.default_rng(7)).tolist() == sorted(np.argsort(scores)[:5].tolist())
    assert 0 not in rarest(counts, 15, np.random.default_rng(7))


def test_memory_size_is_shared_among_the_pictures(noisy: tuple[Split, Split]) -> None:
    memory = fill(noisy[0], Labelling(), 31, 0)
    assert np.bincount(memory.rows // 36).tolist() == [10, 10, 10]
    assert torch.equal(memory.rows, fill(noisy[0], Labelling(), 31, 0).rows)
    assert not torch.equal(memory.rows, fill(noisy[0], Labelling(), 31, 1).rows)
    assert len(fill(noisy[0], Labelling(), 10**6, 0).rows) == 108


def test_both_ways_are_recorded(noisy: tuple[Split, Split], capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluate(dict(zip(("train", "test"), noisy, strict=True)), PUBLIC, Run(0, CPU, Path()))
    steps = found.facts["mIoU_steps_to_paper"]
    assert [*steps] == ["these settings", *STEPS]
    assert steps["these settings"] == found.metrics["mIoU"]
    assert found.metrics["mIoU_paper"] == measured(*noisy, Settings())["mIoU"]
    assert found.facts["memory_patches"] == 108
    assert f"these settings: mIoU {found.metrics['mIoU']:.2f}; absent" in capsys.readouterr().out


def test_a_smaller_mask_takes_corners_as_pytorch_does() -> None:
    labels = np.arange(35, dtype=np.uint8).reshape(5, 7)
    assert resized_labels(labels, (2, 3), corner=True).tolist() == [[0, 2, 4], [14, 16, 18]]
    assert resized_labels(labels, (2, 3)).tolist() == [[8, 10, 12], [22, 24, 26]]


def test_no_labelled_pixel(tmp_path: Path, noisy: tuple[Split, Split]) -> None:
    nothing = split(tmp_path / "none", [np.full((24, 24), 255)], [noise((6, 6, 8), 0)], 3)
    with pytest.raises(UserError, match="some set, train has no labelled pixel"):
        measured(nothing, noisy[1], Settings())
    with pytest.raises(UserError, match="the test pictures have no labelled pixel"):
        measured(noisy[0], nothing, Settings())


def test_more_neighbours_than_memory(noisy: tuple[Split, Split]) -> None:
    with pytest.raises(UserError, match="109 neighbours are asked for, but the memory holds 108 patches"):
        measured(*noisy, Settings(neighbours=109))


@pytest.mark.parametrize(
    "wrong", [{"neighbours": 0}, {"temperature": 0.0}, {"memory_size": 0}, {"passes": -1}, {"score_at": 0}]
)
def test_settings_that_are_not_possible(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is not possible; give"):
        Settings(**wrong)

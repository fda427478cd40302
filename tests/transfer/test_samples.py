"""The few test pictures that runs keep: which ones, how small, and what of their truth and their predictions."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixbench.results import read_arrays, read_result, write_arrays
from pixbench.thumbnails import SIDE, small, to_jpeg
from transfer.samples import OBJECTS, PICTURES, Choice, chosen, labelled, rank, together, unpacked, with_objects

NAMES = [f"{number:012}" for number in range(200)]


def test_the_choice_depends_neither_on_order_nor_on_processes() -> None:
    kept = {NAMES[place] for place in chosen(NAMES)}
    mixed = random.Random(0).sample(NAMES, len(NAMES))
    assert {mixed[place] for place in chosen(mixed)} == kept
    assert len(kept) == PICTURES
    wanted: dict[str, dict[str, np.ndarray]] = {}
    for share in (mixed[::2], mixed[1::2]):  # two processes
        choice = Choice()
        wanted |= {name: {"number": np.array(int(name))} for name in share if choice.wants(name)}
    arrays = together(wanted, classes=["a"])
    assert len(wanted) < 80  # most pictures are never kept
    assert arrays["images"].tolist() == sorted(kept, key=rank)
    assert [int(arrays[f"number_{place}"]) for place in range(PICTURES)] == [int(name) for name in arrays["images"]]


def test_a_picture_that_was_wanted_is_wanted_again() -> None:
    """The second evaluation of a run keeps the same pictures."""
    choice = Choice()
    first = [name for name in NAMES if choice.wants(name)]
    assert {name for name in NAMES if choice.wants(name)} == {NAMES[place] for place in chosen(NAMES)} <= {*first}


def test_fewer_pictures_than_are_kept() -> None:
    assert chosen(["b", "a"]) in ([0, 1], [1, 0])
    assert together({}, classes=["a"])["images"].tolist() == []


@pytest.mark.parametrize("size", [(640, 480), (100, 301), (2048, 1024), (3, 1)])
def test_pictures_and_label_maps_get_one_small_size(size: tuple[int, int]) -> None:
    picture = Image.effect_noise(size, 50)
    truth = np.zeros(size[::-1], np.uint8)
    truth[: size[1] // 2] = 7
    sample = labelled(picture, truth, truth[::2, ::2].astype(np.int64))
    with Image.open(io.BytesIO(sample["picture"].tobytes())) as shown:
        assert shown.mode == "RGB"
        assert max(shown.size) <= SIDE
        assert shown.size[0] / shown.size[1] == pytest.approx(size[0] / size[1], rel=0.02)
        assert sample["truth"].shape == sample["found"].shape == shown.size[::-1]
    assert {*np.unique(sample["truth"])} <= {0, 7}
    assert sample["picture"].nbytes < 60_000


def objects(count: int, size: tuple[int, int]) -> dict[str, np.ndarray]:
    width, height = size
    masks = np.zeros((count, height, width), bool)
    boxes = np.tile(np.array([0.25, 0.5, 0.75, 1.0], np.float32) * np.array(size * 2), (count, 1))
    masks[:, height // 2 :, width // 4 : 3 * width // 4] = True
    scores = np.linspace(0.1, 0.9, count).astype(np.float32)
    points = np.tile(np.array([width / 2, height, 2], np.float32), (count, 3, 1))
    return {"boxes": boxes, "classes": np.arange(count), "masks": masks, "keypoints": points, "scores": scores}


@pytest.mark.parametrize("size", [(640, 480), (33, 50)])
def test_objects_are_kept_in_shares_of_the_sides_with_their_masks(size: tuple[int, int]) -> None:
    found = objects(OBJECTS + 5, size)
    truth = {key: value for key, value in objects(1, size).items() if key != "scores"}
    sample = with_objects(Image.new("RGB", size), truth, found)
    assert sample["found_classes"].tolist() == list(range(OBJECTS + 4, 4, -1))  # the highest scores, first
    assert sample["found_boxes"] == pytest.approx(np.tile([0.25, 0.5, 0.75, 1.0], (OBJECTS, 1)))
    assert sample["found_keypoints"][0] == pytest.approx(np.tile([0.5, 1, 2], (3, 1)))
    shown = small(Image.new("RGB", size)).size
    mask = unpacked(sample["truth_masks"], shown)[0]
    assert mask.shape == shown[::-1]
    assert mask.mean() == pytest.approx(0.25, abs=0.02)
    assert mask[-1, mask.shape[1] // 2]
    assert not mask[0].any()


def test_nothing_found_and_nothing_there() -> None:
    none = objects(0, (20, 10))
    sample = with_objects(Image.new("RGB", (20, 10)), {key: none[key] for key in ("boxes", "classes")}, none)
    assert len(sample["truth_boxes"]) == len(sample["found_scores"]) == 0
    assert unpacked(sample["found_masks"], (20, 10)).shape == (0, 10, 20)


def test_samples_are_read_again_without_pickle(tmp_path: Path) -> None:
    import made_results

    sample = with_objects(Image.new("RGB", (20, 10)), objects(2, (20, 10)), objects(3, (20, 10)))
    about = write_arrays(tmp_path / "samples.npz", together({"ä": sample}, classes=["a", "b"]))
    path = made_results.write(tmp_path, stored={"samples.npz": about})
    again = read_arrays(path, read_result(path), "samples.npz")
    assert again["images"].tolist() == ["ä"]
    assert again["picture_0"].tobytes() == to_jpeg(Image.new("RGB", (20, 10))).tobytes()

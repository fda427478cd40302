"""Checks of the data sets: a good tree has no problems; each defect is named with what to do about it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pixbench.errors import UserError
from pixbench.file_versions import MINI_WORLD_FILE
from transfer.datasets import check as data
from transfer.datasets.check import SETS, check_dataset, require_datasets


@pytest.fixture
def world(mini_root: Path, tmp_path: Path) -> Path:
    """A copy of the mini world that a test may damage."""
    return Path(shutil.copytree(mini_root, tmp_path / "world"))


@pytest.mark.parametrize("name", SETS)
def test_the_mini_world_is_fine(mini_root: Path, name: str) -> None:
    assert check_dataset(mini_root, name) == []


@pytest.mark.parametrize("name", SETS)
def test_a_missing_data_set_says_where_to_get_it(tmp_path: Path, name: str) -> None:
    (problem,) = check_dataset(tmp_path, name)
    assert str(data.home_of(tmp_path, name)) in problem
    assert "http" in problem


def test_an_unknown_data_set_suggests_the_likeliest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no data set 'imagenett'; did you mean imagenet\?"):
        check_dataset(tmp_path, "imagenett")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def first(folder: Path, pattern: str) -> Path:
    return sorted(folder.glob(pattern))[0]


DEFECTS: list[tuple[str, Callable[[Path], object], str]] = [
    (
        "imagenet",
        lambda home: shutil.rmtree(home / "val"),
        "imagenet/val/*/*.JPEG matches no file; unpack ILSVRC2012_img_val",
    ),
    ("imagenet", lambda home: [p.unlink() for p in first(home / "train", "*").iterdir()], "holds no images"),
    ("imagenet", lambda home: (home / "train/README").touch() or shutil.rmtree(home / "val"), "imagenet/val"),
    ("imagenet", lambda home: truncate(first(home / "train", "*/*")), "not a readable image"),
    ("VOC2007", lambda home: (home / "ImageSets/Main/test.txt").unlink(), "unpack VOCtest_06-Nov-2007.tar from http"),
    ("VOC2007", lambda home: (home / "ImageSets/Main/trainval.txt").write_text(""), "trainval.txt is empty"),
    ("VOC2007", lambda home: truncate(home / "Annotations/000001.xml"), "not a VOC annotation"),
    ("VOC2007", lambda home: (home / "Annotations/000007.xml").unlink(), "000007.xml is missing"),
    ("VOC2012", lambda home: (home / "JPEGImages/2012_000001.jpg").write_bytes(b"no"), "not a readable image"),
    ("VOC2012", lambda home: shutil.rmtree(home / "JPEGImages"), "2012_000001.jpg and 11 more are missing"),
    ("VOC2012aug", lambda home: (home / "ImageSets/Segmentation/aug.txt").unlink(), "data prepare VOC2012aug --root"),
    ("VOC2012aug", lambda home: first(home, "SegmentationClassAug/*").unlink(), "data prepare VOC2012aug --root"),
    ("coco", lambda home: shutil.rmtree(home / "val2017"), "val2017.zip"),
    ("coco", lambda home: shutil.rmtree(home / "annotations"), "annotations_trainval2017.zip"),
    ("coco", lambda home: truncate(home / "annotations/instances_train2017.json"), "is not a complete annotation file"),
    (
        "coco",
        lambda home: (home / "annotations/instances_train2017.json").write_text("[]"),
        "is not a complete annotation",
    ),
    ("coco", lambda home: first(home / "train2017", "*").unlink(), "is missing"),
    ("cityscapes", lambda home: shutil.rmtree(home / "leftImg8bit/val"), "leftImg8bit_trainvaltest.zip"),
    ("cityscapes", lambda home: shutil.rmtree(home / "gtFine/val"), "gtFine_trainvaltest.zip"),
    ("cityscapes", lambda home: truncate(first(home, "gtFine/train/*/*_labelIds.png")), "not a readable image"),
    ("cityscapes", lambda home: truncate(first(home, "gtFine/train/*/*_polygons.json")), "not a JSON file"),
    ("cityscapes", lambda home: first(home, "gtFine/train/*/*_labelTrainIds.png").unlink(), "data prepare cityscapes"),
    (
        "ADEChallengeData2016",
        lambda home: first(home, "annotations/training/*").unlink(),
        "unpack ADEChallengeData2016",
    ),
    ("lvis", lambda home: truncate(home / "lvis_v1_val.json"), "unpack lvis_v1_val.json.zip"),
]


@pytest.mark.parametrize(
    ("name", "damage", "said"), DEFECTS, ids=[f"{n}-{s[:30].replace(' ', '_')}" for n, _, s in DEFECTS]
)
def test_each_defect_is_named(world: Path, name: str, damage: Callable[[Path], object], said: str) -> None:
    damage(data.home_of(world, name))
    problems = check_dataset(world, name)
    assert any(said in problem for problem in problems)
    assert all("\n" not in problem for problem in problems)
    with pytest.raises(UserError, match=data.home_of(world, name).name):
        require_datasets(world, [name])


def test_large_annotation_files_are_only_sampled(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "SMALL", 0)
    assert check_dataset(world, "coco") == []
    path = world / "coco" / "annotations" / "instances_train2017.json"
    first_name = json.loads(path.read_text())["images"][0]["file_name"]
    assert first_name in data.annotated(path.parent, path.name)
    truncate(path)
    assert "not a complete annotation file" in check_dataset(world, "coco")[0]


def test_pictures_of_lvis_are_the_ends_of_their_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, image = (
        tmp_path / "lvis.json",
        {"id": 1, "coco_url": "http://images.cocodataset.org/val2017/000000397133.jpg"},
    )
    path.write_text(json.dumps({"images": [image], "annotations": [], "categories": []}))
    assert data.NAMES["addresses"](tmp_path, path.name) == ["val2017/000000397133.jpg"]
    monkeypatch.setattr(data, "SMALL", 0)
    assert data.NAMES["addresses"](tmp_path, path.name) == ["val2017/000000397133.jpg"]


def test_counts_sizes_and_checksums_of_real_data(world: Path) -> None:
    assert check_dataset(world, "coco", thorough=True, checksums=True) == []  # those of a mini world are others
    (world / MINI_WORLD_FILE).unlink()
    assert check_dataset(world, "coco") == []
    counts, sizes = [check_dataset(world, "coco", thorough=True)[i] for i in (0, 2)]
    assert f"{world}/coco/train2017 holds 12 images instead of 118287; unpack annotations" in counts
    assert "instances_train2017.json has" in sizes
    assert "bytes instead of 469785474; download it again from http" in sizes
    (world / "VOCtest_06-Nov-2007.tar").write_bytes(b"not really")
    assert "has the md5" not in str(check_dataset(world, "VOC2007", thorough=True))
    said = check_dataset(world, "VOC2007", checksums=True)
    assert len(said) == 1
    assert "instead of b6e924de25625d8de591ea690078ad9f" in said[0]


def test_all_problems_at_once_and_none_twice(tmp_path: Path) -> None:
    require_datasets(tmp_path, [])
    with pytest.raises(UserError, match=r"VOC2007 is missing.*; .*coco is missing"):
        require_datasets(tmp_path, ["VOC2007", "coco"])
    with pytest.raises(
        UserError,
        match=r"^the data root \S+ is not a folder; correct it, or generate a mini world there: pixbench data mini --root \S+$",
    ):
        require_datasets(tmp_path / "nowhere", ["VOC2007", "coco"])


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="known: imagenet, VOC2007"):
        check_dataset(tmp_path, "voc07")

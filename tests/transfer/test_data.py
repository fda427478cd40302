"""Checks of the data sets: a good tree has no problems; each defect is named with what to do about it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pretrain.errors import UserError
from transfer import data
from transfer.data import CHECKS, check_dataset, require_datasets


@pytest.fixture
def world(mini_root: Path, tmp_path: Path) -> Path:
    """A copy of the mini world that a test may damage."""
    return Path(shutil.copytree(mini_root, tmp_path / "world"))


@pytest.mark.parametrize("name", CHECKS)
def test_the_mini_world_is_fine(mini_root: Path, name: str) -> None:
    assert check_dataset(mini_root, name) == []


@pytest.mark.parametrize("name", CHECKS)
def test_a_missing_data_set_says_where_to_get_it(tmp_path: Path, name: str) -> None:
    (problem,) = check_dataset(tmp_path, name)
    assert str(tmp_path / name) in problem
    assert "http" in problem


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def first(folder: Path, pattern: str) -> Path:
    return sorted(folder.glob(pattern))[0]


DEFECTS: list[tuple[str, Callable[[Path], object], str]] = [
    ("imagenet", lambda home: shutil.rmtree(home / "val"), "imagenet/val is missing"),
    ("imagenet", lambda home: [shutil.rmtree(p) for p in (home / "train").iterdir()], "no class folders"),
    ("imagenet", lambda home: [p.unlink() for p in first(home / "train", "*").iterdir()], "holds no pictures"),
    ("imagenet", lambda home: truncate(first(home / "train", "*/*")), "not a readable picture"),
    ("VOC2007", lambda home: (home / "ImageSets/Main/test.txt").unlink(), "unpack the test archive"),
    ("VOC2007", lambda home: (home / "ImageSets/Main/trainval.txt").write_text(""), "trainval.txt is empty"),
    ("VOC2007", lambda home: truncate(home / "Annotations/000001.xml"), "not a VOC annotation"),
    ("VOC2007", lambda home: (home / "Annotations/000001.xml").unlink(), "000001.xml is missing"),
    ("VOC2012", lambda home: (home / "JPEGImages/2012_000001.jpg").write_bytes(b"no"), "not a readable picture"),
    ("VOC2012", lambda home: shutil.rmtree(home / "JPEGImages"), "JPEGImages is missing"),
    ("coco", lambda home: shutil.rmtree(home / "val2017"), "val2017.zip"),
    ("coco", lambda home: shutil.rmtree(home / "annotations"), "annotations_trainval2017.zip"),
    ("coco", lambda home: truncate(home / "annotations/instances_train2017.json"), "not a whole COCO annotation file"),
    ("coco", lambda home: (home / "annotations/instances_train2017.json").write_text("[]"), "not a whole COCO"),
    ("coco", lambda home: first(home / "train2017", "*").unlink(), "is missing"),
    ("cityscapes", lambda home: shutil.rmtree(home / "leftImg8bit/val"), "leftImg8bit_trainvaltest.zip"),
    ("cityscapes", lambda home: shutil.rmtree(home / "gtFine/val"), "gtFine_trainvaltest.zip"),
    ("cityscapes", lambda home: truncate(first(home, "gtFine/train/*/*_labelIds.png")), "not a readable picture"),
    ("cityscapes", lambda home: first(home, "gtFine/train/*/*_labelTrainIds.png").unlink(), "csCreateTrainIdLabelImgs"),
]


@pytest.mark.parametrize(("name", "damage", "said"), DEFECTS, ids=[f"{n}-{s.replace(' ', '_')}" for n, _, s in DEFECTS])
def test_each_defect_is_named(world: Path, name: str, damage: Callable[[Path], object], said: str) -> None:
    damage(world / name)
    problems = check_dataset(world, name)
    assert any(said in problem for problem in problems)
    assert all("\n" not in problem for problem in problems)
    with pytest.raises(UserError, match=name):
        require_datasets(world, [name])


def test_the_advice_for_train_ids_works(world: Path) -> None:
    home = world / "cityscapes"
    kept = {}
    for path in home.glob("gtFine/*/*/*_labelTrainIds.png"):
        kept[path] = path.read_bytes()
        path.unlink()
    train, _ = check_dataset(world, "cityscapes")
    assert train.endswith(f"CITYSCAPES_DATASET={home} csCreateTrainIdLabelImgs")
    from cityscapesscripts.preparation import createTrainIdLabelImgs

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CITYSCAPES_DATASET", str(home))
        createTrainIdLabelImgs.main()
    assert check_dataset(world, "cityscapes") == []
    assert all(path.read_bytes() == content for path, content in kept.items())


def test_large_annotation_files_are_only_sampled(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "SMALL", 0)
    assert check_dataset(world, "coco") == []
    path = world / "coco" / "annotations" / "instances_train2017.json"
    first_name = json.loads(path.read_text())["images"][0]["file_name"]
    assert first_name in data.coco_pictures(path)
    truncate(path)
    assert "not a whole COCO annotation file" in check_dataset(world, "coco")[0]


def test_all_problems_at_once_and_none_twice(tmp_path: Path) -> None:
    require_datasets(tmp_path, [])
    with pytest.raises(UserError, match=r"VOC2007 is missing.*; .*coco is missing"):
        require_datasets(tmp_path, ["VOC2007", "coco"])
    with pytest.raises(
        UserError, match=r"^the data root \S+ is not a folder; make one with: pixbench data mini --root \S+$"
    ):
        require_datasets(tmp_path / "nowhere", ["VOC2007", "coco"])


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="known: imagenet, VOC2007"):
        check_dataset(tmp_path, "voc07")

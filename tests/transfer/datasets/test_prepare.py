"""Preparing data sets: what is made is what the real tools make, and nothing is written unasked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from pixbench.errors import UserError
from transfer.datasets.layout import check_layout
from transfer.datasets.prepare import SBD, prepare
from transfer.detection.subsets import FOLDS, PERCENTS, subset


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def tree(root: Path) -> list[Path]:
    return sorted(root.rglob("*"))


def test_train_ids_of_cityscapes(mini_root: Path, tmp_path: Path) -> None:
    home = Path(shutil.copytree(mini_root / "cityscapes", tmp_path / "cityscapes"))
    kept = {path: path.read_bytes() for path in home.glob("gtFine/*/*/*_labelTrainIds.png")}
    for path in list(kept)[1:]:
        path.unlink()
    before = tree(tmp_path)
    assert len(prepare(tmp_path, "cityscapes", write=False)[0]) == len(kept) - 1
    assert tree(tmp_path) == before
    assert "data prepare cityscapes" in check_layout(tmp_path, "cityscapes")[0]
    made, there = prepare(tmp_path, "cityscapes", write=True)
    assert (sorted([*made, *there]), len(there)) == (sorted(kept), 1)
    assert all(np.array_equal(pixels(path), pixels(mini_root / path.relative_to(tmp_path))) for path in kept)
    assert check_layout(tmp_path, "cityscapes") == []
    assert prepare(tmp_path, "cityscapes", write=True)[0] == []


def test_shares_of_coco_are_those_of_the_protocols(mini_root: Path, tmp_path: Path) -> None:
    (tmp_path / "coco").mkdir()
    shutil.copytree(mini_root / "coco" / "annotations", tmp_path / "coco" / "annotations")
    images = json.loads((tmp_path / "coco/annotations/instances_train2017.json").read_bytes())["images"]
    made, there = prepare(tmp_path, "coco", write=True)
    assert (len(made), there) == (len(PERCENTS) * FOLDS, [])
    stored = (tmp_path / "coco/annotations/subsets/10pct_fold3.txt").read_text().split()
    assert [int(number) for number in stored] == subset([image["id"] for image in images], 10, fold=3)
    (tmp_path / "coco/annotations/instances_train2017.json").write_text("{")
    with pytest.raises(UserError, match=r"instances_train2017.json cannot be read .* again"):
        prepare(tmp_path, "coco", write=True)
    shutil.rmtree(tmp_path / "coco")
    with pytest.raises(
        UserError, match=r"instances_train2017.json is missing; unpack annotations_trainval2017.zip first"
    ):
        prepare(tmp_path, "coco", write=True)


@pytest.fixture
def unprepared(mini_root: Path, tmp_path: Path) -> Path:
    """VOC 2012 as downloaded, and SBD as it unpacks, which has VOC's own segmentation images too."""
    home = Path(shutil.copytree(mini_root / "VOC2012", tmp_path / "VOC2012"))
    shutil.rmtree(home / "SegmentationClassAug")
    (home / "ImageSets/Segmentation/aug.txt").unlink()
    (tmp_path / SBD / "cls").mkdir(parents=True)
    lists = mini_root / "VOC2012/ImageSets/Segmentation"
    aug, train, val = ((lists / f"{part}.txt").read_text().split() for part in ("aug", "train", "val"))
    for name in aug:
        mask = pixels(mini_root / "VOC2012/SegmentationClassAug" / f"{name}.png")
        cell = np.empty((1, 1), [("Boundaries", object), ("Segmentation", object), ("CategoriesPresent", object)])
        cell[0, 0] = (np.zeros(1), mask, np.unique(mask)[1:])
        savemat(tmp_path / SBD / "cls" / f"{name}.mat", {"GTcls": cell})
    (tmp_path / SBD / "train.txt").write_text("\n".join([*aug[5:], *train]) + "\n")
    (tmp_path / SBD / "val.txt").write_text("\n".join([*aug[:5], *val]) + "\n")
    return tmp_path


def test_list_and_masks_of_voc12aug(mini_root: Path, unprepared: Path) -> None:
    before = tree(unprepared)
    assert len(prepare(unprepared, "VOC2012aug", write=False)[0]) == 12 + 2
    assert tree(unprepared) == before
    prepare(unprepared, "VOC2012aug", write=True)
    assert check_layout(unprepared, "VOC2012aug") == []
    for path in (unprepared / "VOC2012/SegmentationClassAug").iterdir():
        assert np.array_equal(pixels(path), pixels(mini_root / path.relative_to(unprepared)))
    lists = Path("VOC2012/ImageSets/Segmentation")
    assert (unprepared / lists / "aug.txt").read_text() == (mini_root / lists / "aug.txt").read_text()
    merged = (unprepared / lists / "trainaug.txt").read_text().split()
    assert (len(merged), len(set(merged))) == (18, 18)


def test_nothing_of_voc12aug_is_missing_where_sbd_was_cleared_away(mini_root: Path, tmp_path: Path) -> None:
    """As in a mini world, which never had it."""
    made, there = prepare(mini_root, "VOC2012aug", write=False)
    assert (made, len(there)) == ([], 12 + 1)
    shutil.copytree(mini_root / "VOC2012", tmp_path / "VOC2012")
    (tmp_path / there[0].relative_to(mini_root)).unlink()
    with pytest.raises(UserError, match=r"train.txt is missing"):
        prepare(tmp_path, "VOC2012aug", write=True)


@pytest.mark.parametrize("name", ["cityscapes", "VOC2012aug", "coco"])
def test_a_root_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"the data root {tmp_path}/nope is not a folder"):
        prepare(tmp_path / "nope", name, write=True)


def test_what_cannot_be_prepared_is_said(unprepared: Path) -> None:
    with pytest.raises(UserError, match="VOC2007 needs no preparation"):
        prepare(unprepared, "VOC2007", write=True)
    with pytest.raises(UserError, match="holds no polygons; unpack gtFine"):
        prepare(unprepared, "cityscapes", write=True)
    broken = sorted((unprepared / SBD / "cls").iterdir())[0]
    broken.write_bytes(b"no")
    with pytest.raises(UserError, match=f"{broken.name} is not a segmentation file of SBD"):
        prepare(unprepared, "VOC2012aug", write=True)
    shutil.rmtree(unprepared / SBD)
    with pytest.raises(UserError, match=r"train.txt is missing; unpack VOCtrainval.* and SBD's benchmark.tgz"):
        prepare(unprepared, "VOC2012aug", write=True)

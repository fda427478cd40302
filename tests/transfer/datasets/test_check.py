"""Checks of the data sets: a good tree has no problems; each defect is named with what to do about it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pixbench.errors import UserError
from pixbench.file_versions import MINI_WORLD_FILE
from transfer.datasets import check
from transfer.datasets.check import Needs, check_dataset, check_own_classes, needs_of, require_datasets
from transfer.datasets.classes import published_classes, read_classes
from transfer.datasets.layout import SETS, check_layout, home_of
from transfer.protocols import find_protocol


@pytest.fixture
def world(mini_root: Path, tmp_path: Path) -> Path:
    """A copy of the mini world that a test may damage."""
    return Path(shutil.copytree(mini_root, tmp_path / "world"))


@pytest.mark.parametrize("name", SETS)
def test_the_mini_world_is_fine(mini_root: Path, name: str) -> None:
    found = check_dataset(mini_root, name)
    assert found.problems == []
    assert [note for note in found.notes if "classes without a" not in note] == []  # it has six kinds of objects


@pytest.mark.parametrize("name", SETS)
def test_a_missing_data_set_says_where_to_get_it(tmp_path: Path, name: str) -> None:
    (problem,) = check_dataset(tmp_path, name).problems
    assert str(home_of(tmp_path, name)) in problem
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
    ("VOC2012", lambda home: (home / "JPEGImages/2012_000001.jpg").write_bytes(b"no"), "cannot be read"),
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
    ("cityscapes", lambda home: shutil.rmtree(home / "gtFine/val"), "pixbench data prepare cityscapes"),
    ("cityscapes_instances", lambda home: shutil.rmtree(home / "gtFine/val"), "gtFine_trainvaltest.zip"),
    ("cityscapes", lambda home: first(home, "gtFine/train/*/*_labelTrainIds.png").unlink(), "data prepare cityscapes"),
    (
        "ADEChallengeData2016",
        lambda home: first(home, "annotations/training/*").unlink(),
        "unpack ADEChallengeData2016",
    ),
    ("lvis", lambda home: truncate(home / "lvis_v1_val.json"), "is not a complete annotation file"),
    ("lvis", lambda home: (home / "lvis_v1_val.json").unlink(), "unpack lvis_v1_val.json.zip"),
]


@pytest.mark.parametrize(
    ("name", "damage", "said"), DEFECTS, ids=[f"{n}-{s[:30].replace(' ', '_')}" for n, _, s in DEFECTS]
)
def test_each_defect_is_named(world: Path, name: str, damage: Callable[[Path], object], said: str) -> None:
    damage(home_of(world, name))
    problems = check_dataset(world, name).problems
    assert any(said in problem for problem in problems)
    assert all("\n" not in problem for problem in problems)
    with pytest.raises(UserError, match=home_of(world, name).name):
        require_datasets(world, [name])


def test_counts_sizes_and_checksums_of_real_data(world: Path) -> None:
    assert check_layout(world, "coco", thorough=True, checksums=True) == []  # those of a mini world are others
    (world / MINI_WORLD_FILE).unlink()
    assert check_layout(world, "coco") == []
    counts, sizes = [check_layout(world, "coco", thorough=True)[i] for i in (0, 2)]
    assert (
        f"{world}/coco/train2017 holds 12 images instead of 118287 (data of your own needs --classes); unpack" in counts
    )
    assert "instances_train2017.json has" in sizes
    assert "bytes instead of 469785474; download it again from http" in sizes
    (world / "VOCtest_06-Nov-2007.tar").write_bytes(b"not really")
    assert "has the md5" not in str(check_layout(world, "VOC2007", thorough=True))
    said = check_layout(world, "VOC2007", checksums=True)
    assert len(said) == 1
    assert "instead of b6e924de25625d8de591ea690078ad9f" in said[0]


def test_all_problems_at_once_and_none_twice(tmp_path: Path) -> None:
    require_datasets(tmp_path, [])
    with pytest.raises(UserError, match=r"(?s)VOC2007 is missing.*\n.*coco is missing"):
        require_datasets(tmp_path, ["VOC2007", "coco"])
    with pytest.raises(
        UserError,
        match=r"^the data root \S+ is not a folder; correct it, or generate a mini world there: pixbench data mini --root \S+$",
    ):
        require_datasets(tmp_path / "nowhere", ["VOC2007", "coco"])


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="known: imagenet, VOC2007"):
        check_dataset(tmp_path, "voc07")


def edit(world: Path, split: str, change: Callable[[dict[str, Any]], object]) -> None:
    path = world / "coco" / "annotations" / f"instances_{split}2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_protocols_with_boxes_only_need_no_masks(world: Path) -> None:
    for split in ("train", "val"):
        edit(world, split, lambda content: [thing.pop("segmentation") for thing in content["annotations"]])
    boxes, masks = (needs_of(find_protocol(name), None) for name in ("coco_retinanet_1x", "coco_fpn_1x"))
    assert check_dataset(world, "coco", boxes).problems == []
    assert "has no segmentation" in check_dataset(world, "coco", masks).problems[0]


def test_a_file_of_the_users_own_names_the_way_out(world: Path, tmp_path: Path) -> None:
    def own(content: dict[str, Any]) -> None:
        content["categories"] = [{"id": 7, "name": "plate"}, {"id": 3, "name": "Wheel nut"}]
        for thing in content["annotations"]:
            thing["category_id"] = 7

    for split in ("train", "val"):
        edit(world, split, own)
    (problem, _) = check_dataset(world, "coco").problems
    assert "it has plate (id 7), Wheel nut (id 3); it lacks person (id 1)" in problem
    path = world / "coco/annotations/instances_train2017.json"
    assert f"--classes {path}" in problem
    assert check_dataset(world, "coco", Needs(classes=read_classes(path))).problems == []
    (tmp_path / "own.txt").write_text("wheel_nut\nplate\n")
    needs = Needs(classes=read_classes(tmp_path / "own.txt"))
    assert check_dataset(world, "coco", needs).problems == []
    edit(world, "val", lambda content: [category.update(id=10 - category["id"]) for category in content["categories"]])
    edit(world, "val", lambda content: [thing.update(category_id=3) for thing in content["annotations"]])
    assert "other ids than those of the data set's other file" in check_dataset(world, "coco", needs).problems[0]


def test_protocols_whose_evaluation_knows_only_published_classes_refuse_others() -> None:
    for name in ("coco_keypoint_fpn", "lvis_fpn", "cityscapes_instance"):
        with pytest.raises(UserError, match=f"{name} cannot run on classes of your own"):
            check_own_classes(find_protocol(name))
    for name in ("voc_c4", "coco_fcos_1x", "cityscapes_fcn16s", "ade20k_upernet", "voc12aug_fcn16s"):
        check_own_classes(find_protocol(name))


def test_trusted_data_is_not_checked_again_until_it_changes(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs, checks = needs_of(find_protocol("coco_fpn_1x"), None), []
    edit(world, "val", lambda content: [thing.pop("iscrowd") for thing in content["annotations"]])
    monkeypatch.setattr(check, "check_dataset", lambda *args: checks.append(args) or check_dataset(*args))
    first_time = require_datasets(world, ["coco"], needs, trust=True)
    assert any("without iscrowd, taken as 0" in note for note in first_time.notes)
    assert first_time.incomplete == [str(world / "coco/annotations/instances_val2017.json")]
    assert require_datasets(world, ["coco"], needs, trust=True) == first_time
    assert len(checks) == 1
    require_datasets(world, ["coco"], needs)
    require_datasets(world, ["coco"], needs_of(find_protocol("coco_fcos_1x"), None), trust=True)  # needs no masks
    assert len(checks) == 3
    first(world / "coco/val2017", "*").write_bytes(b"changed")
    with pytest.raises(UserError, match="cannot be read"):
        require_datasets(world, ["coco"], needs, trust=True)
    with pytest.raises(UserError, match="cannot be read"):  # nothing is remembered of a data set with problems
        require_datasets(world, ["coco"], needs, trust=True)


def test_lists_of_images_are_lists_of_names(world: Path) -> None:
    path = world / "VOC2007/ImageSets/Main/test.txt"
    names = path.read_text().split()
    for text, said in (
        ("".join(f"{name} -1\n" for name in names), "has a second column of -1, 0 or 1"),
        ("\n".join([*names, names[0]]), f"names {names[0]!r} twice"),
        ("\ufeff" + "\n".join(names), "begins with a byte order mark"),
    ):
        path.write_text(text, encoding="utf-8")
        assert said in check_dataset(world, "VOC2007").problems[0]
    path.write_text("".join(f"{name}.jpg\n" for name in names))
    assert "; the names in the list must not end in .jpg" in check_dataset(world, "VOC2007").problems[0]
    path.write_bytes("\r\n".join(names).encode() + b"\r\n\r\n")
    assert check_dataset(world, "VOC2007").problems == []


def test_a_picture_of_another_suffix_is_seen(world: Path) -> None:
    picture = first(world / "VOC2007/JPEGImages", "005*.jpg")
    picture.rename(picture.with_suffix(".JPG"))
    (problem,) = check_dataset(world, "VOC2007").problems
    assert f"; {picture.stem}.JPG is there, but the framework reads .jpg only: save it so" in problem


def test_files_that_frameworks_list_but_the_check_would_not(world: Path) -> None:
    """MMSegmentation lists all folders below, hidden ones too; Detectron2 lists every file of a city."""
    city = next((world / "cityscapes/leftImg8bit/val").iterdir())
    picture = first(city, "*.png")
    (city / ".ipynb_checkpoints").mkdir()
    copy = Path(shutil.copy(picture, city / ".ipynb_checkpoints"))
    assert (
        f"{copy} is not where leftImg8bit/val/*/*_leftImg8bit.png says"
        in check_dataset(world, "cityscapes").problems[0]
    )
    shutil.rmtree(copy.parent)
    (city / ".DS_Store").touch()
    assert check_dataset(world, "cityscapes").problems == []
    assert ".DS_Store is not where" in check_dataset(world, "cityscapes_instances").problems[0]
    ade = first(world / "ADEChallengeData2016/images/training", "*.jpg")
    ade.rename(ade.with_suffix(".JPG"))
    problems = check_dataset(world, "ADEChallengeData2016").problems
    assert f"{ade.with_suffix('.JPG')} would not be read (a picture), because it does not end in .jpg" in problems[0]


def test_own_data_needs_no_parts_that_only_the_published_data_has(world: Path, tmp_path: Path) -> None:
    shutil.rmtree(world / "VOC2012/SegmentationClassAug")
    (world / "VOC2012/ImageSets/Segmentation/aug.txt").unlink()
    assert "data prepare VOC2012aug" in check_dataset(world, "VOC2012aug").problems[0]
    own = Needs(classes=replace(published_classes("voc_masks.txt"), own=True))
    found = check_dataset(world, "VOC2012aug", own)
    assert found.problems == []
    assert "aug.txt is not there: nothing is read of it" in found.notes[0]
    first(world, "VOC2012/SegmentationClass/*").unlink()
    assert "add it, or take it out of the list" in check_dataset(world, "VOC2012aug", own).problems[0]


def test_pictures_in_training_and_testing_are_said(world: Path) -> None:
    main = world / "VOC2007/ImageSets/Main"
    names = (main / "trainval.txt").read_text().split()
    (main / "test.txt").write_text("\n".join(names[:3]))
    note = check_dataset(world, "VOC2007").notes[-1]
    assert note.startswith(f"3 of 3 pictures for testing are called as one for training (for example {names[0]})")


def test_changes_behind_links_are_seen(world: Path, tmp_path: Path) -> None:
    folder = world / "coco/val2017"
    folder.rename(tmp_path / "pictures")
    folder.mkdir()
    (folder / "deep").symlink_to(tmp_path / "pictures")
    (tmp_path / "pictures" / "back").symlink_to(folder)
    edit(world, "val", lambda content: [i.update(file_name=f"deep/{i['file_name']}") for i in content["images"]])
    needs = needs_of(find_protocol("coco_fcos_1x"), None)
    require_datasets(world, ["coco"], needs)
    first(tmp_path / "pictures", "*.jpg").write_bytes(b"changed")
    with pytest.raises(UserError, match="cannot be read"):
        require_datasets(world, ["coco"], needs, trust=True)

"""COCO's format: what is filled in, what is rare in the published files, and the readings of Detectron2 and pycocotools."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from judge import Reading, copy_world
from mutations import KINDS
from mutations_coco import path_of
from PIL import Image

from transfer.datasets import coco, coco_file
from transfer.datasets.check import Needs, Outcome, check_dataset
from transfer.datasets.classes import Classes, read_classes
from transfer.datasets.coco_file import filled, fit
from transfer.datasets.report import Report

CLASSES = Classes(("dog", "cat"), "two.json", (3, 7))
Content = dict[str, Any]


def annotation(number: int, **more: Any) -> Content:
    """A box of 20 × 10 with its mask; each number has its own place."""
    x, y = number % 50, number // 50 % 30
    corners = [[x, y, x + 20, y, x + 20, y + 10, x, y + 10]]
    return {
        **{"id": number + 1, "image_id": number // 1500 + 1, "category_id": 3 if number % 2 else 7, "iscrowd": 0},
        **{"bbox": [x, y, 20, 10], "area": 200, "segmentation": corners},
        **more,
    }


class File:
    """An annotation file in a folder with its pictures."""

    def __init__(self, folder: Path, count: int = 4, images: int = 2) -> None:
        self.path = folder / "a.json"
        self.content: Content = {
            "images": [{"id": n, "file_name": f"{n}.png", "width": 80, "height": 50} for n in range(1, images + 1)],
            "annotations": [annotation(number) for number in range(count)],
            "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
        }
        for image in self.content["images"]:
            Image.fromarray(np.zeros((50, 80, 3), np.uint8)).save(folder / image["file_name"])

    def check(self, classes: Classes = CLASSES, **reads: Any) -> Report:
        self.path.write_text(json.dumps(self.content))
        return coco.check(self.path, lambda image: self.path.parent / image.file_name, coco.Reads(classes, **reads))


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path)


@pytest.fixture
def many(tmp_path: Path) -> File:
    """3000 annotations, so that three of them are rare."""
    return File(tmp_path, 3000)


def test_a_sound_file_has_no_remark(file: File, many: File) -> None:
    for each in (file, many):
        report = each.check()
        assert (report.problems, report.notes) == ([], [])
        assert report.facts["ids"] == {"cat": 7, "dog": 3}


RARE: dict[str, tuple[Content, str]] = {
    "no width": ({"bbox": [1, 1, 0, 5]}, "Detectron2 does not train on it"),
    "far out": ({"bbox": [70, 20, 40, 10], "segmentation": [[70, 20, 110, 20, 110, 30]]}, "cut at the border"),
    "another box": ({"bbox": [0, 0, 5, 5], "area": 20}, "taken as it is"),
    "another area": ({"area": 5000}, "taken as it is"),
    "two points": ({"segmentation": [[1, 1, 2, 2]]}, "such polygons are left out"),
    "in a pixel": (
        {"bbox": [0, 0, 0.5, 0.5], "segmentation": [[0, 0, 0.5, 0, 0.5, 0.5]], "area": 0.1},
        "taken as it is",
    ),
    "a twin": ({}, "both are counted"),
}


@pytest.mark.parametrize("name", RARE)
def test_what_the_published_files_have_a_few_of_is_a_note(file: File, many: File, name: str) -> None:
    changes, taken = RARE[name]
    for each, place, rare in ((file, 2, False), (many, 1700, True)):
        last = each.content["annotations"][place]
        each.content["annotations"][place] = {**last, **changes}
        if name == "a twin":
            each.content["annotations"].append({**last, "id": 10**6})
        report = each.check()
        assert (len(report.problems), len(report.notes)) == ((0, 1) if rare else (1, 0)), report
        assert taken in str(report.notes) or not rare


def test_one_kind_of_fault_does_not_excuse_another(many: File) -> None:
    many.content["annotations"][0]["segmentation"] = [[1, 1, 2, 2]]
    many.content["annotations"][1]["segmentation"] = {"size": [1, 2], "counts": [2]}
    (problem,) = many.check().problems
    assert "run lengths for [height, width] [1, 2], but the picture has [50, 80]" in problem


FAULTS: dict[str, tuple[Callable[[Content], object], str]] = {
    "no id": (lambda a: a.pop("id"), "has no id"),
    "another's id": (lambda a: a.update(id=1), "its id is not unique in this file"),
    "no image": (lambda a: a.update(image_id=9), "its image_id 9 is not in images"),
    "no category": (lambda a: a.update(category_id=4), "its category_id 4 is not in categories"),
    "no box": (lambda a: a.pop("bbox"), "bbox is missing, not [x, y, width, height]"),
    "a box of texts": (lambda a: a.update(bbox=["1"] * 4), "not [x, y, width, height]"),
    "a negative box": (lambda a: a.update(bbox=[9, 9, -3, 2]), "has a width or height below 0"),
    "a crowd of two": (lambda a: a.update(iscrowd=2), "iscrowd is 2; write 0 or 1"),
    "an area in words": (lambda a: a.update(area="large"), "area is 'large', not a number of pixels"),
    "no mask": (lambda a: a.pop("segmentation"), "has no segmentation; add it, or choose a protocol"),
    "ignored": (lambda a: a.update(ignore=1), '"ignore" is 1'),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_problems_however_rare(many: File, name: str) -> None:
    change, said = FAULTS[name]
    change(many.content["annotations"][5])
    (problem,) = many.check().problems
    assert said in problem
    assert problem.startswith(str(many.path))


def test_masks_are_needed_only_by_protocols_with_masks(file: File) -> None:
    for entry in file.content["annotations"]:
        entry["segmentation"] = []
    assert file.check(masks=False).problems == []
    assert len(file.check().problems) == 1


def test_crowds_may_be_run_lengths_without_further_ado(file: File) -> None:
    file.content["annotations"][0].update(iscrowd=1, segmentation={"size": [50, 80], "counts": [0, 4000]})
    report = file.check()
    assert (report.problems, report.counts["run lengths"]) == ([], 0)
    assert report.notes[0].startswith("1 × crowd (iscrowd 1), which is neither learned nor measured")  # 1 of 4 is many
    file.content["annotations"][1]["segmentation"] = {"size": [50, 80], "counts": [50, 1000, 2950]}
    assert file.check().counts["run lengths"] == 1


def test_what_no_class_says(file: File) -> None:
    own = Classes(("dog", "cat"), "mine.txt", own=True)
    assert file.check(own).problems == []
    file.content["categories"][0]["name"] = "Cat"
    assert file.check().problems == []
    file.content["categories"].append({"id": 9, "name": "okapi"})
    (problem,) = file.check().problems
    assert "its categories are not the 2 classes (dog, cat) of two.json: it has okapi (id 9)" in problem
    assert problem.endswith(f"to run on the categories of this file, add --classes {file.path}")
    assert "it has okapi;" in file.check(own).problems[0]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"images": []', "truncated"),
        (
            '{"info": "ä", "images": [], "annotations": [], "categories": []}'.encode("latin-1"),
            "is not a text in UTF-8",
        ),
        (b'{"x": ' + b"[" * 10**5 + b"]" * 10**5 + b"}", "lists within lists"),
        (b"\x1f\x8b\x08\x00", "is not a text in UTF-8"),
    ],
)
def test_what_is_no_annotation_file(file: File, data: bytes, said: str) -> None:
    file.path.write_bytes(data)
    report = coco.check(file.path, lambda image: file.path, coco.Reads(CLASSES))
    (problem,) = report.problems
    assert said in problem


def test_numbers_cut_in_two_by_a_piece_are_whole(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco_file, "PIECE", 1)
    file.content["info"] = "日本語 é"
    file.path.write_text(json.dumps(file.content, ensure_ascii=False), encoding="utf-8")
    assert coco.check(file.path, lambda i: file.path.parent / i.file_name, coco.Reads(CLASSES)).problems == []


def test_gaps_are_filled_as_pycocotools_counts(mini_root: Path, tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    for kind in ("coco", "keypoints"):
        path = path_of(mini_root, kind, "train")
        content = json.loads(path.read_text())
        singles = [entry for entry in content["annotations"] if not entry["iscrowd"]]
        before = {entry["id"]: dict(entry) for entry in singles}
        for entry in singles:
            for key in ("area", "iscrowd", "num_keypoints"):
                entry.pop(key, None)
        (tmp_path / "gaps.json").write_text(json.dumps(content))
        found = filled(tmp_path / "gaps.json")
        (tmp_path / "filled.json").write_text(json.dumps(found))
        api = COCO(tmp_path / "filled.json")
        for number, entry in before.items():
            assert api.anns[number]["iscrowd"] == 0
            assert api.anns[number]["area"] == api.annToMask(entry).sum() == entry["area"]
            assert api.anns[number].get("num_keypoints") == entry.get("num_keypoints")


def test_ids_that_pycocotools_cannot_use_are_numbered_anew(file: File) -> None:
    for number, entry in enumerate(file.content["annotations"]):
        entry["id"] = number
    report = file.check()
    assert report.problems == []
    assert "1 × annotation id that pycocotools cannot use (a whole number from 1), numbered anew" in report.notes[0]
    assert [entry["id"] for entry in filled(file.path)["annotations"]] == [1, 2, 3, 4]
    for wrong in (-1, "a", 2**60):
        assert not fit(wrong)


def test_polygons_without_three_points_are_left_out_of_the_copy(file: File) -> None:
    good = file.content["annotations"][0]["segmentation"][0]
    file.content["annotations"][0]["segmentation"] = [[1, 1, 2, 2], good, []]
    file.content["annotations"][1]["segmentation"] = [[1, 1, 2, 2]]  # Detectron2 passes over this object
    file.path.write_text(json.dumps(file.content))
    found = filled(file.path)["annotations"]
    assert found[0]["segmentation"] == [good]
    assert found[1]["segmentation"] == [[1, 1, 2, 2]]


@pytest.mark.frameworks
@pytest.mark.parametrize("kind", ["coco", "keypoints", "lvis"])
def test_an_annotation_with_id_0_counts(mini_root: Path, tmp_path: Path, kind: str) -> None:
    """For pycocotools and lvis, a match with id 0 is no match; so the number would be too low."""
    root = copy_world(mini_root, KINDS[kind], tmp_path / "data")
    for split in ("train", "test"):
        path = path_of(root, kind, split)
        content = json.loads(path.read_text())
        for place, entry in enumerate(content["annotations"]):
            entry["id"] = place
        path.write_text(json.dumps(content))
    raw = Reading(kind, root, tmp_path / "raw", Outcome())
    assert raw.scores(raw.truth())["bbox/ap"] < 99.9
    outcome = check_dataset(root, KINDS[kind].data_set, Needs(masks=kind != "keypoints"))
    assert outcome.problems == []
    Reading(kind, root, tmp_path / "run", outcome).check()


@pytest.mark.frameworks
@pytest.mark.parametrize("kind", ["coco", "boxes", "keypoints", "lvis"])
def test_a_model_without_any_detection_has_ap_0(mini_root: Path, tmp_path: Path, kind: str) -> None:
    reading = Reading(kind, mini_root, tmp_path / "run", Outcome())
    scores = reading.scores({key: [] for key in reading.truth()})
    assert {name: value for name, value in scores.items() if name.endswith(("/ap", "/ap50", "/ap75"))} == {
        f"{task}/{name}": 0.0 for task in reading.tasks for name in ("ap", "ap50", "ap75")
    }


OWN: dict[str, Callable[[int], int]] = {
    "from 0": lambda number: number - 1,
    "backwards": lambda number: 1000 - number,
    "negative": lambda number: -number,
    "large": lambda number: 10**12 + 7 * number,
}


@pytest.mark.frameworks
@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("ending", ["json", "txt"])
def test_own_classes_may_have_any_numbers(mini_root: Path, tmp_path: Path, name: str, ending: str) -> None:
    """A user's own categories, in a file of COCO's format or as a list in another order than their numbers."""
    root = copy_world(mini_root, KINDS["coco"], tmp_path / "data")
    for split in ("train", "test"):
        path = path_of(root, "coco", split)
        content = json.loads(path.read_text())
        for category in content["categories"]:
            category.update(id=OWN[name](category["id"]), name=f"thing {category['id']}")
        for entry in content["annotations"]:
            entry["category_id"] = OWN[name](entry["category_id"])
        path.write_text(json.dumps(content))
    names = [category["name"] for category in content["categories"]]
    (tmp_path / "own.json").write_text(json.dumps({"categories": content["categories"]}))
    (tmp_path / "own.txt").write_text("\n".join(reversed(names)))
    classes = read_classes(tmp_path / f"own.{ending}")
    outcome = check_dataset(root, "coco", Needs(classes=classes))
    assert outcome.problems == []
    assert [note for note in outcome.notes if "classes without an object" not in note] == []
    Reading("coco", root, tmp_path / "run", outcome, classes).check()

"""Checks of Cityscapes' polygons and instance ids: what Detectron2 or cityscapesscripts stumble over is a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from transfer.datasets import polygons
from transfer.datasets.report import Report

Item = tuple[Path, Path, Path]
WIDTH, HEIGHT = SIZE = (40, 20)
CAR = {"label": "car", "polygon": [[0, 0], [20, 0], [20, 10], [0, 10]]}
SKY = {"label": "sky", "polygon": [[0, 0], [39, 0], [39, 5]]}


def item(folder: Path, *objects: Any, ids: Any = 26000, name: str = "a") -> Item:
    """A picture, its polygons, and instance ids whose first 200 pixels are ``ids``."""
    picture, drawn, instances = (folder / f"{name}_{file}" for file in ("p.png", "polygons.json", "instanceIds.png"))
    Image.new("RGB", SIZE).save(picture)
    drawn.write_text(json.dumps({"imgHeight": HEIGHT, "imgWidth": WIDTH, "objects": [*objects] or [SKY, CAR]}))
    pixels = np.full(SIZE[::-1], 7, np.uint16)
    pixels.ravel()[:200] = ids
    Image.fromarray(pixels).save(instances)
    return picture, drawn, instances


def check(items: Any, split: str = "test") -> Report:
    return polygons.check(items if isinstance(items, list) else [items], split=split, title="polygons")


def problem(report: Report) -> str:
    (line,) = report.problems
    return line


@pytest.mark.parametrize(("folder", "split"), [("train", "train"), ("val", "test")])
def test_the_mini_world_is_right(mini_root: Path, folder: str, split: str) -> None:
    home = mini_root / "cityscapes"
    items = []
    for picture in sorted(home.glob(f"leftImg8bit/{folder}/*/*.png")):
        stem = home / "gtFine" / folder / picture.parent.name / picture.name.replace("leftImg8bit.png", "gtFine")
        items.append((picture, Path(f"{stem}_polygons.json"), Path(f"{stem}_instanceIds.png")))
    report = check(items, split)
    assert len(items) == 12
    assert (report.problems, report.notes) == ([], [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"imgHeight": 20, "imgWidth": 40, "objects": [', "cannot be read (Input data was truncated)"),
        ("", "cannot be read (Input data was truncated)"),
        ("[]", "Expected `object`, got `array`"),
        ('{"imgHeight": 20, "imgWidth": 40}', "missing required field `objects`"),
        ('{"imgHeight": "20", "imgWidth": 40, "objects": []}', "Expected `int`, got `str` - at `$.imgHeight`"),
        ('{"imgHeight": 20, "imgWidth": 40, "objects": [{"polygon": []}]}', "field `label` - at `$.objects[0]`"),
        (
            '{"imgHeight": 20, "imgWidth": 40, "objects": [{"label": "car", "polygon": [[1, "2"], [3, 4]]}]}',
            "got `str` - at `$.objects[0].polygon[0][1]`",
        ),
        (
            '{"imgHeight": 20, "imgWidth": 40, "objects": [{"label": "car", "polygon": [1, 2, 3, 4]}]}',
            "Expected `array`, got `int` - at `$.objects[0].polygon[0]`",
        ),
        ('{"imgHeight": 20, "imgWidth": 40, "objects": [{"label": "car", "polygon": [[NaN, 1]]}]}', "malformed"),
        ('{"imgHeight": 20, "imgWidth": 40, "objects": [{"label": "car", "polygon": [[1e999, 1]]}]}', "out of range"),
        ('{"imgHeight": 20, "imgWidth": 40, "objects": [{"label": "\udcff", "polygon": []}]}', "cannot be read ("),
        ("[" * 10**6, "cannot be read ("),
    ],
)
def test_files_that_are_not_polygons_are_named(tmp_path: Path, content: str, message: str) -> None:
    files = item(tmp_path)
    files[1].write_text(content, encoding="utf-8", errors="surrogateescape")
    line = problem(check(files))
    assert line.startswith(f"{files[1]}: cannot be read (")
    assert message in line
    assert line.endswith("; unpack gtFine_trainvaltest.zip again")


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        ({**CAR, "label": "Car"}, "has the label 'Car', which Cityscapes does not have; did you mean car?"),
        ({**CAR, "label": "wagonlikegroup"}, "has the label 'wagonlikegroup', which Cityscapes does not have;"),
        ({**CAR, "polygon": [[0, 0], [1, 1]]}, "(car) has a polygon of fewer than 3 points, which has no area"),
        ({**SKY, "polygon": [[0, 0]]}, "(sky) has a polygon of fewer than 3 points"),
        ({**CAR, "polygon": [[0, 0], [1, 0], [61, 1]]}, "(car) has a point at (61, 1), far outside of 40 × 20 pixels"),
        ({**CAR, "polygon": [[0, 0], [1, 0], [1, -11]]}, "(car) has a point at (1, -11), far outside"),
    ],
)
def test_objects_that_detectron2_cannot_use_are_named(tmp_path: Path, thing: Any, message: str) -> None:
    files = item(tmp_path, CAR, thing, thing)
    line = problem(check(files))
    assert line.startswith(f"{files[1]}, object 1: {message}")
    assert "(and 1 more like it)" in line


@pytest.mark.parametrize(
    "thing",
    [
        {**CAR, "label": "cargroup"},
        {**CAR, "label": "polegroup"},
        {**CAR, "label": "license plate", "polygon": [[0, 0]]},
        {**CAR, "label": "no such thing", "deleted": 1},
        {**CAR, "polygon": [[-3, -2], [45, -2], [45.5, 22]]},
    ],
)
def test_objects_that_detectron2_uses_or_passes_over_are_right(tmp_path: Path, thing: Any) -> None:
    report = check(item(tmp_path, CAR, thing), "train")
    assert (report.problems, report.notes) == ([], [])


def test_an_object_without_points_is_noted(tmp_path: Path) -> None:
    report = check(item(tmp_path, CAR, {**CAR, "polygon": []}))
    assert report.problems == []
    assert "1 × object without points, left out" in report.notes[0]
    assert "there is nothing to learn" in problem(check(item(tmp_path, {**CAR, "polygon": []}), "train"))


def test_an_object_that_is_not_deleted_but_left_out_is_noted(tmp_path: Path) -> None:
    report = check(item(tmp_path, CAR, {**CAR, "deleted": 0}))
    assert report.problems == []
    assert 'left out by Detectron2 because it has an entry "deleted"' in report.notes[0]


@pytest.mark.parametrize("objects", [[SKY], [{**CAR, "label": "cargroup"}], [{**CAR, "deleted": 1}]])
def test_a_training_split_without_an_instance_has_nothing_to_learn(tmp_path: Path, objects: Any) -> None:
    line = problem(check([item(tmp_path, *objects), item(tmp_path, SKY, name="b")], "train"))
    assert "draw no person, rider, car, truck, bus, train, motorcycle or bicycle, other than in groups" in line
    assert check([item(tmp_path, *objects), item(tmp_path, CAR, name="b")], "train").problems == []


@pytest.mark.parametrize(
    ("objects", "ids"), [([SKY], 11), ([SKY], 26), ([CAR], [26000] * 99 + [7] * 101), ([SKY], 29001)]
)
def test_a_test_split_without_an_instance_has_nothing_to_measure(tmp_path: Path, objects: Any, ids: Any) -> None:
    line = problem(check([item(tmp_path, *objects, ids=ids), item(tmp_path, SKY, ids=11, name="b")]))
    assert "or bicycle of at least 100 pixels: there is nothing to measure" in line


def test_instance_ids_without_what_the_polygons_draw_are_a_problem_unless_rare(tmp_path: Path) -> None:
    right, wrong = item(tmp_path), item(tmp_path, ids=11, name="b")
    line = problem(check([right, wrong]))
    assert line.startswith(f"{wrong[2]}: has no pixel of any person, rider,")
    assert "but b_polygons.json draws some; unpack" in line
    report = check([*[right] * 19, wrong])
    assert report.problems == []
    assert "its instance ids are what is measured" in report.notes[0]


@pytest.mark.parametrize(
    ("number", "message"),
    [(34, "but 34 is not the id"), (999, "but 999 is not the id"), (34000, "the instance id 34000, but 34 is not")],
)
def test_ids_of_no_label_are_named(tmp_path: Path, number: int, message: str) -> None:
    files = item(tmp_path, ids=[number] + [26000] * 199)
    assert problem(check(files)).startswith(f"{files[2]}: has the instance id {number}")
    assert message in problem(check(files))


def test_instance_ids_of_another_form_are_named_but_only_where_they_are_read(tmp_path: Path) -> None:
    files = item(tmp_path)
    Image.new("RGB", SIZE).save(files[2])
    assert f"{files[2]}: has the mode RGB instead of whole numbers in one channel" in problem(check(files))
    assert check(files, "train").problems == []
    files[2].unlink()
    assert f"{files[2]}: cannot be read (" in problem(check(files))
    Image.fromarray(np.full(SIZE[::-1], 26001, np.int32)).save(files[2], "TIFF")
    assert check(files).problems == []


def test_sizes_that_differ_are_named_with_the_file_that_says_so(tmp_path: Path) -> None:
    files = item(tmp_path)
    Image.fromarray(np.full((10, 20), 26001, np.uint16)).save(files[2])
    assert f"{files[0]}: has 40 × 20 pixels, but {files[2]} says 20 × 10" in problem(check(files))
    files = item(tmp_path)
    files[1].write_text(files[1].read_text().replace("40", "41"))
    assert f"{files[0]}: has 40 × 20 pixels, but {files[1]} says 41 × 20" in problem(check(files))
    files[0].write_bytes(b"")
    assert f"{files[0]}: cannot be read" in problem(check(files))


def test_no_images_at_all_is_a_problem() -> None:
    for split in ("train", "test"):
        assert problem(check([], split)).startswith("polygons: this and all other")

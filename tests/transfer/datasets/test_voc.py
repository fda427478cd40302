"""VOC's annotations: each field in its usual meaning, and the records and scores of Detectron2 on sound data."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from judge import Reading, copy_world
from mutations import KINDS
from PIL import Image

from transfer.datasets import voc
from transfer.datasets.check import Outcome, check_dataset
from transfer.datasets.classes import Classes, published_classes
from transfer.datasets.report import Report

CLASSES = published_classes("voc.txt")
FIELDS = {
    "name": "dog",
    "pose": "Left",
    "truncated": "0",
    "difficult": "0",
    "bndbox": "<xmin>3</xmin><ymin>4</ymin><xmax>50</xmax><ymax>40</ymax>",
}


def thing(**fields: str | None) -> str:
    """An object with these fields; None for none."""
    inner = "".join(f"<{key}>{value}</{key}>" for key, value in {**FIELDS, **fields}.items() if value is not None)
    return f"<object>{inner}</object>"


@pytest.fixture
def one(tmp_path: Path):
    """Check one picture of 60 × 45 with these objects."""
    Image.fromarray(np.zeros((45, 60, 3), np.uint8)).save(tmp_path / "a.jpg")

    def check(
        *things: str,
        size: str = "<size><width>60</width><height>45</height></size>",
        split: str = "train",
        classes: Classes = CLASSES,
    ) -> Report:
        (tmp_path / "a.xml").write_text(f"<annotation>{size}{''.join(things)}</annotation>", encoding="utf-8")
        return voc.check([(tmp_path / "a.jpg", tmp_path / "a.xml")], classes, split, "list.txt")

    return check


def test_sound_objects_have_no_remark(one) -> None:
    report = one(thing(), thing(name="cat", difficult="1"))
    assert (report.problems, report.notes) == ([], [])


@pytest.mark.parametrize(
    ("fields", "taken"),
    [
        ({"difficult": None}, "no <difficult>, taken as 0"),
        ({"difficult": ""}, "an empty <difficult>, taken as 0"),
        ({"difficult": "Unspecified"}, "<difficult> 'unspecified', taken as 0"),
        ({"difficult": "False"}, "<difficult> 'false', taken as 0"),
        ({"difficult": "1.0"}, "<difficult> '1.0', taken as 1"),
        ({"difficult": "yes"}, "<difficult> 'yes', taken as 1"),
        ({"pose": None}, "without <pose>, which no protocol needs"),
        ({"truncated": None}, "without <truncated>, which no protocol needs"),
        ({"name": "Dog"}, "class 'Dog', taken as 'dog'"),
        ({"name": "TV Monitor"}, "class 'TV Monitor', taken as 'tvmonitor'"),
        ({"bndbox": FIELDS["bndbox"].replace("50", "50.25")}, "fractions of pixels, taken as they are"),
        ({"bndbox": FIELDS["bndbox"].replace("50", "64")}, "reaches out of its picture, cut at the border"),
    ],
)
def test_usual_meanings_are_notes(one, fields: dict[str, str | None], taken: str) -> None:
    report = one(thing(**fields), thing(name="cat"))
    assert report.problems == []
    (note,) = report.notes
    assert note.startswith("1 × ")
    assert taken in note.replace("that reaches", "reaches")
    assert "a.xml, object 1" in note


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"difficult": "perhaps"}, "<difficult> is 'perhaps'; write 0 or 1"),
        ({"difficult": "2"}, "<difficult> is '2'"),
        ({"name": None}, "has no class (<name>)"),
        (
            {"name": "dogg"},
            "class 'dogg' is not in the published list (configs/classes/voc.txt), which has 20 classes",
        ),
        ({"name": "dogg"}, "did you mean dog?; or run on classes of your own with --classes FILE"),
        ({"bndbox": None}, "<bndbox> is not four numbers (xmin missing, ymin missing"),
        ({"bndbox": FIELDS["bndbox"].replace("50", "NaN")}, "<bndbox> is not four numbers (xmin 3, ymin 4, xmax NaN"),
        ({"bndbox": FIELDS["bndbox"].replace("50", "2")}, "xmax or ymax of its box is less than xmin or ymin"),
        ({"bndbox": FIELDS["bndbox"].replace("50", "90")}, "reaches far out of the picture of 60 × 45"),
        (
            {"bndbox": "<xmin>90</xmin><ymin>4</ymin><xmax>95</xmax><ymax>9</ymax>"},
            "lies outside the picture of 60 × 45",
        ),
        (
            {"bndbox": "<xmin>.1</xmin><ymin>.2</ymin><xmax>.5</xmax><ymax>.9</ymax>"},
            "is it in parts of the picture's size",
        ),
    ],
)
def test_faults_are_problems(one, fields: dict[str, str | None], said: str) -> None:
    problems = one(thing(**fields), thing(name="cat")).problems
    assert any(said in line for line in problems), problems
    assert all("a.xml, object 1" in line for line in problems)


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ("", None),
        ("<size><width>0</width><height>0</height></size>", None),
        ("<size><width>60.0</width><height>45</height></size>", None),
        ("<size><width>45</width><height>60</height></size>", "has 60 × 45 pixels"),
        ("<size><width>wide</width><height>45</height></size>", "<size> is wide × 45, not two whole numbers of pixels"),
        ("<size><width>-60</width><height>45</height></size>", "<size> is -60 × 45"),
    ],
)
def test_the_size_is_that_of_the_picture(one, size: str, said: str | None) -> None:
    problems = one(thing(), size=size).problems
    assert problems == [] if said is None else any(said in problem for problem in problems)


def test_an_object_twice_is_a_problem_where_it_is_not_rare(one) -> None:
    assert "has 1 object(s) twice, with the same class and box" in one(thing(), thing()).problems[0]
    assert one(thing(), thing(name="cat")).problems == []


def test_a_test_needs_an_object_that_is_not_difficult(one) -> None:
    difficult = thing(difficult="1")
    assert one(difficult, split="train").problems == []
    assert one(difficult, split="test").problems == [
        "list.txt: no object that is not difficult is annotated in the pictures of this list; "
        "there is nothing to measure; annotate the pictures"
    ]
    assert (
        "list.txt: no object is annotated in the pictures of this list; there is nothing to learn" in one().problems[0]
    )


def test_own_classes_are_named_in_messages(one) -> None:
    own = Classes(("licence plate",), "mine.txt", own=True)
    assert one(thing(name="Licence_Plate"), classes=own).problems == []
    (problem,) = one(thing(), classes=own).problems
    assert "class 'dog' is not in mine.txt, which has 1 class (licence plate); correct it, or add it there" in problem


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is not a VOC annotation (no element found"),
        (b"<annotation>", "is not a VOC annotation ("),
        (b"<annotations/>", "is not a VOC annotation: it begins with <annotations>"),
        (b'<?xml version="1.0" encoding="klingon"?><annotation/>', "is not a VOC annotation ("),
        ("<annotation>ä</annotation>".encode("latin-1"), "is not a VOC annotation ("),
        (b"{}", "is not a VOC annotation ("),
    ],
)
def test_what_is_no_annotation(tmp_path: Path, data: bytes, said: str) -> None:
    path, report = tmp_path / "a.xml", Report()
    path.write_bytes(data)
    assert voc.read(path, report) is None
    assert said in report.problems[0]


def test_encodings_are_read(tmp_path: Path) -> None:
    text = f"<annotation><folder>ä</folder>{thing()}</annotation>"
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "latin-1"):
        head = f'<?xml version="1.0" encoding="{encoding.removesuffix("-sig")}"?>'
        (tmp_path / "a.xml").write_bytes(f"{head}{text}".encode(encoding))
        annotation = voc.read(tmp_path / "a.xml", Report())
        assert annotation is not None
        assert annotation.things[0].box == (3, 4, 50, 40)


@pytest.mark.frameworks
@pytest.mark.parametrize(("folder", "split"), [("VOC2007", "trainval"), ("VOC2007", "test"), ("VOC2012", "trainval")])
def test_records_are_those_of_detectron2(mini_root: Path, folder: str, split: str) -> None:
    from detectron2.data.datasets.pascal_voc import CLASS_NAMES, load_voc_instances

    from transfer.detection.datasets import voc_records

    assert CLASSES.names == CLASS_NAMES
    theirs = load_voc_instances(str(mini_root / folder), split, CLASS_NAMES)
    assert voc_records(mini_root / folder, split, CLASSES) == theirs


@pytest.mark.frameworks
def test_scores_are_those_of_detectron2(mini_root: Path, tmp_path: Path) -> None:
    """Up to the classes without an object, which count as 0 there and are left out here."""
    from detectron2.evaluation import PascalVOCDetectionEvaluator
    from judge import jittered

    reading = Reading("voc", mini_root, tmp_path / "run", Outcome())
    objects = jittered(reading.truth())
    ours = reading.scores(objects)
    reading.evaluator = PascalVOCDetectionEvaluator("voc_2007_test")
    theirs = reading.scores(objects)
    assert 0 < theirs["bbox/ap"] < 20
    for name in ("ap", "ap50", "ap75"):
        assert ours[f"bbox/{name}"] == pytest.approx(theirs[f"bbox/{name}"] * 20 / ours["bbox/classes"])


@pytest.mark.frameworks
def test_a_difficult_object_is_trained_on_but_not_counted(mini_root: Path, tmp_path: Path) -> None:
    root = copy_world(mini_root, KINDS["voc"], tmp_path / "data")
    before = Reading("voc", root, tmp_path / "run", Outcome())
    counted = before.truth()
    assert 0 < before.scores({key: things[1:] for key, things in counted.items()})["bbox/ap"] < 99
    for name in (root / "VOC2007/ImageSets/Main/test.txt").read_text().split():
        path = root / f"VOC2007/Annotations/{name}.xml"
        path.write_text(re.sub(r"<difficult>0<", "<difficult>true<", path.read_text(), count=1))
    outcome = check_dataset(root, "VOC2007")
    assert outcome.problems == []
    assert any("<difficult> 'true', taken as 1" in note for note in outcome.notes)
    after = Reading("voc", root, tmp_path / "again", outcome)
    assert after.scores(after.truth())["bbox/ap"] == pytest.approx(100)
    assert {key: len(things) for key, things in after.truth().items()} == {
        key: max(0, len(things) - 1) for key, things in counted.items()
    }
    assert [len(record["annotations"]) for record in after.test] == [
        len(record["annotations"]) for record in before.test
    ]

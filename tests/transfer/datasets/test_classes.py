"""Lists of classes: published ones equal the frameworks', own ones are read from text and COCO's format."""

from __future__ import annotations

from pathlib import Path

import pytest

from pixbench.errors import UserError
from transfer.datasets.classes import PUBLISHED, plain, published_classes, read_classes


@pytest.mark.frameworks
def test_published_lists_are_those_of_the_frameworks() -> None:
    from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
    from detectron2.data.datasets.pascal_voc import CLASS_NAMES
    from mmseg.datasets import ADE20KDataset, CityscapesDataset, PascalVOCDataset

    things = [(entry["id"], entry["name"]) for entry in COCO_CATEGORIES if entry["isthing"]]
    coco = published_classes("coco.json")
    assert list(zip(coco.ids, coco.names, strict=True)) == things
    assert published_classes("voc.txt").names == CLASS_NAMES
    for name, dataset in (
        ("voc_masks", PascalVOCDataset),
        ("cityscapes", CityscapesDataset),
        ("ade20k", ADE20KDataset),
    ):
        assert published_classes(f"{name}.txt").names == tuple(name.strip() for name in dataset.METAINFO["classes"])
    assert published_classes("person.json").names == ("person",)


@pytest.mark.parametrize("path", sorted(PUBLISHED.iterdir()), ids=lambda path: path.name)
def test_no_published_list_has_two_names_that_mean_the_same(path: Path) -> None:
    classes = published_classes(path.name)
    assert len(classes.places) == len(classes)
    assert not classes.own


def test_names_are_found_whatever_their_capitals_and_blanks() -> None:
    classes = published_classes("coco.json")
    for name in ("Traffic Light", "traffic_light", "trafficlight", " traffic-light "):
        assert classes.find(name) == classes.names.index("traffic light")
    assert classes.find("lamp post") is None
    assert classes.near("traffic lihgt") == "; did you mean traffic light?"
    assert plain("ÉCOLE") == plain("école") == plain("e\u0301cole")


def test_own_lists(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_bytes("\ufeffwheel  nut\r\n\r\nPlate\r\n".encode())
    assert read_classes(path).names == ("wheel nut", "Plate")
    assert read_classes(path).brief == "2 classes (wheel nut, Plate)"
    path.write_text('{"images": [], "categories": [{"id": 7, "name": "b", "x": 1}, {"id": 2, "name": "a"}]}')
    assert (read_classes(path).names, read_classes(path).ids) == (("a", "b"), (2, 7))
    assert read_classes(path).own


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty; write one name a line"),
        (b" \n\n", "is empty"),
        (b"plate\nnut\nPLATE\n", "has 'plate' and 'PLATE', which are the same"),
        (b"names:\n- plate\n", "has the line 'names:'"),
        (b"# mine\nplate\n", "has the line '# mine'"),
        (b"\xff\xfep\x00", "is not a text in UTF-8"),
        (b"plate\x00\n", "has unprintable characters"),
        (b"[1, 2]", 'has no "categories"'),
        (b'{"categories": [{"id": "1", "name": "a"}]}', 'has no "categories" with id and name'),
        (b'{"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}', "two categories with id 1"),
        (b'{"categories": []}', "is empty"),
    ],
)
def test_lists_that_are_none_are_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "own"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_classes(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_classes(tmp_path / "nowhere")
    with pytest.raises(UserError, match="cannot be read"):
        read_classes(tmp_path)

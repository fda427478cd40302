"""Worlds composed from a user's cut-outs and pictures: all layouts, own classes, and what is no cut-out."""

from __future__ import annotations

import argparse
import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.commands import data as command
from benchmarks.miniworld import cityscapes, coco, voc
from benchmarks.miniworld.compose import PhotoWorld, check_names, object_classes, pictures
from benchmarks.miniworld.generate import LEAST, Task, generate, stream
from benchmarks.miniworld.photographs import check_cutout, cutout_of
from pixbench.errors import UserError
from transfer.datasets.check import Needs, check_dataset, needs_of
from transfer.datasets.classes import read_classes
from transfer.datasets.layout import SETS
from transfer.protocols import find_protocol

pytestmark = pytest.mark.slow

STAMPS = Path("/usr/share/tuxpaint/stamps")  # Debian's tuxpaint-stamps-default


def broken_png() -> bytes:
    """Return a PNG whose second chunk has an impossible name, at which Pillow raises SyntaxError."""
    found = io.BytesIO()
    Image.new("RGBA", (30, 30)).save(found, "PNG")
    return found.getvalue().replace(b"IDAT", b"\x00\x01\x02\x03")


def save_cutouts(folder: Path, classes: list[str]) -> None:
    """Save two noisy discs or rings for each class."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:70j, -1:1:90j]
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(2):
            inside = (x**2 + y**2 < 0.8) & (x**2 + y**2 > 0.1 * number)
            colours = rng.integers(0, 256, (70, 90, 3))
            Image.fromarray(np.dstack([colours, inside * 255]).astype(np.uint8)).save(folder / name / f"{number}.png")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cut-outs of known classes (`known`), of a class of one's own (`own`), and backgrounds."""
    home = tmp_path_factory.mktemp("photographs")
    save_cutouts(home / "known", ["car", "dog", "pottedplant"])
    save_cutouts(home / "own", ["plate", "dog"])
    (home / "backgrounds" / "rooms").mkdir(parents=True)
    rng = np.random.default_rng(1)
    for number in range(3):
        picture = Image.fromarray(rng.integers(0, 256, (9, 12, 3)).astype(np.uint8)).resize((240, 180))
        picture.save(home / "backgrounds" / ("rooms" if number else ".") / f"{number}.jpg")
    return home


def world(home: Path, which: str, **options: int) -> PhotoWorld:
    return PhotoWorld(images=LEAST, cutouts=home / which, backgrounds=home / "backgrounds", **options)


@pytest.fixture(scope="module")
def known(home: Path) -> Path:
    root = home / "made" / "known"
    generate(root, world(home, "known"), workers=1)
    return root


@pytest.mark.parametrize("name", SETS)
def test_every_layout_of_known_classes_is_right(known: Path, name: str) -> None:
    assert check_dataset(known, name, Needs(), thorough=True, checksums=False).problems == []
    assert not (known / "classes.txt").exists()


def test_known_classes_have_the_names_of_each_data_set(home: Path) -> None:
    found = [(c.name, c.voc, c.coco, c.synset) for c in object_classes(["car", "dog", "pottedplant"])]
    assert found == [
        ("car", "car", 3, "car"),
        ("dog", "dog", 18, "dog"),
        ("potted plant", "pottedplant", 64, "pottedplant"),
    ]
    assert [(c.name, c.coco) for c in object_classes(["dog", "plate"])] == [("dog", 1), ("plate", 2)]


def test_classes_of_ones_own_have_lists_that_the_protocols_read(home: Path, tmp_path: Path) -> None:
    root = tmp_path / "own"
    generate(root, world(home, "own"), workers=1)
    assert sorted(path.name for path in root.iterdir() if path.is_dir()) == [
        "VOC2007",
        "VOC2012",
        "coco",
        "imagenet",
        "lvis",
    ]
    lists = {
        "voc_c4": root / "classes.txt",
        "voc12aug_logistic": root / "classes_masks.txt",
        "coco_fpn_1x": root / "coco/annotations/instances_train2017.json",
    }
    for name, file in lists.items():
        protocol, classes = find_protocol(name), read_classes(file)
        for data in protocol.datasets:
            assert check_dataset(root, data, needs_of(protocol, classes), thorough=False).problems == []


def test_masks_are_the_scene(home: Path, known: Path) -> None:
    from pycocotools.coco import COCO

    drawing = world(home, "known").drawing()
    api = COCO(str(known / "coco/annotations/instances_val2017.json"))
    for index, number in enumerate(sorted(api.imgs)):
        scene = coco.compose(drawing, index, stream(Task("coco", "val2017", index), 0))
        assert (np.sum([layer.visible for layer in scene.layers], axis=0) == 1).all()
        single = [entry for entry in api.imgToAnns[number] if not entry["iscrowd"]]
        for entry, thing in zip(single, scene.objects, strict=True):
            assert np.array_equal(api.annToMask(entry), thing.visible)
    street = cityscapes.compose(drawing, 0, stream(Task("cityscapes", "train", 0), 0))
    assert {layer.label for layer in street.layers} == {"static", "car"}
    covered = [
        np.any(
            [o.visible for o in voc.compose(drawing, i, stream(Task("voc", "VOC2007/test", i), 0)).objects], 0
        ).mean()
        for i in range(24)
    ]
    assert 0.3 < np.mean(covered) < 0.55


def test_the_command_recognises_its_world_and_another_picture(home: Path, known: Path, tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    command.register(parser.add_subparsers())
    words = ["data", "compose", "--root", known, "--images", LEAST, "--workers", 1]
    words += ["--cutouts", home / "known", "--backgrounds"]
    before = {path: path.stat().st_mtime_ns for path in known.rglob("*")}
    args = parser.parse_args([*map(str, words), str(home / "backgrounds")])
    assert args.run(args) == 0
    assert before == {path: path.stat().st_mtime_ns for path in known.rglob("*")}
    Image.new("RGB", (50, 40)).save(tmp_path / "other.png")
    args = parser.parse_args([*map(str, words), str(tmp_path)])
    with pytest.raises(UserError, match="another mini world"):
        args.run(args)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (Image.new("RGB", (30, 30)), "has no transparent pixels"),
        (Image.new("RGBA", (30, 30)), "is transparent everywhere"),
        (b"no picture", "cannot be read"),
        (broken_png(), "cannot be read"),
        (Image.fromarray(np.full((30, 30), 300, np.uint16)), r"has more than 8 bits in a pixel \(Pillow's mode I;16\)"),
    ],
)
def test_what_is_no_cut_out_is_refused_by_name(tmp_path: Path, content: Image.Image | bytes, said: str) -> None:
    path = tmp_path / "thing.png"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content.save(path)
    with pytest.raises(UserError, match=f"thing.png {said}"):
        cutout_of(path)


@pytest.mark.parametrize(
    ("shape", "fits"), [("line", False), ("specks", False), ("bar", True), ("disc", True), ("small", True)]
)
def test_what_could_not_be_placed_is_refused_before_anything_is_drawn(tmp_path: Path, shape: str, fits: bool) -> None:
    y, x = np.mgrid[:384, :384]
    opaque = {
        "line": y == 190,
        "specks": (x % 8 < 3) & (y % 8 < 3),
        "bar": (abs(y - 190) < 20) & (abs(x - 190) < 180),
        "disc": (x - 190) ** 2 + (y - 190) ** 2 < 180**2,
        "small": (abs(x - 9) < 3) & (abs(y - 9) < 3),
    }[shape]
    Image.fromarray(np.dstack([np.full((384, 384, 3), 90), opaque * 255]).astype(np.uint8)).save(tmp_path / "thing.png")
    if fits:
        check_cutout(tmp_path / "thing.png")
        return
    with pytest.raises(UserError, match=r"thing\.png is too thin, or in too many small pieces"):
        check_cutout(tmp_path / "thing.png")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["two\nlines"], "cannot be the name of a class"),
        (["x\udcff"], "cannot be the name of a class"),
        (["# a"], "cannot be the name of a class"),
        (["a" * 250], "cannot be the name of a class"),
        (["Cat", "cat"], "'cat' is the same as 'Cat'"),
        (["Background"], "'Background' is the same as 'background'"),
        (["background"], "'background' is the same as 'background'"),
        ([f"c{number}" for number in range(255)], "has 255 class folders, .* room for 254"),
    ],
)
def test_folders_that_cannot_be_classes_are_refused(names: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_names(names, Path("cut"))
    check_names(["teddy bear", "pottedplant", "Katze", "猫"], Path("cut"))


@pytest.mark.parametrize("inside", ["known", "backgrounds"])
def test_a_world_is_not_made_inside_its_pictures(home: Path, inside: str) -> None:
    option = "--cutouts" if inside == "known" else "--backgrounds"
    with pytest.raises(UserError, match=f"is inside {option} .*choose a folder outside"):
        world(home, "known").check(home / inside / "made")


def test_what_lies_beside_the_class_folders_or_leads_nowhere_is_named(home: Path, tmp_path: Path) -> None:
    cutouts = shutil.copytree(home / "known", tmp_path / "known")
    (cutouts / "car" / "link.png").symlink_to(tmp_path / "nothing.png")
    photos = PhotoWorld(images=LEAST, cutouts=cutouts, backgrounds=home / "backgrounds")
    with pytest.raises(UserError, match=r"link\.png cannot be read"):
        photos.check(tmp_path / "world")
    (cutouts / "loose.png").touch()
    with pytest.raises(UserError, match=r"pictures beside its class folders \(loose\.png\)"):
        photos.check(tmp_path / "world")


def test_each_of_many_classes_is_counted() -> None:
    found = coco.lvis_categories([{"category_id": 300, "image_id": image} for image in (1, 2, 2)])
    assert (found[299]["frequency"], found[299]["image_count"]) == ("f", 2)
    assert (found[0]["frequency"], found[0]["image_count"]) == ("r", 0)


def test_a_background_may_have_any_name(home: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(home / "backgrounds", tmp_path / "backgrounds")
    shutil.copy(folder / "0.jpg", f"{os.fsdecode(bytes(folder))}/{os.fsdecode(b'x' + bytes([255]))}.jpg")
    photos = PhotoWorld(images=LEAST, cutouts=home / "known", backgrounds=folder)
    photos.check(tmp_path / "world")
    assert photos.stamp()["backgrounds"] != world(home, "known").stamp()["backgrounds"]


def test_folders_without_classes_or_pictures_are_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no class folders"):
        PhotoWorld(cutouts=tmp_path / "empty", backgrounds=home / "backgrounds").check(tmp_path)
    with pytest.raises(UserError, match="has no pictures"):
        pictures(tmp_path / "empty")
    with pytest.raises(UserError, match="cannot be listed"):
        PhotoWorld(cutouts=tmp_path / "nowhere", backgrounds=home / "backgrounds")


@pytest.mark.skipif(not STAMPS.is_dir(), reason="tuxpaint-stamps-default is not installed")
def test_stamps_of_tux_paint(home: Path, tmp_path: Path) -> None:
    photos = PhotoWorld(images=24, cutouts=STAMPS / "animals", backgrounds=home / "backgrounds")
    generate(tmp_path / "world", photos, workers=1)
    assert check_dataset(tmp_path / "world", "imagenet", Needs(), thorough=True, checksums=False).problems == []

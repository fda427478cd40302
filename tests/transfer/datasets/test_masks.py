"""Checks of label maps: right ones have no problem; what MMSegmentation would read wrongly is a sentence that names it."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from transfer.datasets import masks
from transfer.datasets.classes import Classes, published_classes
from transfer.datasets.report import Report

CITYSCAPES, ADE, VOC = (published_classes(f"{name}.txt") for name in ("cityscapes", "ade20k", "voc_masks"))
THREE = Classes(("grass", "road", "tree"), "my.txt", own=True)
SIZE = (6, 4)  # width, height
MODES = {"1": [0, 1], "L": [0, 18, 255], "P": [0, 18, 255], "I;16": [0, 18, 255], "I": [0, 18, 255]}


def pair(folder: Path, numbers: Any = (0, 1), name: str = "a", size: tuple[int, int] = SIZE) -> tuple[Path, Path]:
    """A picture, and a label map with these numbers (an image: the label map as it is)."""
    picture, path = folder / f"{name}.jpg", folder / f"{name}_labelTrainIds.png"
    Image.new("RGB", size).save(picture)
    drawn = numbers if isinstance(numbers, Image.Image) else Image.fromarray(pixels(numbers))
    drawn.save(path, "TIFF" if drawn.mode in "IF" else "PNG")
    return picture, path


def pixels(numbers: Sequence[int]) -> np.ndarray:
    return np.resize(np.array(numbers, np.uint8), SIZE[::-1])


def check(pairs: Any, classes: Classes = CITYSCAPES, zero_ignored: bool = False, split: str = "train") -> Report:
    pairs = pairs if isinstance(pairs, list) else [pairs]
    return masks.check(pairs, classes, zero_ignored=zero_ignored, split=split, title="label maps")


def problem(report: Report) -> str:
    (line,) = report.problems
    return line


@pytest.fixture
def layouts(mini_root: Path) -> dict[str, tuple[list[tuple[Path, Path]], Classes, bool]]:
    """Pictures and label maps of the mini world in the three layouts, with their classes and whether 0 is ignored."""
    home = mini_root / "cityscapes"
    pictures = sorted(home.glob("leftImg8bit/train/*/*.png"))
    cityscapes = [
        (path, home / "gtFine/train" / path.parent.name / path.name.replace("leftImg8bit", "gtFine_labelTrainIds"))
        for path in pictures
    ]
    home = mini_root / "ADEChallengeData2016"
    ade = [
        (path, home / f"annotations/training/{path.stem}.png") for path in sorted(home.glob("images/training/*.jpg"))
    ]
    home = mini_root / "VOC2012"
    names = (home / "ImageSets/Segmentation/train.txt").read_text().split()
    voc = [(home / f"JPEGImages/{name}.jpg", home / f"SegmentationClass/{name}.png") for name in names]
    return {
        "cityscapes": (cityscapes, CITYSCAPES, False),
        "ade": (ade, ADE, True),
        "voc": (voc, VOC, False),
    }


@pytest.mark.parametrize("layout", ["cityscapes", "ade", "voc"])
def test_the_mini_world_is_right(layouts: Any, layout: str) -> None:
    pairs, classes, zero_ignored = layouts[layout]
    report = check(pairs, classes, zero_ignored)
    assert len(pairs) >= 6
    assert report.problems == []
    absent = report.facts["classes without a pixel in train"]
    assert 0 < len(absent) < len(classes)
    assert list(report.readings) == ["classes without a pixel in train"]


@pytest.mark.parametrize("layout", ["cityscapes", "ade", "voc"])
def test_own_classes_are_right_in_each_layout(layouts: Any, tmp_path: Path, layout: str) -> None:
    pairs, _, zero_ignored = layouts[layout]
    made = []
    for number, (picture, path) in enumerate(pairs[:3]):
        with Image.open(path) as image:
            own = Image.fromarray((np.asarray(image) % 3 + zero_ignored).astype(np.uint8))
        own.save(tmp_path / f"{number}.png")
        made.append((picture, tmp_path / f"{number}.png"))
    assert check(made, THREE, zero_ignored).problems == []
    assert "but the numbers of 3 classes (grass, road, tree) are" in problem(check(pairs, THREE, zero_ignored))


def test_many_files_are_counted_over_processes(tmp_path: Path) -> None:
    right, wrong, other = (pair(tmp_path, numbers, name) for name, numbers in (("a", [0, 5]), ("b", [40]), ("c", [3])))
    report = check([*[right] * 600, *[wrong] * 3, other])
    assert problem(report).startswith(f"{wrong[1]}: has pixels of the number 40, but the numbers of 19 classes (road")
    assert "and 255 is ignored (and 2 more like it); restore the label maps" in problem(report)
    report = check([*[right] * 600, other])
    assert report.problems == []
    assert len(report.facts["classes without a pixel in train"]) == 16


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_of_whole_numbers_is_read(tmp_path: Path, mode: str) -> None:
    assert check(pair(tmp_path, image_of(mode))).problems == []
    if mode.startswith("I"):
        wide = Image.fromarray(pixels([0]).astype(np.int32 if mode == "I" else np.uint16) + 256)
        assert "has pixels of the number 256" in problem(check(pair(tmp_path, wide)))  # read as 0 by MMSegmentation


def image_of(mode: str) -> Image.Image:
    data = pixels(MODES[mode])
    if mode == "P":
        image = Image.frombytes("P", SIZE, data.tobytes())
        image.putpalette(list(range(256)) * 3)
        return image
    kinds: dict[str, Any] = {"1": bool, "L": np.uint8, "I;16": np.uint16, "I": np.int32}
    return Image.fromarray(data.astype(kinds[mode]))


@pytest.mark.frameworks
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("zero_ignored", [False, True])
def test_mmsegmentation_reads_the_same_numbers(tmp_path: Path, mode: str, zero_ignored: bool) -> None:
    from mmseg.datasets.transforms import LoadAnnotations

    _, path = pair(tmp_path, image_of(mode))
    with Image.open(path) as image:
        assert image.mode == mode
    given = {"seg_map_path": str(path), "reduce_zero_label": zero_ignored, "seg_fields": []}
    read = LoadAnnotations().transform(given)["gt_seg_map"]
    expected = [255 if number in (0, 255) else number - 1 for number in MODES[mode]] if zero_ignored else MODES[mode]
    assert read.shape == SIZE[::-1]
    assert {*read.ravel().tolist()} == {*expected}


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "CMYK"])
def test_several_channels_are_named(tmp_path: Path, mode: str) -> None:
    picture, path = pair(tmp_path)
    Image.fromarray(pixels([0, 1])).convert("RGB").convert(mode).save(path, "TIFF" if mode == "CMYK" else "PNG")
    line = problem(check((picture, path)))
    assert f"{path}: has {len(mode)} channels (mode {mode}) instead of one; save the numbers of the classes" in line
    if mode != "CMYK":
        assert "the colours are equal: take one" in line


def test_colours_of_voc_are_recognised(tmp_path: Path) -> None:
    colours = Image.new("RGB", SIZE, (192, 128, 0))
    assert "these are VOC's colours: save" in problem(check(pair(tmp_path, colours), VOC))
    assert "VOC" not in problem(check(pair(tmp_path, Image.new("RGB", SIZE, (1, 128, 0))), VOC))


def test_fractions_jpeg_and_stretched_numbers_are_refused(tmp_path: Path) -> None:
    floats = Image.fromarray(pixels([0, 1]).astype(np.float32))
    assert "holds fractions (mode F)" in problem(check(pair(tmp_path, floats)))
    picture, path = pair(tmp_path)
    Image.fromarray(pixels([0, 18, 40])).save(path, "JPEG")
    assert "is a JPEG file, which changes numbers (here, for example, to" in problem(check((picture, path)))
    Image.fromarray(pixels([0])).save(path, "JPEG")
    assert "is a JPEG file" in problem(check((picture, path)))
    path.write_bytes(grey_png(bits=4))
    assert "is greyscale of 4 bits" in problem(check((picture, path)))


def grey_png(bits: int) -> bytes:
    """A PNG of zeros with fewer than 8 bits a pixel, which Pillow cannot write."""
    width, height = SIZE
    rows = (b"\0" + bytes((width * bits + 7) // 8)) * height
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0),
        b"IDAT": zlib.compress(rows),
        b"IEND": b"",
    }
    whole = (
        struct.pack(">I", len(x)) + kind + x + struct.pack(">I", zlib.crc32(kind + x)) for kind, x in chunks.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(whole)


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    picture, path = pair(tmp_path)
    other = pair(tmp_path, name="b")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert f"{path}: cannot be read (" in problem(check([(picture, path), other]))
    path.write_bytes(b"")
    assert f"{path}: cannot be read (cannot identify image file); replace it" in problem(check((picture, path)))
    path.unlink()
    assert f"{path}: is missing, but its picture is there; make it with pixbench data prepare cityscapes" in problem(
        check((picture, path))
    )
    path.mkdir()
    assert f"{path}: cannot be read (" in problem(check((picture, path)))
    other[0].unlink()
    assert problem(check(other)) == f"{other[0]}: is missing, but its label map is {other[1]}; restore it"
    other[0].write_bytes(b"GIF")
    assert f"{other[0]}: cannot be read" in problem(check(other))


def test_sizes_that_differ_are_both_named(tmp_path: Path) -> None:
    picture, path = pair(tmp_path, size=(12, 8))
    assert f"{picture}: has 12 × 8 pixels, but its label map {path} says 6 × 4" in problem(check((picture, path)))
    flat = tmp_path / "flat.png"
    Image.fromarray(np.zeros((1, 6), np.uint8)).save(flat)
    Image.new("RGB", (6, 1)).save(picture)
    assert f"{flat}: is one pixel high or wide" in problem(check((picture, flat)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_label_maps_must_fit_the_upright_picture(tmp_path: Path, kind: str) -> None:
    picture, path = pair(tmp_path)
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", SIZE).save(picture, kind, exif=exif)
    assert "is turned to 4 × 6 by its EXIF orientation 6, but its label map" in problem(check((picture, path)))
    Image.new("RGB", SIZE[::-1]).save(picture, kind, exif=exif)
    report = check((picture, path))
    assert report.problems == []
    assert "picture EXIF" in report.readings


def test_an_orientation_behind_the_pixels_of_a_png_is_found(tmp_path: Path) -> None:
    picture, path = pair(tmp_path)
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", SIZE).save(picture, "PNG", exif=exif)
    data = picture.read_bytes()
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    picture.write_bytes(data[:start] + data[end:-12] + data[start:end] + data[-12:])
    assert "is turned to 4 × 6 by its EXIF orientation 6" in problem(check((picture, path)))


@pytest.mark.frameworks
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_mmsegmentation_turns_pictures_upright_and_label_maps_not(tmp_path: Path, kind: str) -> None:
    from mmcv import imfrombytes

    exif, path = Image.Exif(), tmp_path / "turned"
    exif[274] = 6
    Image.new("L", SIZE).save(path, kind, exif=exif)
    assert imfrombytes(path.read_bytes(), flag="color", backend="cv2").shape == (6, 4, 3)
    assert imfrombytes(path.read_bytes(), flag="unchanged", backend="pillow").shape == (4, 6)


@pytest.mark.parametrize(
    ("classes", "zero_ignored", "numbers", "remedy"),
    [
        (CITYSCAPES, False, [7, 23, 33], "these look like label ids instead of train ids: delete these files and make"),
        (CITYSCAPES, False, [7, 40], "restore the label maps of the data set, or run on classes of your own"),
        (CITYSCAPES, False, [1, 19], "the numbers seem to begin at 1: subtract 1"),
        (CITYSCAPES, False, [0, 19], "these look like label ids"),
        (ADE, True, [0, 150, 151], "restore the label maps"),
        (THREE, False, [1, 3], "the numbers seem to begin at 1: subtract 1"),
        (THREE, False, [0, 3], "if 0 is a class such as background, name it in the first line of my.txt"),
        (THREE, False, [0, 12, 24], "or name the class of each number from 0 on, one a line, in my.txt"),
        (THREE, True, [0, 4], "or name the class of each number from 1 on, one a line, in my.txt"),
    ],
)
def test_numbers_of_no_class_are_named_with_what_to_do(
    tmp_path: Path, classes: Classes, zero_ignored: bool, numbers: list[int], remedy: str
) -> None:
    line = problem(check(pair(tmp_path, numbers), classes, zero_ignored))
    assert remedy in line
    first, last = int(zero_ignored), len(classes) - 1 + zero_ignored
    assert f"has pixels of the number {next(n for n in numbers if n > last)}" in line
    assert f"are {first} to {last}, and {'0 and 255 are' if zero_ignored else '255 is'} ignored; " in line


def test_the_cause_is_guessed_from_all_label_maps(tmp_path: Path) -> None:
    begins_at_one = [pair(tmp_path, [1, 3], "a"), pair(tmp_path, [2], "b")]
    assert "seem to begin at 1" in problem(check(begins_at_one, THREE))
    assert "if 0 is a class such as" in problem(check([*begins_at_one, pair(tmp_path, [0], "c")], THREE))


@pytest.mark.parametrize(
    ("classes", "zero_ignored", "numbers", "message"),
    [
        (
            CITYSCAPES,
            False,
            [255],
            "all other label maps for train have ignored pixels only: there is nothing to learn",
        ),
        (ADE, True, [0], "all other label maps for train have ignored pixels only"),
        (ADE, True, [255], "all other label maps for train have ignored pixels only"),
        (CITYSCAPES, False, [0, 255], "are black and white (numbers 0 and 255), and 255 is ignored"),
        (ADE, True, [0, 255], "are black and white"),
        (
            ADE,
            True,
            [0, 1, 149, 255],
            "no label map for train has the number 150: they seem to be reduced by 1 already",
        ),
        (THREE, True, [0, 1, 2], "no label map for train has the number 3 (tree): the numbers seem to begin at 0"),
    ],
)
def test_what_all_label_maps_together_show_is_a_problem(
    tmp_path: Path, classes: Classes, zero_ignored: bool, numbers: list[int], message: str
) -> None:
    _, path = made = pair(tmp_path, numbers)
    assert message in problem(check([made, made], classes, zero_ignored))
    assert str(path) in problem(check([made, made], classes, zero_ignored))


@pytest.mark.parametrize(
    ("classes", "zero_ignored", "numbers"),
    [(ADE, True, [0, 1, 150, 255]), (ADE, True, [0, 1, 2]), (THREE, True, [1, 2]), (THREE, True, [0, 1, 2, 3])],
)
def test_numbers_that_may_be_right_are_taken(
    tmp_path: Path, classes: Classes, zero_ignored: bool, numbers: list[int]
) -> None:
    report = check(pair(tmp_path, numbers), classes, zero_ignored)
    assert report.problems == []
    assert ("ignored twice in train" in report.readings) is (255 in numbers)


def test_a_class_may_be_absent_from_the_test_split(tmp_path: Path) -> None:
    report = check(pair(tmp_path, [0, 1, 2]), THREE, zero_ignored=True, split="test")
    assert report.problems == []
    assert report.facts == {"classes without a pixel in test": ["tree"]}
    assert "leaves such a class out or counts it as 0 (first: tree)" in report.notes[0]


def test_ignored_pictures_and_a_single_class_are_noted(tmp_path: Path) -> None:
    report = check([pair(tmp_path, [255], "a"), pair(tmp_path, [1, 255], "b")], THREE)
    assert report.problems == []
    assert report.readings["label map ignored"].where == str(tmp_path / "a_labelTrainIds.png")
    assert report.notes[1].startswith("1 × class alone in all label maps for train")
    assert report.notes[1].endswith("(first: road)")
    assert report.notes[2].startswith("2 × classes without a pixel for train in label maps: grass, tree")


def test_no_pictures_at_all_is_a_problem() -> None:
    assert problem(check([])) == "label maps: there is no label map for train; restore the data set"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_files_of_another_owner_are_named(tmp_path: Path) -> None:
    picture, path = pair(tmp_path)
    path.chmod(0)
    assert f"{path}: cannot be read" in problem(check((picture, path)))


def test_greys_that_a_palette_shows_for_other_numbers_are_refused(tmp_path: Path) -> None:
    """Programs that make palettes small renumber the pixels; VOC's palettes have colours, and their numbers are meant."""
    numbers = np.array([[0, 1], [2, 2]], np.uint8)
    image = Image.fromarray(numbers).convert("P")
    for palette, wrong in (([0, 0, 0, 8, 8, 8, 11, 11, 11], True), ([0, 0, 0, 1, 1, 1, 2, 2, 2], False)):
        image.putdata(list(numbers.ravel()))
        image.putpalette(palette)
        image.save(tmp_path / "mask.png")
        Image.new("RGB", (2, 2)).save(tmp_path / "picture.png")
        classes = Classes(("a", "b", "c"), "own.txt", own=True)
        pair = tmp_path / "picture.png", tmp_path / "mask.png"
        report = masks.check([pair], classes, zero_ignored=False, split="train", title="x")
        assert bool(report.problems) is wrong, report.problems
        assert not wrong or "shows the grey 8 where it holds the number 1" in report.problems[0]

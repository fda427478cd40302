"""Mutations of pictures: other formats, sizes and modes, damaged files."""

from __future__ import annotations

import random
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from mutations import EXTENTS, KINDS, Mutation, in_turn, pick
from PIL import Image

from transfer.datasets.layout import SETS

PLACES = {
    "voc": {"train": "VOC2007/JPEGImages/000*.jpg", "test": "VOC2007/JPEGImages/005*.jpg"},
    "coco": {"train": "coco/train2017/*.jpg", "test": "coco/val2017/*.jpg"},
    "lvis": {"train": "coco/train2017/*.jpg", "test": "coco/val2017/*.jpg"},
    "cityscapes": {"train": "cityscapes/leftImg8bit/train/*/*.png", "test": "cityscapes/leftImg8bit/val/*/*.png"},
    "ade20k": {
        "train": "ADEChallengeData2016/images/training/*.jpg",
        "test": "ADEChallengeData2016/images/validation/*.jpg",
    },
}


def saved(
    make: Callable[[Image.Image], Image.Image], ending: str = "JPEG", **options: object
) -> Callable[[Path], None]:
    """Change a picture and save it in another format under the same name."""

    def change(path: Path) -> None:
        with Image.open(path) as image:
            image.load()
        make(image).save(path, ending, **options)

    return change


def bytes_of(make: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(make(path.read_bytes()))


def turned(orientation: int) -> Callable[[Path], None]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(lambda image: image, exif=exif)


def bomb(path: Path) -> None:
    """The header of a very large PNG."""
    body = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    head = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + head + struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    )


def wide(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_link(path: Path) -> None:
    other = path.parent.parent / f"elsewhere-{path.stem}"  # without a suffix, so that nothing lists it as a picture
    shutil.move(path, other)
    path.symlink_to(other)


def as_broken_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent / "nowhere.jpg")


def same(image: Image.Image) -> Image.Image:
    return image


PICTURES: dict[str, tuple[Callable[[Path], object], str]] = {
    "removed": (Path.unlink, "refused"),
    "empty": (bytes_of(lambda data: b""), "refused"),
    "truncated": (bytes_of(lambda data: data[: len(data) // 2]), "refused"),
    "truncated at the end": (bytes_of(lambda data: data[:-40]), "same or refused"),
    "truncated in the header": (bytes_of(lambda data: data[:20]), "refused"),
    "zero bytes": (bytes_of(lambda data: bytes(len(data))), "refused"),
    "text": (bytes_of(lambda data: b"<html>404 Not Found</html>"), "refused"),
    "bytes behind the end": (bytes_of(lambda data: data + b"camera" * 50), "same"),
    "many bytes behind the end": (bytes_of(lambda data: data + b"camera" * 5000), "same"),
    "16 bits": (saved(wide, "PNG"), "refused"),
    "32 bits": (saved(lambda image: image.convert("F"), "TIFF"), "refused"),
    "grey": (saved(lambda image: image.convert("L")), "same"),
    "CMYK": (saved(lambda image: image.convert("CMYK")), "same"),
    "with alpha": (saved(lambda image: image.convert("RGBA"), "PNG"), "same"),
    "with a palette": (saved(lambda image: image.convert("P"), "PNG"), "same"),
    "black and white": (saved(lambda image: image.convert("1"), "PNG"), "same or refused"),
    "PNG": (saved(same, "PNG"), "same"),
    "BMP": (saved(same, "BMP"), "same or refused"),
    "WebP": (saved(same, "WEBP"), "same or refused"),
    "GIF": (saved(same, "GIF"), "same or refused"),
    "TIFF": (saved(same, "TIFF"), "same or refused"),
    "progressive": (saved(same, progressive=True), "same"),
    "half the size": (saved(lambda image: image.resize((image.width // 2, image.height // 2))), "refused"),
    "one pixel wider": (saved(lambda image: image.resize((image.width + 1, image.height))), "refused"),
    "one pixel": (saved(lambda image: image.resize((1, 1))), "refused"),
    "turned": (saved(lambda image: image.rotate(90, expand=True)), "either"),
    "EXIF 3": (turned(3), "same"),
    "EXIF 6": (turned(6), "either"),
    "EXIF 8": (turned(8), "either"),
    "EXIF 0": (turned(0), "same"),
    "EXIF 77": (turned(77), "same"),
    "a bomb": (bomb, "refused"),
    "a folder": (as_folder, "refused"),
    "a link": (as_link, "same"),
    "a broken link": (as_broken_link, "refused"),
}
SIZES = ("half the size", "one pixel wider", "one pixel", "turned", "EXIF 6", "EXIF 8")


def mutations() -> Iterator[Mutation]:
    """Yield all mutations of pictures."""
    number = 0
    for kind, places in PLACES.items():
        for how, (make, expect) in PICTURES.items():
            number += 1
            extent, splits = EXTENTS[number % 2], in_turn(number)
            if kind == "lvis" and number % 6:
                continue
            if how == "removed" and "*" in SETS[KINDS[kind].data_set]["parts"][0].get("images", ""):
                expect = "either"  # there is no list: the pictures that are there are the data set

            def change(root: Path, rng: random.Random, places=places, make=make, extent=extent, splits=splits) -> None:
                for split in splits:
                    for path in pick(sorted(root.glob(places[split])), extent, rng):
                        make(path)

            yield Mutation(kind, f"picture/{how}/{extent}/{'+'.join(splits)}", expect, change)

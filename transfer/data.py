"""Whether a data set below the data root is there and readable, checked in seconds on a sample, for real and mini data alike."""

from __future__ import annotations

import itertools
import json
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from PIL import Image

from pretrain.errors import UserError

SAMPLE = 3  # files opened of each kind
SMALL = 64 << 20  # bytes of JSON that are still parsed whole
IMAGENET_PAGE = "https://image-net.org/download.php"
VOC_PAGE = "http://host.robots.ox.ac.uk/pascal/VOC/"
COCO_PAGE = "https://cocodataset.org/#download"
CITYSCAPES_PAGE = "https://www.cityscapes-dataset.com/downloads/"

Problems = Iterator[str]


def check_dataset(data_root: Path, name: str) -> list[str]:
    """What keeps data set ``name`` (a key of `CHECKS`) below ``data_root`` from being used, one line each; often nothing."""
    if name not in CHECKS:
        raise UserError(f"there is no data set {name!r}; known: {', '.join(CHECKS)}")
    home, page = data_root / name, PAGES[name]
    try:
        if not data_root.is_dir():
            return [f"the data root {data_root} is not a folder; make one with: pixbench data mini --root {data_root}"]
        if not home.is_dir():
            return [f"{home} is missing; download it from {page}, or draw a small world with: pixbench data mini"]
        os.listdir(home)
        return list(CHECKS[name](home))
    except OSError as error:
        return [f"{error.filename or home} cannot be read ({error.strerror or error}); check its owner and permissions"]


def require_datasets(data_root: Path, names: Iterable[str]) -> None:
    """Raise UserError with all problems of the data sets ``names`` below ``data_root``, if there are any."""
    problems = list(dict.fromkeys(line for name in names for line in check_dataset(data_root, name)))
    if problems:
        raise UserError("; ".join(problems))


def imagenet(home: Path) -> Problems:
    for split in ("train", "val"):
        folder = home / split
        if not folder.is_dir():
            yield f"{folder} is missing; unpack the archive from {IMAGENET_PAGE} into it, one folder a class"
            continue
        classes = sorted(path for path in folder.iterdir() if path.is_dir())
        if not classes:
            yield f"{folder} has no class folders; sort its pictures into one folder a class"
        for one in {path for path in (*classes[:SAMPLE], *classes[-1:])}:
            pictures = list(itertools.islice((path for path in one.iterdir() if path.is_file()), SAMPLE))
            if not pictures:
                yield f"{one} holds no pictures; unpack the archive of this class again"
            yield from undecodable(pictures)


def voc(home: Path) -> Problems:
    parts = ("trainval", "test") if home.name == "VOC2007" else ("trainval",)
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        if not (home / folder).is_dir():
            yield f"{home / folder} is missing; unpack the archives from {VOC_PAGE} again"
    for part in parts:
        listing = home / "ImageSets" / "Main" / f"{part}.txt"
        if not listing.is_file():
            yield f"{listing} is missing; unpack the {part} archive from {VOC_PAGE}"
            continue
        names = listing.read_text(encoding="utf-8", errors="replace").split()
        if not names:
            yield f"{listing} is empty; unpack the {part} archive from {VOC_PAGE} again"
        yield from undecodable(home / "JPEGImages" / f"{name}.jpg" for name in ends(names))
        for path in (home / "Annotations" / f"{name}.xml" for name in ends(names)):
            try:
                entries = ET.parse(path).findall("object")
                for entry in entries:
                    float(entry.findtext("bndbox/xmin", ""))
            except FileNotFoundError:
                yield f"{path} is missing; unpack the archive from {VOC_PAGE} again"
            except (ET.ParseError, ValueError) as error:
                yield f"{path} is not a VOC annotation ({error}); unpack the archive from {VOC_PAGE} again"


def coco(home: Path) -> Problems:
    for split in ("train2017", "val2017"):
        annotations = home / "annotations" / f"instances_{split}.json"
        if not (home / split).is_dir():
            yield f"{home / split} is missing; unpack {split}.zip from {COCO_PAGE}"
        if not annotations.is_file():
            yield f"{annotations} is missing; unpack annotations_trainval2017.zip from {COCO_PAGE}"
            continue
        names = coco_pictures(annotations)
        if not names:
            yield f"{annotations} is not a whole COCO annotation file; unpack annotations_trainval2017.zip again"
        elif (home / split).is_dir():
            yield from undecodable(home / split / name for name in names)


def coco_pictures(path: Path) -> list[str]:
    """Some picture names of a COCO annotation file; none if it is broken. Of a large one only the two ends are read."""
    if path.stat().st_size <= SMALL:
        try:
            content = json.loads(path.read_bytes())
            if not all(isinstance(content[key], list) for key in ("annotations", "categories")):
                return []
            return ends([str(image["file_name"]) for image in content["images"]])
        except (ValueError, KeyError, TypeError):
            return []
    with path.open("rb") as stream:
        head = stream.read(1 << 20)
        stream.seek(-64, os.SEEK_END)
        tail = stream.read().rstrip()
    if not head.lstrip().startswith(b"{") or not tail.endswith(b"}"):
        return []  # an unfinished download ends anywhere
    return [name.decode() for name in re.findall(rb'"file_name":\s*"([^"]+)"', head)[:SAMPLE]]


def cityscapes(home: Path) -> Problems:
    for split in ("train", "val"):
        pictures = sorted((home / "leftImg8bit" / split).glob("*/*_leftImg8bit.png"))
        if not pictures:
            yield f"{home}/leftImg8bit/{split} holds no pictures; unpack leftImg8bit_trainvaltest.zip from {CITYSCAPES_PAGE}"
            continue
        yield from undecodable(ends(pictures))
        labels = [
            home / "gtFine" / split / path.parent.name / path.name.replace("_leftImg8bit.png", "_gtFine_")
            for path in pictures
        ]
        for suffix in ("labelIds.png", "instanceIds.png", "polygons.json", "labelTrainIds.png"):
            files = [Path(f"{stem}{suffix}") for stem in labels]
            missing = [path for path in files if not path.is_file()]
            if missing and suffix == "labelTrainIds.png":
                yield (
                    f"{len(missing)} files like {missing[0]} are missing; make them with: "
                    f"CITYSCAPES_DATASET={home} csCreateTrainIdLabelImgs"
                )
            elif missing:
                yield f"{len(missing)} files like {missing[0]} are missing; unpack gtFine_trainvaltest.zip from {CITYSCAPES_PAGE}"
            elif suffix.endswith(".png"):
                yield from undecodable(ends(files))


def undecodable(paths: Iterable[Path]) -> Problems:
    for path in paths:
        try:
            with Image.open(path) as image:
                image.load()
        except FileNotFoundError:
            yield f"{path} is missing; unpack its archive again"
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            if isinstance(error, PermissionError):
                raise
            yield f"{path} is not a readable picture ({error}); unpack its archive again"


def ends(items: list) -> list:
    """The first `SAMPLE` items and the last one."""
    return items if len(items) <= SAMPLE else [*items[:SAMPLE], items[-1]]


CHECKS: dict[str, Callable[[Path], Problems]] = {
    "imagenet": imagenet,
    "VOC2007": voc,
    "VOC2012": voc,
    "coco": coco,
    "cityscapes": cityscapes,
}
PAGES = {
    "imagenet": IMAGENET_PAGE,
    "VOC2007": VOC_PAGE,
    "VOC2012": VOC_PAGE,
    "coco": COCO_PAGE,
    "cityscapes": CITYSCAPES_PAGE,
}

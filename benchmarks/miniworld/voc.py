"""Write the VOC part of the mini world: `VOC2007` (trainval, test) and `VOC2012` (trainval).

Both have JPEGImages, Annotations, ImageSets and Segmentation{Class,Object}. As in VOC, boxes enclose the visible part
of an object, are 1-based and include both ends; the first half of trainval is train, the rest is val. VOC2012 also has
further images, listed in aug.txt, with masks in SegmentationClassAug, as `pixbench data prepare` makes them from SBD.
Unlike in VOC, masks have no void border and every image has masks.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.miniworld.images import save_jpeg, save_png
from benchmarks.miniworld.scene import Drawing, Scene, Thing, window

SPLITS = {"VOC2007/trainval": 100, "VOC2007/test": 60, "VOC2012/trainval": 100, "VOC2012/aug": 100}
CLASSES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep sofa "
    "train tvmonitor"
).split()
DIFFICULT = 0.4  # an object is difficult if more than this fraction of its pixels is covered


def compose(drawing: Drawing, index: int, rng: np.random.Generator) -> Scene:
    """Draw scene ``index`` with 1 to 3 objects."""
    width, height = (int(n) for n in rng.integers(112, 161, 2))
    return drawing.scene(rng, index, width, height, count=int(rng.integers(1, 4)), crowd=False)


def write(
    drawing: Drawing, root: Path, split: str, index: int, rng: np.random.Generator
) -> tuple[str, dict[str, bool]]:
    """Write one image; return its id and, for each class in it, whether it shows an object that is not difficult."""
    folder, part = split.split("/")
    number = index + 1 + {"trainval": 0, "test": 5000, "aug": 3000}[part]
    name = f"{number:06d}" if folder == "VOC2007" else f"2012_{number:06d}"
    scene = compose(drawing, index, rng)
    home = root / folder
    save_jpeg(home / "JPEGImages" / f"{name}.jpg", scene.pixels)
    names = class_names(drawing)
    classes, numbers = np.zeros((2, *scene.image.shape[:2]), np.uint8)
    for position, thing in enumerate(scene.objects, 1):
        classes[thing.visible] = names.index(thing.object_class.voc) + 1
        numbers[thing.visible] = position
    if part == "aug":
        save_png(home / "SegmentationClassAug" / f"{name}.png", classes)
        return name, {}
    tree = annotation(folder, name, scene)
    ET.indent(tree, "\t")
    path = home / "Annotations" / f"{name}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(ET.tostring(tree, encoding="unicode") + "\n", encoding="utf-8")
    save_png(home / "SegmentationClass" / f"{name}.png", classes, PALETTE)
    save_png(home / "SegmentationObject" / f"{name}.png", numbers, PALETTE)
    seen: dict[str, bool] = {}
    for thing in scene.objects:
        seen[thing.object_class.voc] = seen.get(thing.object_class.voc, False) or thing.covered <= DIFFICULT
    return name, seen


def class_names(drawing: Drawing) -> list[str]:
    """Return the names of the classes: VOC's, or those of the world if VOC does not have them all."""
    names = [found.voc for found in drawing.classes]
    return CLASSES if {*names} <= {*CLASSES} else names


def annotation(folder: str, name: str, scene: Scene) -> ET.Element:
    """Return the content of the annotation file of image ``name``."""
    height, width = scene.image.shape[:2]
    about = {"database": f"The {folder} Database", "annotation": f"PASCAL {folder}", "image": "PixBench"}
    root = element("annotation", {"folder": folder, "filename": f"{name}.jpg", "source": about})
    root.append(element("size", {"width": width, "height": height, "depth": 3}))
    root.append(element("segmented", 1))
    for thing in scene.objects:
        entry = {"name": thing.object_class.voc, "pose": "Unspecified", "truncated": int(thing.truncated)}
        if folder == "VOC2012":
            entry["occluded"] = int(thing.covered > 0.05)
        box = dict(zip(("xmin", "ymin", "xmax", "ymax"), inclusive_box(thing), strict=True))
        root.append(element("object", {**entry, "difficult": int(thing.covered > DIFFICULT), "bndbox": box}))
    return root


def element(tag: str, content: Any) -> ET.Element:
    """Return an XML element; ``content`` is a text, a number, or a dict of child elements (name -> content)."""
    node = ET.Element(tag)
    if isinstance(content, dict):
        node.extend([element(name, inner) for name, inner in content.items()])
    else:
        node.text = str(content)
    return node


def inclusive_box(thing: Thing) -> tuple[int, int, int, int]:
    """Return xmin, ymin, xmax, ymax of the visible part, 1-based, both ends included."""
    rows, columns = window(thing.visible)
    return columns.start + 1, rows.start + 1, columns.stop, rows.stop


def finish(drawing: Drawing, root: Path, records: dict[str, list[tuple[str, dict[str, bool]]]]) -> None:
    """Write the lists of images in ``ImageSets``, and the lists of the classes if they are not VOC's."""
    labels = class_names(drawing)
    if labels is not CLASSES:
        for name, lines in (("classes.txt", labels), ("classes_masks.txt", ["background", *labels])):
            (root / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    for folder in ("VOC2007", "VOC2012"):
        trainval = records[f"{folder}/trainval"]
        half = len(trainval) // 2
        lists = {"train": trainval[:half], "val": trainval[half:], "trainval": trainval}
        if f"{folder}/test" in records:
            lists["test"] = records[f"{folder}/test"]
        for task in ("Main", "Segmentation"):
            (root / folder / "ImageSets" / task).mkdir(parents=True)
        for part, entries in lists.items():
            names = "".join(f"{name}\n" for name, _ in entries)
            for task in ("Main", "Segmentation"):
                (root / folder / "ImageSets" / task / f"{part}.txt").write_text(names, encoding="utf-8")
            for label in labels:  # 1: in the image, 0: only as difficult objects, -1: not in the image
                lines = [f"{name} {({None: -1, False: 0, True: 1})[seen.get(label)]:2d}\n" for name, seen in entries]
                path = root / folder / "ImageSets" / "Main" / f"{label}_{part}.txt"
                path.write_text("".join(lines), encoding="utf-8")
    names = "".join(f"{name}\n" for name, _ in records["VOC2012/aug"])
    (root / "VOC2012" / "ImageSets" / "Segmentation" / "aug.txt").write_text(names, encoding="utf-8")


# VOC's colour map: each group of three bits of the index gives one bit of red, green and blue, from the high bits down.
PALETTE = [
    sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3))
    for index in range(256)
    for channel in range(3)
]

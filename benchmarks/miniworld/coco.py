"""Write the COCO and LVIS parts of the mini world.

Files: `coco/{train2017,val2017}`, `coco/annotations/{instances,person_keypoints}_*2017.json` and `lvis/lvis_v1_*.json`.
As in COCO, single objects have polygons and crowds (`iscrowd` 1) have run lengths. Boxes and areas are those of the
mask. In the keypoint files each single object counts as a person, with joints at fixed places in its box. LVIS has the
same objects without the crowds, with COCO's category ids.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.miniworld.images import save_jpeg
from benchmarks.miniworld.scene import Drawing, Mask, Scene, window
from benchmarks.miniworld.trace import polygons, run_lengths

SPLITS = {"train2017": 200, "val2017": 60}
CROWDS = 0.08  # fraction of the scenes that contain a crowd

# Supercategory -> its categories with their ids: the 80 of COCO 2017. COCO has the same gaps (12, 26, 29, …).
CATEGORIES = {
    "person": "1 person",
    "vehicle": "2 bicycle, 3 car, 4 motorcycle, 5 airplane, 6 bus, 7 train, 8 truck, 9 boat",
    "outdoor": "10 traffic light, 11 fire hydrant, 13 stop sign, 14 parking meter, 15 bench",
    "animal": "16 bird, 17 cat, 18 dog, 19 horse, 20 sheep, 21 cow, 22 elephant, 23 bear, 24 zebra, 25 giraffe",
    "accessory": "27 backpack, 28 umbrella, 31 handbag, 32 tie, 33 suitcase",
    "sports": "34 frisbee, 35 skis, 36 snowboard, 37 sports ball, 38 kite, 39 baseball bat, 40 baseball glove, "
    "41 skateboard, 42 surfboard, 43 tennis racket",
    "kitchen": "44 bottle, 46 wine glass, 47 cup, 48 fork, 49 knife, 50 spoon, 51 bowl",
    "food": "52 banana, 53 apple, 54 sandwich, 55 orange, 56 broccoli, 57 carrot, 58 hot dog, 59 pizza, 60 donut, 61 cake",
    "furniture": "62 chair, 63 couch, 64 potted plant, 65 bed, 67 dining table, 70 toilet",
    "electronic": "72 tv, 73 laptop, 74 mouse, 75 remote, 76 keyboard, 77 cell phone",
    "appliance": "78 microwave, 79 oven, 80 toaster, 81 sink, 82 refrigerator",
    "indoor": "84 book, 85 clock, 86 vase, 87 scissors, 88 teddy bear, 89 hair drier, 90 toothbrush",
}

# COCO's joints and their places in the box of a standing person: fractions of its width (from the middle) and height.
PAIRS = {"eye": (0.05, 0.1), "ear": (0.1, 0.12), "shoulder": (0.2, 0.28), "elbow": (0.3, 0.42), "wrist": (0.25, 0.56)}
PAIRS |= {"hip": (0.12, 0.58), "knee": (0.14, 0.76), "ankle": (0.14, 0.96)}
SIDES = {"left": 1, "right": -1}
JOINTS = {"nose": (0.5, 0.14)}
JOINTS |= {f"{side}_{part}": (0.5 + sign * x, y) for part, (x, y) in PAIRS.items() for side, sign in SIDES.items()}
LVIS_CATEGORIES = 1203


def categories_of(drawing: Drawing) -> list[dict[str, Any]]:
    """Return the category entries of the annotation files: COCO's, or those of the world if COCO does not have them all."""
    published = categories()
    numbers = {(entry["name"], entry["id"]) for entry in published}
    if {(found.name, found.coco) for found in drawing.classes} <= numbers:
        return published
    return [{"supercategory": "own", "id": found.coco, "name": found.name} for found in drawing.classes]


def categories() -> list[dict[str, Any]]:
    """Return the category entries of COCO."""
    entries = []
    for above, members in CATEGORIES.items():
        for member in members.split(", "):
            number, name = member.split(" ", 1)
            entries.append({"supercategory": above, "id": int(number), "name": name})
    return entries


def compose(drawing: Drawing, index: int, rng: np.random.Generator) -> Scene:
    """Draw scene ``index`` with 1 to 3 objects and, in some scenes, a crowd."""
    width, height = (int(n) for n in rng.integers(112, 161, 2))
    count, crowd = int(rng.integers(1, 4)), bool(rng.random() < CROWDS)
    return drawing.scene(rng, index, width, height, count, crowd)


def write(
    drawing: Drawing, root: Path, split: str, index: int, rng: np.random.Generator
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Write one image; return its COCO record and those of its objects (these have no ids yet)."""
    scene = compose(drawing, index, rng)
    height, width = scene.image.shape[:2]
    number = 2 * index + 1 + (split == "val2017")  # ids are unique over both splits
    name = f"{number:012d}.jpg"
    save_jpeg(root / "coco" / split / name, scene.pixels)
    image = {
        "license": 1,
        "file_name": name,
        "coco_url": f"http://images.cocodataset.org/{split}/{name}",
        "height": height,
        "width": width,
        "date_captured": "",
        "flickr_url": "",
        "id": number,
    }
    found = [record(o.visible, o.object_class.coco, number, crowd=False) for o in scene.objects]
    if scene.crowd:
        together = np.any([thing.visible for thing in scene.crowd], axis=0)
        found.append(record(together, scene.crowd[0].object_class.coco, number, crowd=True))
    return image, found


def record(mask: Mask, category: int, image: int, crowd: bool) -> dict[str, Any]:
    """Return the COCO record (without an id) of the object or crowd with ``mask`` (H, W)."""
    rows, columns = window(mask)
    box = [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start]
    return {
        "segmentation": run_lengths(mask) if crowd else polygons(mask),
        "area": int(mask.sum()),
        "iscrowd": int(crowd),
        "image_id": image,
        "bbox": box,
        "category_id": category,
        "keypoints": [] if crowd else joints(mask, box),
    }


def joints(mask: Mask, box: list[int]) -> list[int]:
    """Return x, y, v for each of `JOINTS`; v is 2 if the object itself is visible at that pixel, otherwise 1."""
    left, top, width, height = box
    places = [(left + int(x * (width - 1)), top + int(y * (height - 1))) for x, y in JOINTS.values()]
    return [number for x, y in places for number in (x, y, 1 + int(mask[y, x]))]


def finish(drawing: Drawing, root: Path, records: dict[str, list[tuple[dict[str, Any], list[dict[str, Any]]]]]) -> None:
    """Number the objects and write the annotation files of COCO and LVIS."""
    for folder in ("coco/annotations", "lvis"):
        (root / folder).mkdir(parents=True)
    person = {**categories()[0], "keypoints": list(JOINTS), "skeleton": []}
    about = {"url": "", "version": "1.0", "year": 2017, "contributor": "PixBench", "date_created": ""}
    next_id = 1
    for split, entries in records.items():
        images, found = [image for image, _ in entries], []
        for _, things in entries:
            for thing in things:
                found.append({**thing, "id": next_id})
                next_id += 1
        plain = [{key: value for key, value in thing.items() if key != "keypoints"} for thing in found]
        single = [thing for thing in plain if not thing["iscrowd"]]
        people = [{**thing, "category_id": 1, "num_keypoints": len(thing["keypoints"]) // 3} for thing in found]
        lvis: dict[str, Any] = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
        files: dict[str, tuple[list[Any], list[Any], list[Any]]] = {
            f"coco/annotations/instances_{split}.json": (images, plain, categories_of(drawing)),
            f"coco/annotations/person_keypoints_{split}.json": (images, people, [person]),
            f"lvis/lvis_v1_{split[:-4]}.json": ([image | lvis for image in images], single, lvis_categories(single)),
        }
        for name, (split_images, objects, object_classes) in files.items():
            text = json.dumps(
                {
                    "info": {"description": "PixBench mini world in the layout of COCO 2017", **about},
                    "licenses": [{"url": "", "id": 1, "name": "made by pixbench data mini"}],
                    "images": split_images,
                    "annotations": objects,
                    "categories": object_classes,
                }
            )
            (root / name).write_text(text, encoding="utf-8")


def lvis_categories(annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return all categories of LVIS v1, named by number; those in ``annotations`` are frequent, the others rare."""
    images: dict[int, set[int]] = {}
    for entry in annotations:
        images.setdefault(entry["category_id"], set()).add(entry["image_id"])
    return [
        {
            "id": n,
            "name": f"class_{n}",
            "frequency": "f" if images.get(n) else "r",
            "image_count": len(images.get(n, ())),
        }
        for n in range(1, LVIS_CATEGORIES + 1)
    ]

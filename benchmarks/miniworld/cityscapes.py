"""Write the Cityscapes part of the mini world: `cityscapes/{leftImg8bit,gtFine}/{train,val}/<city>/`.

Each scene has an image, labelIds, instanceIds, colours, polygons and labelTrainIds. `cityscapesscripts` makes
labelTrainIds and colours from the polygons. The scenes are drawn with the same call on the same whole-number polygons,
so both agree with labelIds in every pixel.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from cityscapesscripts.helpers.labels import name2label
from cityscapesscripts.preparation.json2labelImg import json2labelImg

from benchmarks.miniworld.images import save_png
from benchmarks.miniworld.scene import Drawing, Layer, Scene, Thing

SPLITS = {"train": 100, "val": 40}
SIZE = (256, 128)  # width, height
CITIES = {"train": ("aachen", "bochum"), "val": ("frankfurt",)}
CROWDS = 0.1  # fraction of the scenes that contain a crowd
FILE = """{{
    "imgHeight": {},
    "imgWidth": {},
    "objects": [
{}
    ]
}}
"""
OBJECT = """\
        {{
            "label": {},
            "polygon": [
{}
            ]
        }}"""
CORNER = """\
                [
                    {},
                    {}
                ]"""


def compose(drawing: Drawing, index: int, rng: np.random.Generator) -> Scene:
    """Draw scene ``index`` with 2 to 4 objects and, in some scenes, a crowd."""
    count, crowd = int(rng.integers(2, 5)), bool(rng.random() < CROWDS)
    return drawing.street(rng, index, *SIZE, count, crowd)


def write(drawing: Drawing, root: Path, split: str, index: int, rng: np.random.Generator) -> None:
    """Write the image and the annotation files of scene ``index`` of ``split``."""
    city = CITIES[split][index % len(CITIES[split])]
    scene = compose(drawing, index, rng)
    name = f"{city}_{index:06d}_000019"
    home = root / "cityscapes"
    save_png(home / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", scene.pixels)
    stem = str(home / "gtFine" / split / city / f"{name}_gtFine")
    labels, instances = label_maps(scene)
    save_png(Path(f"{stem}_labelIds.png"), labels)
    save_png(Path(f"{stem}_instanceIds.png"), instances)
    polygons = f"{stem}_polygons.json"
    Path(polygons).write_text(annotation(scene), encoding="utf-8")
    json2labelImg(polygons, f"{stem}_labelTrainIds.png", "trainIds")
    json2labelImg(polygons, f"{stem}_color.png", "color")


def annotation(scene: Scene) -> str:
    """Return the content of the polygon file: what `json.dumps` with ``indent=4`` would write, in a tenth of the time."""
    width, height = SIZE
    objects = []
    for layer in scene.layers:
        corners = ",\n".join(CORNER.format(x, y) for x, y in layer.polygon)
        objects.append(OBJECT.format(json.dumps(layer.label + "group" * in_crowd(layer)), corners))
    return FILE.format(height, width, ",\n".join(objects))


def in_crowd(layer: Layer) -> bool:
    """Whether ``layer`` is a member of a crowd."""
    return isinstance(layer, Thing) and layer.crowd


def label_maps(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Return labelIds (H, W) uint8 and instanceIds (H, W) uint16.

    An instance id is the label id, or 1000 × label id + number for a countable object that is not in a crowd.
    """
    shape = scene.image.shape[:2]
    labels, instances = np.zeros(shape, np.uint8), np.zeros(shape, np.uint16)
    counts: dict[int, int] = {}
    for layer in scene.layers:
        label = name2label[layer.label]
        number = label.id
        if label.hasInstances and not in_crowd(layer):
            number = label.id * 1000 + counts.get(label.id, 0)
            counts[label.id] = counts.get(label.id, 0) + 1
        labels[layer.visible] = label.id
        instances[layer.visible] = number
    return labels, instances

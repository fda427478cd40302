"""Draw street scenes for Cityscapes: each pixel belongs to a labelled polygon; objects near the camera are larger."""

from __future__ import annotations

import numpy as np

from benchmarks.miniworld.scene import Layer, Polygon, Scene, window
from benchmarks.miniworld.shapes.object_classes import OBJECT_CLASSES, Points, Shape
from benchmarks.miniworld.shapes.scenes import TRIES, Pose, add_clutter, add_object, light_up, surface
from benchmarks.miniworld.shapes.textures import noise, panes, two_colours

# Mean colour of each label. Each scene varies it widely, so that colour is only a hint.
HUES = {
    "sky": (150, 175, 205),
    "building": (140, 120, 110),
    "vegetation": (80, 120, 70),
    "sidewalk": (165, 150, 160),
    "road": (95, 95, 100),
}
GRAIN = {"sky": 60, "building": 20, "vegetation": 6, "sidewalk": 12, "road": 4}  # pixels per cell of noise


def lay(scene: Scene, rng: np.random.Generator, label: str, polygon: Polygon) -> None:
    """Cover ``polygon`` with a surface of the kind ``label``, a key of `HUES`."""
    mask = scene.fill(polygon)
    if not mask.any():
        return
    rows, columns = window(mask)
    height, width = rows.stop - rows.start, columns.stop - columns.start
    colour = np.array(HUES[label], np.float32) + rng.uniform(-60, 60, 3).astype(np.float32)
    depth = np.float32({"sky": 30, "vegetation": 130}.get(label, 60))
    cells = max(2, round(height / GRAIN[label]))
    texture = colour + depth * (noise(rng, height, width, cells) - 0.5)[..., None]
    if label == "building":  # small windows
        pose = Pose(np.array(polygon[0], float), np.eye(2) * rng.uniform(10, 18))
        texture = 0.7 * texture + 0.3 * surface(rng, panes, pose, rows, columns, 60)
    if label == "sidewalk":  # kerb stones
        x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
        texture[((x + y) % 14 < 1) | (y % 7 < 1)] *= np.float32(0.8)
    inside = mask[rows, columns]
    scene.image[rows, columns][inside] = texture[inside]
    scene.cover(Layer(label, polygon, mask))


def box(left: float, top: float, right: float, bottom: float) -> Polygon:
    """Return a rectangle with whole-number corners."""
    return [[round(x), round(y)] for x, y in ((left, top), (right, top), (right, bottom), (left, bottom))]


def crown(rng: np.random.Generator, centre: Points, radius: float) -> Polygon:
    """Return an uneven round outline, e.g. of a tree."""
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    reach = radius * rng.uniform(0.7, 1.1, 12)
    return np.rint(np.stack([reach * np.cos(angles), reach * np.sin(angles)], 1) + centre).astype(int).tolist()


def draw_street(
    rng: np.random.Generator, object_class: Shape, width: int, height: int, count: int, crowd: bool
) -> Scene:
    """Draw a street with up to ``count`` objects, one of them of ``object_class``; ``crowd`` adds a distant crowd."""
    scene = Scene(np.zeros((height, width, 3), np.float32))
    horizon = height * rng.uniform(0.35, 0.5)
    lay(scene, rng, "sky", box(0, 0, width - 1, height - 1))
    for _ in range(int(rng.integers(2, 5))):
        left = rng.uniform(-0.1, 0.9) * width
        lay(scene, rng, "building", box(left, rng.uniform(0.05, 0.8) * horizon, left + rng.uniform(40, 90), height))
    for _ in range(int(rng.integers(1, 5))):
        centre = np.array([rng.uniform(0, width), horizon - rng.uniform(-4, 14)])
        lay(scene, rng, "vegetation", crown(rng, centre, rng.uniform(12, 30)))
    lay(scene, rng, "sidewalk", box(0, horizon, width - 1, height - 1))
    vanishing, near = rng.uniform(0.3, 0.7) * width, rng.uniform(0.0, 0.25, 2) * width
    top = [[round(vanishing + 14), round(horizon)], [round(vanishing - 14), round(horizon)]]
    lay(scene, rng, "road", [*top, [round(-near[0]), height - 1], [round(width - 1 + near[1]), height - 1]])
    for _ in range(int(rng.integers(1, 4))):
        add_clutter(scene, rng, rng.uniform(14, 40))
    if crowd:
        members = OBJECT_CLASSES[rng.integers(len(OBJECT_CLASSES))]
        middle = rng.uniform(0.2, 0.8) * width
        for _ in range(6):
            centre = np.array([middle + rng.uniform(-28, 28), horizon + rng.uniform(-4, 12)])
            add_object(scene, rng, members, centre, rng.uniform(16, 24), crowd=True)
    depths = np.sort(rng.uniform(0, 1, count))  # distant objects first
    first = rng.integers(count)
    for number, depth in enumerate(depths):
        chosen = object_class if number == first else OBJECT_CLASSES[rng.integers(len(OBJECT_CLASSES))]
        for _ in range(TRIES * 4 if number == first else TRIES):
            centre = np.array([rng.uniform(0.05, 0.95) * width, horizon + (0.1 + 0.6 * depth) * (height - horizon)])
            if add_object(scene, rng, chosen, centre, (40 + 40 * depth) * rng.uniform(0.9, 1.1)):
                break
    if rng.random() < 0.5:
        add_clutter(scene, rng, rng.uniform(15, 35))
    hood = height - int(rng.integers(4, 8))  # the bonnet of the camera's car, which the evaluation ignores
    bonnet = [[-1, height], [round(0.2 * width), hood], [round(0.8 * width), hood], [width, height]]
    mask = scene.fill(bonnet)
    scene.image[mask] = two_colours(rng)[0]
    scene.cover(Layer("ego vehicle", bonnet, mask))
    light_up(scene, rng)
    return scene

"""Single-object discovery: CorLoc of LOST and TokenCut, from the last map of any backbone.

CorLoc is the share of pictures in which the one box that is found has an IoU of at least 0.5 with any annotated box. All
annotated boxes count, also difficult and truncated ones.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pixbench.errors import UserError
from pixbench.files import write_text
from transfer.datasets.report import Report
from transfer.datasets.voc import read
from transfer.frozen import one_object
from transfer.frozen.limits import need
from transfer.frozen.method import Measured, Run, Split
from transfer.kept import Kept
from transfer.weights.vit_spec import VitSpec

SPLITS = ("train",)
MOST_CELLS = 8192
"""Largest map; all pairs of its cells are compared at once."""
KEYS = "the last map, layer-normalised, instead of the keys of the last attention layer of a ViT"


@dataclass(frozen=True)
class Settings:
    """What decides the boxes besides the features."""

    layer_norm: bool = True
    """Whether each map is normalised as a whole, as LOST does it with convolutional networks."""
    k_patches: int = 100
    """LOST: number of cells of lowest degree from which the seed is expanded."""
    tau: float = 0.2
    """TokenCut: cosine above which two cells are joined."""
    eps: float = 1e-5
    """TokenCut: weight of an edge between cells that are not joined."""
    iou: float = 0.5
    """Overlap from which a box is right."""

    def __post_init__(self) -> None:
        need(self, "k_patches", least=1)
        need(self, "tau", least=-1, below=1)
        need(self, "eps", above=0, below=1)
        need(self, "iou", above=0, most=1)


def evaluate(splits: dict[str, Split], settings: Settings, run: Run) -> Measured:
    """Return the CorLoc of both methods in per cent, and write their boxes to ``run.out / "boxes.csv"``."""
    train = splits["train"]
    _check_size(train)
    rows, pictures = [], 0
    for index, path in enumerate(train.views.scenes.truths):
        boxes = annotated(path)
        if not len(boxes):
            continue
        pictures += 1
        for method, box in discovered(train, index, settings, run.device).items():
            best = float(one_object.overlaps(box, boxes).max())
            rows.append((train.views.scenes.pictures[index].stem, method, best, box))
    if not pictures:
        raise UserError(f"no picture of {train.views.scenes.name} has an annotated box; there is nothing to discover")
    _write_boxes(run, rows)
    metrics = {
        f"corloc_{method}": 100 * sum(best >= settings.iou for _, name, best, _ in rows if name == method) / pictures
        for method in ("lost", "tokencut")
    }
    kept = Kept()
    right = {
        f"corloc_{method}": np.array([100.0 * (best >= settings.iou) for _, name, best, _ in rows if name == method])
        for method in ("lost", "tokencut")
    }
    kept.add_values(list(dict.fromkeys(image for image, *_ in rows)), right)
    without = {
        method: sum(box is None for _, name, _, box in rows if name == method) for method in ("lost", "tokencut")
    }
    facts = {
        "pictures_with_boxes": pictures,
        "pictures_without_boxes": len(train) - pictures,
        "found_nothing": without,
        "cells_per_map": train.features.starts[-1] / len(train),
    }
    return Measured(metrics, facts, deviations(run), kept)


def deviations(run: Run) -> tuple[str, ...]:
    """Return what differs from the publications for the backbone of ``run``."""
    return (f"{KEYS} (LOST, TokenCut)",) if isinstance(run.spec, VitSpec) else (f"{KEYS} (TokenCut)",)


def annotated(path: Path) -> np.ndarray:
    """Return the boxes (n, 4) of a VOC annotation: x1, y1, x2, y2 in pixels from the corner of the picture."""
    report = Report()
    annotation = read(path, report)
    if annotation is None:
        raise UserError(report.problems[0])
    boxes = [thing.box for thing in annotation.things]
    return np.array(boxes, dtype=np.float64).reshape(-1, 4) - (1, 1, 0, 0)  # VOC counts from 1, both ends included


def discovered(split: Split, index: int, settings: Settings, device: torch.device) -> dict[str, np.ndarray | None]:
    """Return the box of picture ``index`` in its own pixels, for each method; None if it finds none."""
    features = split.features
    shape, views = features.shapes[index], split.views
    cells = features.map(index).to(device).flatten(0, 1)
    products = one_object.affinity(one_object.layer_norm(cells) if settings.layer_norm else cells)
    masks = {
        "lost": one_object.lost(products, shape, settings.k_patches),
        "tokencut": one_object.token_cut(products, shape, settings.tau, settings.eps),
    }
    seen = views.shape(index)
    scale = np.array(views.scenes.size(index) * 2) / np.array(seen[::-1] * 2)
    found = {name: one_object.box_of(mask, features.stride, seen) for name, mask in masks.items()}
    return {name: None if box is None else box * scale for name, box in found.items()}


def _check_size(split: Split) -> None:
    largest = max(range(len(split)), key=lambda index: np.prod(split.features.shapes[index]))
    height, width = split.features.shapes[largest]
    if height * width > MOST_CELLS:
        raise UserError(
            f"{split.views.scenes.pictures[largest]} has a map of {width} × {height} cells, but pairs of at most {MOST_CELLS} "
            "cells are compared; make the pictures smaller: --set images.resize=shorter --set images.size=480"
        )


def _write_boxes(run: Run, rows: list[tuple[str, str, float, np.ndarray | None]]) -> None:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["image", "method", "iou", "x1", "y1", "x2", "y2"])
    for name, method, best, box in rows:
        writer.writerow([name, method, f"{best:.4f}", *([""] * 4 if box is None else (f"{at:g}" for at in box))])
    write_text(run.out / "boxes.csv", table.getvalue())

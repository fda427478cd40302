"""Keep the two views of a few images of the first step, their boxes and their positive pairs, for the report of the run.

Shapes: S images; (H, W) map of cells, cell index y·W + x; P positive pairs.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pixbench.errors import UserError, explain
from pixbench.file_versions import VIEWS_FILE
from pixbench.results import write_arrays
from pixbench.thumbnails import small, to_jpeg
from pretrain.data.views import Views
from pretrain.log.pictures import IMAGES, overlap, to_uint8
from pretrain.log.screen import tell
from pretrain.losses.geometry import cell_distances
from pretrain.models.families import map_stride
from pretrain.run import Run


def keep_views(run: Run, views: Views) -> None:
    """Write what `view_samples` returns into the folder of ``run``. An image that cannot be read again does not stop the run."""
    try:
        write_arrays(run.out / VIEWS_FILE, view_samples(run, views))
    except (UserError, OSError) as error:
        tell(f"the views of the first step are not kept for the report ({explain(error)})")


def view_samples(run: Run, views: Views) -> dict[str, np.ndarray]:
    """Return the first images of a batch as arrays.

    Returns:
        "images" (S,), names; "cells" (), H = W of C5; "threshold" (), NaN if the method has none. Of each image i: "picture_i",
        "view1_i" and "view2_i", the bytes of JPEG files; "boxes_i" (2, 4) float32, as in `pretrain.data.views`;
        "common_i" (2, 4), what the other view shows of each view: left, top, right, bottom in shares of its side, NaN if nothing;
        and, if there is a threshold, "pairs_i", see `positive_pairs`.
    """
    few = {name: part[:IMAGES] for name, part in views._asdict().items() if part is not None}
    views = views._replace(**few).ready()
    threshold = getattr(run.config.method.settings, "threshold", None)
    cells = -(-run.config.data.image_size // map_stride(run.config.backbone))
    indices = views.image_index.tolist()
    arrays = {
        "images": np.array([run.source.names[index] for index in indices], str),
        "cells": np.array(cells),
        "threshold": np.array(math.nan if threshold is None else threshold),
    }
    for number, index in enumerate(indices):
        boxes = views.box1[number].double().cpu(), views.box2[number].double().cpu()
        arrays[f"picture_{number}"] = to_jpeg(small(run.source.load(index)))
        for name, view in (("view1", views.view1[number]), ("view2", views.view2[number])):
            arrays[f"{name}_{number}"] = to_jpeg(Image.fromarray(to_uint8(view)))
        arrays[f"boxes_{number}"] = np.stack([box.numpy() for box in boxes]).astype(np.float32)
        common = [overlap(box, other) or (math.nan,) * 4 for box, other in (boxes, boxes[::-1])]
        arrays[f"common_{number}"] = np.array(common, np.float32)
        if threshold is not None:
            arrays[f"pairs_{number}"] = positive_pairs(*boxes, cells, threshold)
    return arrays


def positive_pairs(box1: Tensor, box2: Tensor, cells: int, threshold: float) -> np.ndarray:
    """Return the cells of view 1 and view 2 that are a positive pair, (P, 2) int32: cell by cell of view 1, the nearest first."""
    distances = cell_distances(box1[None], box2[None], (cells, cells))[0]
    order = distances.argsort(dim=1, stable=True)
    positive = (distances < threshold).gather(1, order)
    first = torch.arange(cells**2)[:, None].expand_as(order)
    return torch.stack((first[positive], order[positive]), dim=1).numpy().astype(np.int32)

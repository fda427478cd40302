"""The drawn views: cells and overlaps lie where the boxes say, also in flipped views."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import views

from pretrain.config import from_dict
from pretrain.data.batched import normalised
from pretrain.log.pictures import FADED, GAP, LEAST_SIDE, cell_colours, overlap, picture, to_uint8
from pretrain.losses.geometry import cell_centres, positive_mask
from pretrain.settings import RunConfig

BOXES = {
    "shifted": ((0.0, 0.0, 0.6, 0.6), (0.3, 0.2, 0.9, 0.8)),
    "flipped": ((0.0, 0.0, 0.6, 0.6), (0.9, 0.2, 0.3, 0.8)),
    "both flipped": ((0.6, 0.0, 0.0, 0.6), (0.9, 0.2, 0.3, 0.8)),
    "zoomed": ((0.1, 0.1, 0.9, 0.9), (0.4, 0.4, 0.6, 0.7)),
    "apart": ((0.0, 0.0, 0.3, 0.3), (0.6, 0.6, 0.9, 0.9)),
}


def config(method: str = "pixpro", size: int = 224) -> RunConfig:
    return from_dict({"method": {"name": method}, "data": {"root": "x", "image_size": size}})


@pytest.mark.parametrize("name", BOXES)
def test_cells_of_one_colour_show_the_same_place(name: str) -> None:
    box1, box2 = (torch.tensor(box, dtype=torch.float64) for box in BOXES[name])
    first, second = cell_colours(box1, box2, 7, 0.7)
    mask = positive_mask(box1[None], box2[None], (7, 7), 0.7)[0]
    assert [colour is not None for colour in first] == mask.any(1).tolist()
    assert [colour is not None for colour in second] == mask.any(0).tolist()
    own = [colour for colour in first if colour]
    assert len(set(own)) == len(own), "each cell of view 1 has a colour of its own"
    (x1, y1), (x2, y2) = (cell_centres(box[None], (7, 7)) for box in (box1, box2))
    for cell, colour in enumerate(second):
        if colour:
            partner = first.index(colour)
            assert mask[partner, cell]
            distance = (x1[0] - x2[0, cell]) ** 2 + (y1[0] - y2[0, cell]) ** 2
            assert distance[partner] == pytest.approx(distance.min())
    assert any(first) == any(second) == (name != "apart")


@pytest.mark.parametrize("name", BOXES)
def test_an_overlap_is_the_same_part_of_the_image_in_both_views(name: str) -> None:
    box1, box2 = (torch.tensor(box, dtype=torch.float64) for box in BOXES[name])
    found = []
    for box, other in ((box1, box2), (box2, box1)):
        part = overlap(box, other)
        if name == "apart":
            assert part is None
            return
        assert part is not None
        assert 0 <= part[0] < part[2] <= 1
        assert 0 <= part[1] < part[3] <= 1
        x = sorted(float(box[0] + end * (box[2] - box[0])) for end in part[::2])
        y = sorted(float(box[1] + end * (box[3] - box[1])) for end in part[1::2])
        found.append([*x, *y])
    assert found[0] == pytest.approx(found[1])


def test_a_flipped_view_is_drawn_mirrored() -> None:
    """View 2 shows what view 1 shows, flipped: so its cells have the colours of view 1 in mirrored order."""
    batch = views(1, size=224)
    box = torch.tensor([[0.2, 0.3, 0.7, 0.8]])
    flat = torch.zeros_like(batch.view1)
    batch = batch._replace(view1=flat, view2=flat, box1=box, box2=box[:, [2, 1, 0, 3]])
    drawn = picture(config(), batch).astype(int)
    assert drawn.shape == (224, 2 * 224 + GAP, 3)
    assert (drawn[:, 224 : 224 + GAP] == 255).all()
    left, right = drawn[:, :224], drawn[:, 224 + GAP :]
    assert np.array_equal(left, right[:, ::-1])
    assert not np.array_equal(left, right)
    # the frame of the cell in row 2, column 5 is where that cell is, and inside is the view
    row, column = 2 * 32, 5 * 32
    grey = to_uint8(flat[0])[0, 0]
    assert (left[row, column : column + 32] == left[row, column]).all()
    assert (left[row + 16, column + 16] == grey).all()


def test_cells_without_a_partner_are_faded() -> None:
    batch = views(1, size=224)
    flat = torch.zeros_like(batch.view1)
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5]]), torch.tensor([[0.0, 0.25, 0.5, 0.75]])
    batch = batch._replace(view1=flat, view2=flat, box1=boxes[0], box2=boxes[1])
    for method in ("pixpro", "byol"):
        drawn = picture(config(method), batch).astype(int)
        grey = to_uint8(flat[0])[0, 0].astype(int)
        white = grey + FADED * (255 - grey)
        assert np.abs(drawn[16, 112] - white).max() <= 1, "the upper half of view 1 is not in view 2"
        assert np.abs(drawn[224 - 16, 112] - grey).max() <= 1
        assert np.abs(drawn[16, 224 + GAP + 112] - grey).max() <= 1
        assert np.abs(drawn[224 - 16, 224 + GAP + 112] - white).max() <= 1


def test_the_pixels_are_those_of_the_view() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    raw = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    assert np.array_equal(to_uint8(normalised(raw)[0]), pixels)
    batch = views(1, size=224)._replace(view1=raw, view2=raw)  # as the loader gives it
    drawn = picture(config(), batch)
    ready = batch._replace(view1=normalised(raw), view2=normalised(raw))
    assert np.array_equal(drawn, picture(config(), ready))


@pytest.mark.parametrize(("size", "images"), [(32, 6), (64, 2), (225, 1)])
def test_other_sizes(size: int, images: int) -> None:
    side = size * -(-LEAST_SIDE // size)
    rows = min(images, 4)
    run = config("pixcontrast", size)
    run = replace(run, backbone=replace(run.backbone, output_stride=16))
    assert picture(run, views(images, size)).shape == (rows * side + (rows - 1) * GAP, 2 * side + GAP, 3)

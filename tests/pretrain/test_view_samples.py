"""The views that a run keeps: their boxes, and the pairs that follow from them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pretrain.data.loader import Batches, ViewLoader
from pretrain.data.views import Views
from pretrain.engine import open_views
from pretrain.log.view_samples import keep_views, view_samples
from pretrain.run import Run, build
from pretrain.settings import RunConfig


def first_batch(config: RunConfig) -> tuple[Run, Views]:
    run = build(config, torch.device("cpu"), None, None)
    batches = Batches(run.order, config.batch_size, seed=config.seed, first=0, last=1)
    return run, next(iter(ViewLoader(open_views(run), batches)))


def opened(content: np.ndarray) -> np.ndarray:
    with Image.open(io.BytesIO(content.tobytes())) as picture:
        return np.asarray(picture, np.float64)


def centres(box: np.ndarray, cells: int) -> np.ndarray:
    """Centres (N, 2) of the cells of a view, in the image."""
    places = (np.arange(cells) + 0.5) / cells
    x, y = box[0] + places * (box[2] - box[0]), box[1] + places * (box[3] - box[1])
    return np.stack([np.tile(x, cells), np.repeat(y, cells)], 1)


@pytest.mark.parametrize(("method", "threshold"), [("pixpro", 0.7), ("byol", None)])
def test_pairs_and_boxes_of_the_first_step(
    tiny: Callable[..., RunConfig], method: str, threshold: float | None
) -> None:
    run, views = first_batch(tiny("run", method))
    before = views.view1.clone()
    found = view_samples(run, views)
    assert torch.equal(views.view1, before)
    assert found["images"].tolist() == [run.source.names[index] for index in views.image_index[:4].tolist()]
    cells = int(found["cells"])
    assert cells == 2  # 32 pixels, 16 a cell
    for number in range(4):
        one, other = boxes = found[f"boxes_{number}"].astype(np.float64)
        assert np.array_equal(found[f"boxes_{number}"], torch.stack((views.box1[number], views.box2[number])).numpy())
        assert opened(found[f"picture_{number}"]).shape == (36, 40, 3)
        assert opened(found[f"view1_{number}"]).shape == opened(found[f"view2_{number}"]).shape == (32, 32, 3)
        assert (f"pairs_{number}" in found) == (threshold is not None)
        if threshold is None:
            continue
        unit = max(np.hypot(box[2] - box[0], box[3] - box[1]) / cells for box in boxes)
        distances = np.linalg.norm(centres(one, cells)[:, None] - centres(other, cells)[None], axis=2) / unit
        pairs = found[f"pairs_{number}"]
        assert np.array_equal(np.argwhere(distances < threshold), np.array(sorted(pairs.tolist())).reshape(-1, 2))
        ordered = [(cell, distances[cell, partner]) for cell, partner in pairs.tolist()]
        assert ordered == sorted(ordered)  # the nearest partner of each cell comes first


def test_an_image_that_is_gone_after_its_first_step_does_not_stop_the_run(
    tiny: Callable[..., RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    run, views = first_batch(tiny("run"))
    run.out.mkdir()
    Path(run.source.where(int(views.image_index[1]))).unlink()
    keep_views(run, views)
    assert "the views of the first step are not kept for the report" in capsys.readouterr().out
    assert not any(run.out.iterdir())


def test_what_is_common_is_the_same_part_of_the_image(tiny: Callable[..., RunConfig]) -> None:
    found = view_samples(*first_batch(tiny("run", "byol")))
    seen = 0
    for number in range(4):
        parts = [
            box[[0, 1, 0, 1]] + common * (box[[2, 3, 2, 3]] - box[[0, 1, 0, 1]])
            for box, common in zip(found[f"boxes_{number}"], found[f"common_{number}"], strict=True)
        ]
        if not np.isnan(parts).any():
            ordered = [np.sort(part.reshape(2, 2), axis=0) for part in parts]
            assert ordered[0] == pytest.approx(ordered[1], abs=1e-5)
            seen += 1
    assert seen > 0

"""A part of a batch with one image is refused at the start, or it is trained with a loss that is not zero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import VIT

from pixbench.errors import UserError
from pretrain import run as runs
from pretrain.config import from_dict
from pretrain.data.loader import ViewLoader
from pretrain.data.two_views import TwoViews
from pretrain.methods import METHODS
from pretrain.part_size import advice, check_part
from pretrain.settings import RunConfig
from pretrain.step import train_step

Tree = Callable[..., Path]
SIZES = {"hidden": 8, "dim": 8, "queue_size": 8, "channels": 32, "classes": 2}
VARIANTS: dict[str, list[dict[str, Any]]] = {
    **{name: [{"instance": kind} for kind in ("none", "contrastive", "regression")] for name in ("pixcontrast",)},
    **{
        name: [{"instance": kind} for kind in ("none", "contrastive", "regression")]
        for name in METHODS
        if "pro" in name
    },
    "pixpro": [*({"instance": kind} for kind in ("none", "contrastive", "regression")), {"layers": 2}],
    "cds": [{"contrast": "supcon"}, {"contrast": "simclr"}, {"last_stage": True, "semi_supervised": True}],
}
CASES = [(name, variant) for name in METHODS for variant in VARIANTS.get(name, [{}])]


def config(name: str, variant: dict[str, Any], root: Path = Path("images"), **changes: Any) -> RunConfig:
    known = {field.name for field in fields(METHODS[name].Config)}
    return from_dict(
        {
            "method": {"name": name, **{key: value for key, value in SIZES.items() if key in known}, **variant},
            "data": {"root": str(root), "image_size": 32, "min_scale": 0.5, "workers": 0, "recipe": "moco_v2"},
            "backbone": VIT.as_dict() if METHODS[name].needs_tokens else {"depth": 18, "width": 0.0625},
            "schedule": {"warmup_epochs": 0},
            **{"epochs": 1, "batch_size": 1, "out": str(root / "out"), **changes},
        }
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "size", [32, *(pytest.param(n, marks=pytest.mark.e2e) for n in (64, 96))], ids="image_size={}".format
)
@pytest.mark.parametrize(("name", "variant"), CASES, ids=str)
def test_one_image_is_refused_or_has_a_loss(name: str, variant: dict[str, Any], size: int, image_tree: Tree) -> None:
    """And what is refused with one image has a loss with two, unless C5 has too few cells."""
    losses, refused = {}, {}
    for images in (1, 2):
        of_two = config(name, variant, image_tree(2, 2, name=f"images{images}"), batch_size=images)
        of_two = replace(of_two, data=replace(of_two.data, image_size=size))
        try:
            run = runs.setup(of_two, torch.device("cpu"))
        except UserError as error:
            refused[images] = str(error)
            continue
        views = TwoViews(run.source, size=size, scale=(0.5, 1.0), recipe="moco_v2", seed=0, cache=False)
        run.model.train()
        batch = next(iter(ViewLoader(views, runs.batches(of_two, run.order, 0, 1))))
        losses[images] = {key: abs(float(value)) for key, value in train_step(run, batch).items() if "loss" in key}
        assert all(0 < value < float("inf") for key, value in losses[images].items()), losses
    assert all("batch norm in" in said or "compares" in said for said in refused.values())
    assert 2 in losses or (name, size) == ("pixcontrast", 32)


@pytest.mark.parametrize(
    ("name", "variant", "sentence"),
    [
        (
            "simclr",
            {},
            "simclr compares images of one part of a batch with one another, so a part needs at least 2 images",
        ),
        ("cds", {}, "cds compares images"),
        ("pixpro", {"instance": "contrastive"}, "pixpro compares images"),
        (
            "byol",
            {},
            r"batch norm in byol .* needs at least 2 images; it has 1 .*: raise batch_size or lower accumulate$",
        ),
        ("pixpro", {}, r"batch norm in pixpro .*or raise data\.image_size, with which C5 has 1 cell$"),
        ("pixcontrast", {}, r"pixcontrast compares the cells of C5"),
    ],
)
def test_sentences(name: str, variant: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        check_part(config(name, variant), 1, synchronised=False)


def test_parts_are_counted_over_processes_and_accumulated_parts() -> None:
    two = config("byol", {}, batch_size=2)
    check_part(two, 1, synchronised=False)
    check_part(two, 2, synchronised=True)
    with pytest.raises(UserError, match=r"in each process; it has 1 \(batch_size 2 / 2 processes / accumulate 1\)"):
        check_part(two, 2, synchronised=False)
    with pytest.raises(UserError, match=r"\(batch_size 2 / 1 process / accumulate 2\)"):
        check_part(replace(two, accumulate=2), 1, synchronised=False)
    check_part(config("simclr", {}, batch_size=2), 2, synchronised=False)  # negatives come from the other process
    check_part(config("simclr", {}, batch_size=4, accumulate=2), 1, synchronised=False)
    with pytest.raises(UserError, match="compares images"):
        check_part(config("simclr", {}, batch_size=4, accumulate=4), 1, synchronised=False)


def test_warnings() -> None:
    queue = config("moco_v2", {"queue_size": 64}, batch_size=4)
    assert advice(queue, np.array([0, 1] * 32)) == []
    (said,) = advice(queue, np.array([0] * 5 + [1] * 4))
    assert "the queue has 64 keys, but there are only 9 images" in said
    assert said.endswith("set method.queue_size to 8 or less")
    (said,) = advice(config("supervised", {}), np.array([3] * 9))
    assert "all images are of one class" in said
    assert advice(config("pixpro", {}), np.array([3] * 9)) == []
    with pytest.raises(UserError, match=r"method\.classes is 1; it must be at least 2"):
        METHODS["supervised"](torch.nn.Identity(), METHODS["supervised"].Config(classes=1), 1)  # type: ignore[arg-type]

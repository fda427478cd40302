"""Settings that would give a number without a meaning, or a traceback, are refused in one sentence."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from pixbench.errors import UserError
from transfer.frozen.config import resolve
from transfer.job import TransferJob
from transfer.protocols import find_protocol, protocols

IMPOSSIBLE: dict[str, dict[str, tuple[Any, ...]]] = {
    "imagenet_probe": {
        "settings.neighbours": (0, -1),
        "settings.temperature": (0, -1, math.nan, math.inf),
        "settings.l2": (-1, math.nan),
        "settings.iterations": (0,),
        "images.size": (0, -5),
        "images.std": ([0, 0, 0], [1, -1, 1]),
        "images.output_stride": (0,),
        "images.pool": (False,),
    },
    "voc07_discovery": {
        "settings.k_patches": (0, -1),
        "settings.tau": (1, -2),
        "settings.eps": (0, -1, 1),
        "settings.iou": (0, -1, 1.1),
        "images.output_stride": (0,),
    },
    "voc12aug_foreground": {
        "settings.clusters": (0,),
        "settings.components": (0,),
        "settings.iterations": (0,),
        "settings.restarts": (0,),
        "settings.mass": (-1, 0, 2),
        "settings.blur": (0,),
        "settings.smallest": (0,),
        "settings.background": ([-1, 0.5], [0.5, 2], [0.7, 0.6]),
        "settings.compare_at": (0,),
    },
    "ade20k_incontext": {
        "settings.neighbours": (0,),
        "settings.temperature": (0, math.nan),
        "settings.memory_size": (0,),
        "settings.passes": (-1,),
        "settings.crop_scale": ([0, 1], [2, 1]),
        "settings.crop_ratio": ([0, 1], [2, 1]),
        "settings.jitter": (-0.1, 0.6),
        "settings.jitter_probability": (-0.1, 1.1),
        "settings.score_at": (0,),
    },
    "ade20k_knn": {
        "settings.neighbours": ([0, 1], [128], [3, 1], []),
        "settings.distances": ([],),
        "settings.subsampling": (0,),
        "settings.held_out": (0, 1),
        "settings.score_at": (0, -1),
    },
    "ade20k_logistic": {
        "settings.exponents": ([-6, 5, 0], [-400, 5, 8], [-6, math.inf, 8]),
        "settings.iterations": (0,),
        "settings.tolerance": (-1, math.nan),
        "settings.subsampling": (0,),
        "settings.held_out": (0, 1),
        "settings.score_at": (0,),
    },
    "ade20k_overcluster": {
        "settings.clusters": (0,),
        "settings.components": (0,),
        "settings.iterations": (0,),
        "settings.restarts": (0,),
        "settings.runs": (0,),
        "settings.batch": (0,),
        "settings.score_at": (0,),
    },
    "ade20k_statistics": {
        "settings.cells": (0,),
        "settings.epsilon": (0, -1),
        "settings.first_rank": (0,),
        "settings.last_rank": (6,),
        "settings.uniformity_cells": (1,),
        "settings.t": (0, -5),
        "settings.pairs": (1,),
        "settings.crop_low": (0, 0.9),
        "settings.crop_high": (0.4, 2, math.nan),
        "settings.purity": (0, 2),
        "settings.distance": (0,),
        "settings.curve_cells": (0,),
    },
}
"""Protocol -> key -> values that are not possible."""


def resolved(name: str, **overrides: Any) -> Any:
    return resolve(TransferJob(find_protocol(name), Path(), Path(), overrides=overrides))


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [(name, key, value) for name, keys in IMPOSSIBLE.items() for key, values in keys.items() for value in values],
)
def test_an_impossible_setting_is_refused(name: str, key: str, value: Any) -> None:
    with pytest.raises(UserError) as caught:
        resolved(name, **{key: value})
    said, last = str(caught.value), key.split(".")[1]
    assert last in said
    assert all(part.lower() in said for part in str(value).strip("[]").split(", "))
    assert any(words in said for words in ("is not possible; give ", "must be shares in order", "set it to true"))


def test_what_a_sentence_says() -> None:
    with pytest.raises(UserError, match=r"settings\.mass 2\.0 is not possible; give a number above 0 and of at most 1"):
        resolved("voc12aug_foreground", **{"settings.mass": 2})
    with pytest.raises(UserError, match=r"images\.std \[0\.0, 0\.0, 0\.0\] is not possible; give numbers above 0"):
        resolved("imagenet_probe", **{"images.std": [0, 0, 0]})
    with pytest.raises(
        UserError, match=r"settings\.score_at 0 is not possible; give full, input, or a number of at least 1"
    ):
        resolved("ade20k_knn", **{"settings.score_at": 0})


@pytest.mark.parametrize("name", [name for name in IMPOSSIBLE if name != "imagenet_probe"])
@pytest.mark.parametrize("override", [{"images.pool": True}, {"images.resize": "centre"}])
def test_methods_of_cells_need_whole_maps(name: str, override: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="compares the cells of whole pictures"):
        resolved(name, **override)


def test_each_number_of_each_method_is_tried() -> None:
    """A new setting must be entered above, unless all of its values are possible or are judged elsewhere."""
    free = {"ignored_is_class", "layer_norm", "standardise", "ignored", "masks", "matching", "absent_counts"}
    for name, keys in IMPOSSIBLE.items():
        content = yaml.safe_load(find_protocol(name).config.read_text(encoding="utf-8"))
        assert {key.split(".")[1] for key in keys if key.startswith("settings.")} >= set(content["settings"]) - free


def test_published_configs_are_possible() -> None:
    for protocol in protocols().values():
        if protocol.framework == "frozen":
            resolve(TransferJob(protocol, Path(), Path(), scale="mini"))

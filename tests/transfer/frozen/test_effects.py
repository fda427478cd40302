"""Settings without an effect are refused, so that no deviation is recorded that changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pixbench.errors import UserError
from pretrain.models.backbone_spec import BackboneSpec
from transfer.frozen.config import resolve
from transfer.job import TransferJob
from transfer.protocols import find_protocol
from transfer.run import deviations
from transfer.weights.vit_spec import VitSpec

KEEPS = "keeps the size of pictures"
ONE_K = {"settings.neighbours": [3], "settings.distances": ["cosine"]}
IDLE: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("voc07_discovery", {}, {"images.size": 448}, f"images.resize padded {KEEPS}"),
    ("voc07_discovery", {}, {"images.interpolation": "bicubic"}, f"images.resize padded {KEEPS}"),
    ("ade20k_knn", {"images.resize": "native"}, {"images.size": 448}, f"images.resize native {KEEPS}"),
    ("imagenet_probe", {"images.resize": "native"}, {"images.size": 448}, f"images.resize native {KEEPS}"),
    ("imagenet_probe", {}, {"images.interpolation": "bicubic"}, "images.resize centre has a filter of its own"),
    ("ade20k_incontext_public", {"settings.passes": 0}, {"settings.crop_scale": [0.1, 1]}, "settings.passes is 0"),
    ("ade20k_incontext", {"settings.jitter": 0}, {"settings.jitter_probability": 0.1}, "settings.jitter is 0"),
    ("ade20k_incontext", {"settings.jitter_probability": 0}, {"settings.jitter": 0.3}, "jitter_probability is 0"),
    ("voc12aug_incontext", {}, {"settings.list_seed": 43}, "settings.fraction is 1"),
    ("ade20k_statistics", {"images.resize": "native"}, {"images.size": 448}, f"images.resize native {KEEPS}"),
    ("ade20k_knn", ONE_K | {"settings.standardise": False}, {"settings.held_out": 5}, "there is nothing to choose"),
    (
        "ade20k_logistic",
        {"settings.exponents": [0, 0, 1], "settings.standardise": False},
        {"settings.held_out": 5},
        "there is nothing to choose",
    ),
]
"""Protocol, settings that have an effect, one that has none beside them, and the reason."""


def job(name: str, scale: str = "paper", **overrides: Any) -> TransferJob:
    return TransferJob(find_protocol(name), Path(), Path(), scale=scale, overrides=overrides)


@pytest.mark.parametrize(("name", "others", "idle", "why"), IDLE)
def test_a_setting_without_effect_is_refused(name: str, others: dict[str, Any], idle: dict[str, Any], why: str) -> None:
    resolve(job(name, **others))
    ((key, _),) = idle.items()
    with pytest.raises(UserError, match=rf"{key} has no effect on {name}, because .*{why}.*; leave it out"):
        resolve(job(name, **others, **idle))


def test_it_is_possible_where_it_has_an_effect() -> None:
    resolve(job("ade20k_knn", **{"images.size": 448}))
    resolve(job("ade20k_knn", **ONE_K, **{"settings.held_out": 5}))
    resolve(job("ade20k_statistics", **{"images.resize": "native", "images.interpolation": "bilinear"}))
    resolve(job("voc12aug_incontext_public", **{"settings.passes": 1, "settings.jitter": 0.3}))
    crops_are_resized = {"images.resize": "native", "settings.passes": 1, "images.size": 448}
    resolve(job("ade20k_incontext", **crops_are_resized))
    resolve(job("voc07_discovery", **{"images.size": 224}))  # as published


def test_a_vit_has_no_other_stride() -> None:
    one = job("voc12aug_overcluster", **{"images.output_stride": 8})
    resolve(one)
    resolve(one, BackboneSpec())
    with pytest.raises(UserError, match=r"images\.output_stride has no effect .*cells of a ViT are its patches"):
        resolve(one, VitSpec())
    assert resolve(job("voc12aug_overcluster"), VitSpec()).images.output_stride == 16  # as published


def test_sizes_of_the_mini_scale_without_effect_are_no_deviations() -> None:
    found = deviations(job("ade20k_knn", "mini", **{"images.resize": "native"}), {"images": {"size": 224}})
    own = [line for line in found if line.startswith(("settings.", "images."))]
    assert own == ["settings.subsampling 4", "images.resize native"]


@pytest.mark.parametrize(
    ("name", "key", "value", "possible"),
    [
        ("ade20k_knn", "images.size", "large", 'images.size "large" is not possible; give an integer'),
        ("ade20k_knn", "images.pool", 3, "images.pool 3 is not possible; give true or false"),
        ("ade20k_knn", "images.output_stride", [1], r"images.output_stride \[1\] .* an integer or null"),
        ("ade20k_knn", "images.resize", "crop", "images.resize \"crop\" .* squash or shorter or native or padded or centre"),
        ("ade20k_knn", "images.std", [1], r"images.std \[1\] .* a list of 3 values, each a number or null"),
        ("ade20k_knn", "settings.neighbours", ["a"], r'settings.neighbours \["a"\] .* a list of values, each an integer'),
        ("ade20k_knn", "settings.score_at", None, "settings.score_at null .* full or input or an integer"),
        ("ade20k_logistic", "settings.exponents", 3, "a list of 3 values, each a number or an integer"),
        ("voc12aug_incontext", "settings.train_list", 3, "settings.train_list 3 .* a text or null"),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_refused_in_words(name: str, key: str, value: Any, possible: str) -> None:
    with pytest.raises(UserError, match=rf"^{name} with its overrides: .*{possible}$") as caught:
        resolve(job(name, **{key: value}))
    assert "`" not in str(caught.value)

"""The frozen protocols on cells against the stored public definitions, field by field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from transfer.frozen.config import published
from transfer.protocols import find_protocol, leaves

PUBLIC = yaml.safe_load(Path(__file__).with_name("public_cells.yaml").read_text(encoding="utf-8"))
every = pytest.mark.parametrize("name", PUBLIC["protocols"])


def definition(name: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for file in PUBLIC["protocols"][name]:
        found |= PUBLIC["files"][file]["values"]
    return found


def config(name: str) -> dict[str, Any]:
    return dict(leaves(published(find_protocol(name)).as_dict()))


@every
def test_each_public_value_is_ours_or_a_listed_difference(name: str) -> None:
    ours, wrong = config(name), {}
    differs = {one["field"] for one in PUBLIC["differences"] if name in one["protocols"]}
    for field, value in definition(name).items():
        if field in differs or field in PUBLIC["fixed"]:
            continue
        wanted = PUBLIC["meaning"].get(field, {}).get(value, value) if not isinstance(value, list) else value
        found = ours.get(PUBLIC["names"][field])
        if found != wanted:
            wrong[field] = (wanted, found)
    assert wrong == {}


@every
def test_each_of_our_settings_has_a_public_counterpart(name: str) -> None:
    known = {PUBLIC["names"][field] for field in definition(name) if field in PUBLIC["names"]}
    extra = set(config(name)) - known - {"method", *PUBLIC["plumbing"]}
    if name in ("cityscapes_overcluster", "voc12aug_overcluster", "ade20k_overcluster"):
        extra -= set(config("voc12aug_overcluster"))  # what its own definition takes from Pascal VOC
    assert extra == set()


@pytest.mark.parametrize("entry", PUBLIC["differences"], ids=lambda entry: entry["field"])
def test_a_listed_difference_is_one(entry: dict[str, Any]) -> None:
    key = PUBLIC["names"].get(entry["field"])
    assert entry["reason"]
    for name in entry["protocols"]:
        value = definition(name)[entry["field"]]
        assert key is None or config(name)[key] != value


def test_cityscapes_is_evaluated_as_pascal_voc() -> None:
    assert config("cityscapes_knn") == config("voc12aug_knn") == config("ade20k_knn")
    ours, voc = config("cityscapes_overcluster"), config("voc12aug_overcluster")
    assert {key for key in voc if voc[key] != ours[key]} == {"settings.batch"}

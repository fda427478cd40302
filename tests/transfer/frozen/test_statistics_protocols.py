"""The label-free protocols as a whole: config, counts, what is not defined, and the mini world."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from given_features import labelled, other

from pixbench.errors import UserError
from pixbench.files import finite
from pretrain.models.backbone_spec import BackboneSpec
from transfer.frozen.config import published, resolve
from transfer.frozen.method import Run, Split
from transfer.frozen.methods import statistics
from transfer.frozen.methods.statistics import Settings, evaluate
from transfer.frozen.run import run
from transfer.initial_weights import random_backbone
from transfer.job import TransferJob
from transfer.protocols import find_protocol, leaves
from transfer.weights.vit_spec import VitSpec

PUBLIC = yaml.safe_load(Path(__file__).with_name("public_statistics.yaml").read_text(encoding="utf-8"))
NAMES = ("ade20k_statistics", "voc12aug_statistics", "cityscapes_statistics")
NOWHERE = Run(0, torch.device("cpu"), Path())


def splits_of(test: Split, maps: dict[str, Any]) -> dict[str, Split]:
    """Return all splits that the method reads, with ``maps`` for each."""
    found = {name: statistics.views(name, test.views, Settings(), 0) for name in statistics.SPLITS}
    return {name: other(test, maps[name], views) for name, views in found.items()}


def example(folder: Path, channels: int = 12, scale: float = 1.0, turn: np.ndarray | None = None) -> dict[str, Split]:
    """Return splits of four pictures of 8 × 8 cells with random features."""
    rng = np.random.default_rng(0)
    labels = [np.kron(rng.integers(0, 3, (4, 4)), np.ones((16, 16), int)) for _ in range(4)]
    turn = np.eye(channels) if turn is None else turn
    maps = {name: [scale * rng.random((8, 8, channels)) @ turn for _ in labels] for name in statistics.SPLITS}
    return splits_of(labelled(folder, maps["test"], labels, "background a b", 8), maps)


@pytest.mark.parametrize("name", NAMES)
def test_every_value_is_the_published_one_or_listed(name: str) -> None:
    config = dict(leaves(published(find_protocol(name)).as_dict()))
    public = dict(leaves({key: PUBLIC[key] for key in ("method", "images", "settings")}))
    assert set(config) == set(public)
    assert {key for key in config if config[key] != public[key]} == {"settings.cells"}
    assert PUBLIC["deviations"]["settings.cells"].startswith(str(config["settings.cells"]))


def test_all_numbers_are_there_with_their_counts(tmp_path: Path) -> None:
    found = evaluate(example(tmp_path / "data"), Settings(), NOWHERE)
    assert set(found.metrics) == set(find_protocol(NAMES[0]).metrics.values()) == set(statistics.WHY)
    assert found.facts["cells"] == {"all": 256, "spectra": 256, "uniformity": 256}
    assert found.facts["pairs"]["flip"] == 256
    assert 0 < found.facts["pairs"]["crop"] <= 256
    assert found.facts["curve_pictures"] == 4
    assert [point["pixels"] for point in found.facts["curve"]] == [8, 16, 24, 32, 40, 48, 56, 64]
    assert found.metrics["alignment"] == pytest.approx(2 - 2 * found.facts["cosine_same"]["crop"])
    assert found.facts["undefined"] == {}


def test_what_is_read_is_bounded(tmp_path: Path) -> None:
    settings = Settings(cells=100, uniformity_cells=30, pairs=40, curve_cells=140, last_rank=8)
    facts = evaluate(example(tmp_path / "data"), settings, NOWHERE).facts
    assert facts["cells"] == {"all": 256, "spectra": 100, "uniformity": 30}
    assert max(facts["pairs"].values()) <= 40
    assert facts["curve_pictures"] == 2
    assert facts["ranks"] == [6, 8]


def test_cells_are_drawn_by_the_seed_in_order() -> None:
    cells = torch.arange(1000.0)[:, None]
    drawn = statistics.drawn(cells, 100, 1)
    assert len(set(drawn[:, 0].tolist())) == 100
    assert (drawn.diff(dim=0) > 0).all()
    assert drawn.equal(statistics.drawn(cells, 100, 1))
    assert not drawn.equal(statistics.drawn(cells, 100, 2))
    assert statistics.drawn(cells, 2000, 1) is cells


def test_rotations_and_scales_change_no_metric(tmp_path: Path) -> None:
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(12, 12)))[0]
    first, *others = (
        evaluate(example(tmp_path / "data", scale=scale, turn=matrix), Settings(), NOWHERE).metrics
        for scale, matrix in ((1, None), (5, None), (1, turn))
    )
    for metrics in others:
        assert metrics == pytest.approx(first, abs=1e-9)


@pytest.mark.parametrize(
    ("value", "missing"),
    [
        (0.1, {"alpha_req"}),
        (0.0, {"rankme", "alpha_req"}),
    ],
)
def test_constant_features_are_no_crash(tmp_path: Path, value: float, missing: set[str]) -> None:
    splits = example(tmp_path / "data")
    splits = {
        name: replace(split, features=replace(split.features, cells=torch.full((256, 12), value)))
        for name, split in splits.items()
    }
    found = evaluate(splits, Settings(), NOWHERE)
    assert (
        {name for name, metric in found.metrics.items() if math.isnan(metric)}
        == missing
        == set(found.facts["undefined"])
    )
    assert found.metrics["sensitivity"] == pytest.approx(0, abs=1e-12)
    assert found.metrics["equivariance_crop"] == pytest.approx(0, abs=1e-12)
    json.dumps(finite([found.metrics, found.facts]), allow_nan=False)


def test_a_single_cell_has_no_pairs(tmp_path: Path) -> None:
    one = [np.ones((1, 1, 3))]
    test = labelled(tmp_path / "data", one, [np.zeros((8, 8))], "a", 8)
    found = evaluate(splits_of(test, dict.fromkeys(statistics.SPLITS, one)), Settings(), NOWHERE)
    assert found.metrics["rankme"] == pytest.approx(1, abs=1e-5)
    assert set(found.facts["undefined"]) == set(statistics.WHY) - {"rankme"}


def test_impossible_settings_are_refused(tmp_path: Path) -> None:
    job = TransferJob(find_protocol(NAMES[0]), tmp_path, tmp_path)
    with pytest.raises(UserError, match=r"crop_low 0\.9 and crop_high 0\.8"):
        resolve(replace(job, overrides={"settings.crop_low": 0.9}))
    with pytest.raises(UserError, match=r"settings\.distance 0 is not possible; give a number of at least 1"):
        resolve(replace(job, overrides={"settings.distance": 0}))


@pytest.mark.parametrize("override", [{"images.resize": "centre"}, {"images.pool": True}])
@pytest.mark.parametrize(
    "name", [NAMES[1], "voc12_discovery", "voc12aug_incontext", "ade20k_overcluster", "voc12aug_knn"]
)
def test_maps_of_no_whole_picture_are_refused(mini_root: Path, tmp_path: Path, name: str, override: dict) -> None:
    job = TransferJob(find_protocol(name), mini_root, tmp_path / "run", overrides=override, workers=0)
    with pytest.raises(UserError, match="cells of whole pictures"):
        run(job, random_backbone(BackboneSpec(18, 0.125), 0))
    assert not list(tmp_path.glob("run/*"))


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_on_the_mini_world_and_its_views_are_kept(mini_root: Path, tmp_path: Path, name: str) -> None:
    spec = VitSpec(width=16, depth=1, heads=2, patch=16, image=64) if name == NAMES[2] else BackboneSpec(18, 0.125)
    job = TransferJob(
        find_protocol(name), mini_root, tmp_path / "run", scale="mini", workers=0, cache=tmp_path / "cache"
    )
    outcomes = [run(job, random_backbone(spec, 0)) for _ in range(2)]
    assert outcomes[0].metrics == pytest.approx(outcomes[1].metrics, abs=0, nan_ok=True)
    assert set(outcomes[0].metrics) == set(find_protocol(name).metrics.values())
    assert list(outcomes[0].evaluation["pictures"]) == list(statistics.SPLITS)
    assert len(list((tmp_path / "cache").glob("*/features.bin"))) == 3  # the pictures, their parts, their mirror images
    outside = sum(point["outside_pairs"] for point in outcomes[0].evaluation["curve"])
    assert (outside > 0) == (name == "voc12aug_statistics")


def test_means_over_few_pairs_are_named() -> None:
    assert statistics.few_pairs({"alignment": 100, "sensitivity": 0}) == ""
    assert statistics.few_pairs({"alignment": 99, "smoothness": 3}).endswith("noisy: alignment 99, smoothness 3")

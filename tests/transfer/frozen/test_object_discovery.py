"""CorLoc on small sets with given features, the padded network, and the protocols as published."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from given_features import boxed

from pixbench.errors import UserError
from pixbench.files import finite
from pretrain.models.backbone_spec import BackboneSpec
from transfer.datasets.layout import SETS
from transfer.frozen.config import published
from transfer.frozen.method import Run
from transfer.frozen.methods import discovery
from transfer.frozen.methods.discovery import Settings, evaluate
from transfer.frozen.network import FrozenNetwork, last_map
from transfer.frozen.run import run
from transfer.frozen.views import Images, Views
from transfer.initial_weights import random_backbone
from transfer.job import TransferJob
from transfer.protocols import find_protocol, leaves
from transfer.weights.vit_spec import VitSpec

PUBLIC = yaml.safe_load(Path(__file__).with_name("public_discovery.yaml").read_text(encoding="utf-8"))
SMALL = {"resnet": BackboneSpec(depth=18, width=0.125), "vit": VitSpec(width=16, depth=1, heads=2, patch=14, image=56)}


def job(out: Path, spec: object = None) -> Run:
    return Run(0, torch.device("cpu"), out, spec)  # type: ignore[arg-type]


def one_hot(mask: np.ndarray) -> np.ndarray:
    return np.stack([mask, ~mask], -1).astype(np.float32)


def square(height: int, width: int, rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    mask[rows, columns] = True
    return mask


@pytest.mark.parametrize("name", ["voc07_discovery", "voc12_discovery"])
def test_every_value_is_the_published_one(name: str) -> None:
    config = published(find_protocol(name)).as_dict()
    assert dict(leaves(config)) == dict(leaves({key: PUBLIC[key] for key in ("method", "images", "settings")}))
    (dataset,) = find_protocol(name).datasets
    parts = [part for part in SETS[dataset]["parts"] if part["split"] == "train"]
    assert [[dataset, Path(part["list"]).stem, part["count"]] for part in parts] == [PUBLIC["data"][name]]


def test_labels_as_features_find_every_object(tmp_path: Path) -> None:
    masks = [square(6, 8, slice(1, 4), slice(2, 5)), square(6, 8, slice(0, 2), slice(0, 8))]
    boxes = [[[33, 17, 80, 64]], [[1, 1, 10, 10], [1, 1, 126, 32]]]
    split = boxed(tmp_path / "voc", list(map(one_hot, masks)), boxes, (126, 90))
    found = evaluate({"train": split}, Settings(), job(tmp_path, BackboneSpec()))
    assert found.metrics == {"corloc_lost": 100, "corloc_tokencut": 100}
    assert found.facts == {
        "pictures_with_boxes": 2,
        "pictures_without_boxes": 0,
        "found_nothing": {"lost": 0, "tokencut": 0},
        "cells_per_map": 48,
    }
    with open(tmp_path / "boxes.csv", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0] == {"image": "0", "method": "lost", "iou": "1.0000", "x1": "32", "y1": "16", "x2": "80", "y2": "64"}
    assert [row["iou"] for row in rows] == ["1.0000"] * 4


def test_a_box_of_half_the_overlap_counts(tmp_path: Path) -> None:
    half = square(6, 8, slice(0, 2), slice(0, 2))
    split = boxed(tmp_path / "voc", [one_hot(half)] * 2, [[[1, 1, 64, 32]], [[1, 1, 65, 32]]], (128, 96))
    assert evaluate({"train": split}, Settings(), job(tmp_path)).metrics["corloc_lost"] == 50


def test_a_resized_input_gives_boxes_in_the_picture(tmp_path: Path) -> None:
    split = boxed(
        tmp_path / "voc", [one_hot(square(6, 8, slice(1, 4), slice(2, 5)))], [[[65, 33, 160, 128]]], (256, 192)
    )
    views = Views(split.views.pictures, Images(size=96, resize="shorter"))
    found = discovery.discovered(type(split)(split.features, views), 0, Settings(), torch.device("cpu"))
    assert found["lost"].tolist() == [64, 32, 160, 128]  # type: ignore[union-attr]


def test_pictures_without_boxes_are_left_out_and_nothing_found_is_a_miss(tmp_path: Path) -> None:
    maps = [one_hot(square(6, 8, slice(1, 4), slice(2, 5))), np.zeros((6, 8, 2), np.float32), np.ones((6, 8, 2))]
    split = boxed(tmp_path / "voc", maps, [[[33, 17, 80, 64]], [[1, 1, 128, 96]], []], (128, 96))
    found = evaluate({"train": split}, Settings(), job(tmp_path))
    assert found.metrics == {"corloc_lost": 50, "corloc_tokencut": 50}
    assert found.facts["pictures_without_boxes"] == 1
    assert found.facts["found_nothing"] == {"lost": 1, "tokencut": 1}
    json.dumps(finite(found.facts), allow_nan=False)


def test_no_box_at_all_is_an_error_before_anything_is_written(tmp_path: Path) -> None:
    split = boxed(tmp_path / "voc", [np.ones((2, 2, 2), np.float32)], [[]], (32, 32))
    with pytest.raises(UserError, match="has an annotated box"):
        evaluate({"train": split}, Settings(), job(tmp_path))
    assert not (tmp_path / "boxes.csv").exists()


def test_a_broken_annotation_and_a_huge_map_are_named(tmp_path: Path) -> None:
    split = boxed(tmp_path / "voc", [np.ones((2, 2, 2), np.float32)], [[]], (32, 32))
    split.views.scenes.truths[0].write_text("<annot")
    with pytest.raises(UserError, match=r"0\.xml: is not a VOC annotation"):
        evaluate({"train": split}, Settings(), job(tmp_path))
    huge = boxed(tmp_path / "huge", [np.zeros((91, 91, 1), np.float32)], [[[1, 1, 2, 2]]], (1456, 1456))
    with pytest.raises(UserError, match=r"91 × 91 cells.*images\.resize=shorter"):
        evaluate({"train": huge}, Settings(), job(tmp_path))


def test_what_differs_from_the_publications_is_said(tmp_path: Path) -> None:
    assert "LOST, TokenCut" in discovery.deviations(job(tmp_path, SMALL["vit"]))[0]
    assert "(TokenCut)" in discovery.deviations(job(tmp_path, SMALL["resnet"]))[0]


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("stride", [None, 16, 8])
def test_a_padded_network_sees_zeros_after_normalisation(kind: str, stride: int | None) -> None:
    backbone = random_backbone(SMALL[kind], 0)
    network = FrozenNetwork(backbone, stride, pad=True)
    cell = 14 if kind == "vit" else stride or 32
    image = torch.randint(0, 256, (1, 3, 50, 75), dtype=torch.uint8)
    height, width = -(-50 // cell), -(-75 // cell)
    padded = torch.zeros(1, 3, height * cell, width * cell)
    padded[:, :, :50, :75] = network.normalised(image.float())
    with torch.inference_mode():
        found = network(image)
        assert found.equal(last_map(network.network, padded))
    assert network.shape(50, 75) == found.shape[1:] == (height, width, found.shape[3])


def test_it_runs_on_both_data_sets_of_the_mini_world(mini_root: Path, tmp_path: Path) -> None:
    backbone = random_backbone(SMALL["resnet"], 0)
    for name in ("voc07_discovery", "voc12_discovery"):
        protocol = find_protocol(name)
        out = tmp_path / name
        out.mkdir()
        outcome = run(TransferJob(protocol, mini_root, out, scale="mini", workers=0), backbone)
        assert set(outcome.metrics) == set(protocol.metrics.values())
        assert all(0 <= value <= 100 for value in outcome.metrics.values())
        assert outcome.evaluation["pictures"] == {"train": outcome.evaluation["pictures_with_boxes"]}
        assert outcome.evaluation["stride"] == 16
        assert not list(out.glob(".features"))

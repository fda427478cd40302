"""Classification of whole pictures: what can be seen is found, and what is recorded."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pixbench.errors import UserError
from pixbench.files import sha256
from pretrain.models.backbone_spec import BackboneSpec
from transfer.initial_weights import random_backbone
from transfer.job import TransferJob
from transfer.protocols import find_protocol
from transfer.run import run_transfer

COLOURS = np.array([[230, 30, 30], [30, 230, 30], [30, 30, 230], [200, 200, 60]])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classes are colours: even a random backbone tells them apart."""
    rng, home = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "imagenet"
    for split, count in (("train", 6), ("val", 3)):
        for kind, colour in enumerate(COLOURS):
            folder = home / split / f"n{kind}"
            folder.mkdir(parents=True)
            for number in range(count):
                values = np.clip(colour + rng.integers(-25, 26, (70, 80, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(values).save(folder / f"{number}.png")
    return home.parent


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("backbone") / "tiny.pth"
    torch.save(random_backbone(BackboneSpec(18, 1 / 8), seed=3).state, path)
    return path


def job(root: Path, out: Path, weights: Path | None = None, **changes: object) -> TransferJob:
    protocol = find_protocol("imagenet_probe")
    return TransferJob(protocol, root, out, weights, "mini", overrides={"images.size": 64}, workers=0, **changes)  # type: ignore[arg-type]


def test_what_can_be_seen_is_found_and_recorded(root: Path, weights: Path, tmp_path: Path) -> None:
    result = run_transfer(job(root, tmp_path / "run", weights))
    assert (result["metrics"]["knn_top1"], result["metrics"]["linear_top1"]) == (100, 100)
    assert (result["kind"], result["status"], result["init"], result["freeze"]) == (
        "frozen",
        "ok",
        "tiny.pth",
        "backbone",
    )
    assert result["weights"]["sha256"] == sha256(weights)
    assert result["deviations"] == ["images.size 64 instead of 224"]
    found = result["evaluation"]
    assert (found["stride"], found["pictures"], found["class_folders"]) == (32, {"train": 24, "test": 12}, 4)
    assert (found["images"]["resize"], found["pixels"]["order"], found["spec"]["width"]) == ("centre", "RGB", 1 / 8)
    assert "random" not in found
    with open(tmp_path / "run" / "qscore.csv", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["image"], row["label"]) for row in rows] == [
        (f"n{kind}/{i}.png", str(kind)) for kind in range(4) for i in range(3)
    ]
    assert all(row["label"] == row["predicted"] for row in rows)
    assert result["metrics"]["z_mean"] == pytest.approx(np.mean([float(row["z"]) for row in rows]))
    assert not (tmp_path / "run" / ".features").exists()


def test_a_random_backbone_is_like_the_example_and_says_so(root: Path, weights: Path, tmp_path: Path) -> None:
    like = run_transfer(job(root, tmp_path / "like", like=weights))["evaluation"]
    about = like["random"]
    assert (about["like"], about["calibrated_pictures"], about["calibrated_size"]) == (str(weights), 24, 64)
    assert (like["stride"], like["spec"]["depth"], like["spec"]["width"]) == (32, 18, 1 / 8)
    assert like["backbone"] == "random initialisation, seed 0, BN statistics of 24 training pictures"
    alone = run_transfer(job(root, tmp_path / "alone"))["evaluation"]
    assert (alone["random"]["like"], alone["stride"], alone["spec"]["width"]) == (None, 16, 0.25)


def test_fewer_training_pictures_than_neighbours_are_refused(root: Path, weights: Path, tmp_path: Path) -> None:
    many = job(root, tmp_path / "run", weights)
    many = replace(many, overrides={**many.overrides, "settings.neighbours": 25})
    with pytest.raises(UserError, match=r"train has 24 pictures, but settings\.neighbours asks for 25 neighbours"):
        run_transfer(many)

"""A random backbone that is like another one, with BN statistics that fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from pixbench.paths import CONFIGS
from pretrain.models.backbone_spec import BackboneSpec
from transfer.frozen import fair_random
from transfer.frozen.fair_random import MINI, calibrated, uncalibrated
from transfer.frozen.scenes import Scenes
from transfer.frozen.views import Images, Views
from transfer.initial_weights import random_backbone
from transfer.job import TransferJob
from transfer.protocols import find_protocol
from transfer.weights.models.networks import build_network
from transfer.weights.tensors import fingerprint
from transfer.weights.vit_spec import VitSpec
from transfer.weights.write_file import write

CPU = torch.device("cpu")
SIZE = 64
"""Pixels of the pictures."""
SPEC = BackboneSpec(18, 1 / 32, 16)


@pytest.fixture
def photos(tmp_path: Path) -> Scenes:
    """Five pictures, two of them of another shape."""
    rng, paths = np.random.default_rng(0), []
    for number, (width, height) in enumerate(((64, 48), (48, 64), (64, 48), (64, 48), (48, 64))):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(rng.integers(0, 20 * (number + 2), (height, width, 3), np.uint8)).save(paths[-1])
    return Scenes("photos, train", tuple(paths), tuple(paths))


def job(**changes: object) -> TransferJob:
    return TransferJob(find_protocol("imagenet_probe"), Path(), Path(), **changes)  # type: ignore[arg-type]


def test_without_an_example_it_is_that_of_the_scale() -> None:
    assert uncalibrated(job()).spec == BackboneSpec()
    assert uncalibrated(job(scale="mini")).spec == MINI
    mini = yaml.safe_load((CONFIGS / "pretrain/mini.yaml").read_text(encoding="utf-8"))
    assert BackboneSpec(**mini["backbone"]) == MINI


def test_network_and_pixels_are_those_of_the_example_and_the_weights_are_not(tmp_path: Path) -> None:
    from transfer.weights.file_format import Pixels

    pixels = Pixels("BGR", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    example = random_backbone(SPEC, 0)
    example = type(example)(SPEC, example.state, "example", pixels=pixels)
    write(example, tmp_path / "like.pth", "mmseg")
    found = uncalibrated(job(like=tmp_path / "like.pth", seed=1))
    assert (found.spec, found.pixels) == (SPEC, pixels)
    assert torch.equal(found.state["conv1.weight"], random_backbone(SPEC, 1).state["conv1.weight"])
    assert not torch.equal(found.state["conv1.weight"], example.state["conv1.weight"])


def test_statistics_are_those_of_a_plain_forward_over_the_same_pictures(
    photos: Scenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fair_random, "BATCH", 2)  # the last picture is alone
    backbone, views = random_backbone(SPEC, 0), Views(photos, Images(SIZE))
    found = calibrated(backbone, photos, CPU, SIZE)
    plain = build_network(SPEC)
    plain.load_state_dict(backbone.state)
    for norm in plain.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None
    mean, std = (torch.tensor(getattr(backbone.pixels, name)).view(3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        for batch in ((0, 1), (2, 3), (4,)):
            plain.train()((torch.stack([views[place] for place in batch]) - mean) / std)
    assert found.source == "random initialisation, seed 0, BN statistics of 5 training pictures"
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(found.state[name], tensor, msg=name)


def test_one_picture_is_enough(photos: Scenes) -> None:
    """Its map must have several cells; the variance of one value is not defined."""
    alone = Scenes("x", photos.pictures[:1], ())
    found = calibrated(random_backbone(BackboneSpec(18, 1 / 32), 0), alone, CPU, SIZE)
    assert all(tensor.isfinite().all() for tensor in found.state.values())


def test_statistics_of_the_first_norm_by_hand(photos: Scenes) -> None:
    """Mean and variance, per channel, of the first map of one picture."""
    backbone, same = random_backbone(SPEC, 0), Scenes("x", photos.pictures[:1], ())
    mean, std = (torch.tensor(getattr(backbone.pixels, name)).view(3, 1, 1).double() for name in ("mean", "std"))
    maps = nn.functional.conv2d(
        ((Views(same, Images(SIZE))[0] - mean) / std)[None],
        backbone.state["conv1.weight"].double(),
        stride=2,
        padding=3,
    )
    found = calibrated(backbone, same, CPU, SIZE)
    for name, expected in (("mean", maps.mean((0, 2, 3))), ("var", maps.var((0, 2, 3)))):
        torch.testing.assert_close(found.state[f"bn1.running_{name}"].double(), expected, rtol=1e-4, atol=1e-5)


def test_pictures_are_taken_evenly_from_many(photos: Scenes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_random, "PICTURES", 2)
    found = calibrated(random_backbone(SPEC, 0), photos, CPU, SIZE)
    some = Scenes("x", tuple(photos.pictures[place] for place in (0, 2)), ())
    monkeypatch.undo()
    expected = calibrated(random_backbone(SPEC, 0), some, CPU, SIZE)
    assert "BN statistics of 2 " in found.source
    assert torch.equal(found.state["bn1.running_mean"], expected.state["bn1.running_mean"])


def test_it_is_one_network_for_all_protocols_on_a_data_set(photos: Scenes, tmp_path: Path) -> None:
    """Their pictures have 224 to 512 pixels at paper scale; the record shows that the weights are the same."""
    write(random_backbone(SPEC, 0), tmp_path / "like.pth", "mmseg")
    names = ("voc12aug_incontext", "voc12aug_knn", "voc12aug_overcluster", "voc12aug_linear_dinov2")
    records = []
    for name in names:
        one = TransferJob(find_protocol(name), Path(), Path(), like=tmp_path / "like.pth")
        backbone, record = fair_random.fair_random(uncalibrated(one), one, photos, CPU)
        records.append(record)
        assert record["sha256"] == fingerprint(backbone.state, {})
    assert [record == records[0] for record in records] == [True] * len(names)
    assert (records[0]["calibrated_pictures"], records[0]["calibrated_size"]) == (5, 224)
    other = Scenes("x", photos.pictures[:3], ())
    assert fair_random.fair_random(uncalibrated(one), one, other, CPU)[1]["sha256"] != records[0]["sha256"]


def test_a_random_vit_has_a_new_last_norm_if_the_example_has_one(tmp_path: Path) -> None:
    vit = random_backbone(VitSpec(64, 1, 1, 16, 64), 0)
    ends = {"cls_token": torch.ones(1, 1, 64), "norm.weight": torch.full((64,), 3.0), "norm.bias": torch.ones(64)}
    torch.save(vit.state | ends, tmp_path / "like.pth")
    found = uncalibrated(job(like=tmp_path / "like.pth")).last_norm
    assert torch.equal(found["weight"], torch.ones(64))
    assert torch.equal(found["bias"], torch.zeros(64))


def test_what_is_remembered_has_the_last_norm_that_was_asked_for(photos: Scenes) -> None:
    without = random_backbone(VitSpec(64, 1, 1, 16, 64), 0)
    with_norm = replace(without, last_norm={"weight": torch.ones(64), "bias": torch.zeros(64)})
    found = [fair_random.fair_random(one, job(), photos, CPU)[0].last_norm for one in (without, with_norm, without)]
    assert [bool(norm) for norm in found] == [False, True, False]


def test_a_vit_has_no_statistics(photos: Scenes) -> None:
    backbone = random_backbone(VitSpec(64, 1, 1, 16, 64), 0)
    assert calibrated(backbone, photos, CPU, SIZE) is backbone
    assert fair_random.fair_random(backbone, job(), photos, CPU)[1]["calibrated_size"] is None

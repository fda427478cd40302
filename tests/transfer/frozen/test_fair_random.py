"""A random backbone that is like another one, with BN statistics that fit."""

from __future__ import annotations

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
from transfer.weights.vit_spec import VitSpec
from transfer.weights.write_file import write

CPU = torch.device("cpu")
SPEC = BackboneSpec(18, 1 / 32, 16)


@pytest.fixture
def views(tmp_path: Path) -> Views:
    """Five pictures, two of them of another shape."""
    rng, paths = np.random.default_rng(0), []
    for number, (width, height) in enumerate(((64, 48), (48, 64), (64, 48), (64, 48), (48, 64))):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(rng.integers(0, 20 * (number + 2), (height, width, 3), np.uint8)).save(paths[-1])
    return Views(Scenes("photos, train", tuple(paths), tuple(paths)), Images(48, "shorter"))


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
    views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fair_random, "BATCH", 2)  # 3 of one shape, because one would be alone; 2 of the other
    backbone = random_backbone(SPEC, 0)
    found = calibrated(backbone, views, CPU)
    plain = build_network(SPEC)
    plain.load_state_dict(backbone.state)
    for norm in plain.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None
    mean, std = (torch.tensor(getattr(backbone.pixels, name)).view(3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        for batch in ((0, 2, 3), (1, 4)):
            plain.train()((torch.stack([views[place] for place in batch]) - mean) / std)
    assert found.source == "random initialisation, seed 0, BN statistics of 5 training pictures"
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(found.state[name], tensor, msg=name)


def test_no_picture_is_alone_after_a_full_batch(views: Views, monkeypatch: pytest.MonkeyPatch) -> None:
    """The maps have one cell at the end; the variance of one value is not defined."""
    monkeypatch.setattr(fair_random, "BATCH", 4)
    one_cell = Views(views.pictures, Images(16))
    assert [len(batch) for batch in fair_random._batches(list(range(5)), one_cell)] == [5]
    found = calibrated(random_backbone(SPEC, 0), one_cell, CPU)
    assert all(tensor.isfinite().all() for tensor in found.state.values())
    monkeypatch.setattr(fair_random, "BATCH", 3)
    assert [len(batch) for batch in fair_random._batches(list(range(5)), one_cell)] == [3, 2]


def test_statistics_of_the_first_norm_by_hand(views: Views) -> None:
    """Mean and variance, per channel, of the first maps of all pictures of one shape."""
    backbone = random_backbone(SPEC, 0)
    same = Views(Scenes("x", views.scenes.pictures[:1], ()), views.images)
    mean, std = (torch.tensor(getattr(backbone.pixels, name)).view(3, 1, 1).double() for name in ("mean", "std"))
    maps = nn.functional.conv2d(
        ((same[0] - mean) / std)[None], backbone.state["conv1.weight"].double(), stride=2, padding=3
    )
    found = calibrated(backbone, same, CPU)
    for name, expected in (("mean", maps.mean((0, 2, 3))), ("var", maps.var((0, 2, 3)))):
        torch.testing.assert_close(found.state[f"bn1.running_{name}"].double(), expected, rtol=1e-4, atol=1e-5)


def test_pictures_are_taken_evenly_from_many(views: Views, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_random, "PICTURES", 2)
    found = calibrated(random_backbone(SPEC, 0), views, CPU)
    some = Views(Scenes("x", tuple(views.scenes.pictures[place] for place in (0, 2)), ()), views.images)
    monkeypatch.undo()
    expected = calibrated(random_backbone(SPEC, 0), some, CPU)
    assert "BN statistics of 2 " in found.source
    assert torch.equal(found.state["bn1.running_mean"], expected.state["bn1.running_mean"])


def test_a_vit_has_no_statistics(views: Views) -> None:
    backbone = random_backbone(VitSpec(64, 1, 1, 16, 64), 0)
    assert calibrated(backbone, views, CPU) is backbone

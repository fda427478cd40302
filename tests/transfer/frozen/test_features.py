"""Features: those of the network, of each picture in its place, however they are computed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pixbench.errors import UserError
from pretrain.models.backbone_spec import BackboneSpec
from transfer.frozen import features
from transfer.frozen.network import FrozenNetwork
from transfer.frozen.run import of_vits
from transfer.frozen.scenes import Scenes
from transfer.frozen.views import Images, Views
from transfer.initial_weights import random_backbone
from transfer.weights.file_format import Pixels
from transfer.weights.models.vit import ViT
from transfer.weights.vit_spec import VitSpec

TINY = BackboneSpec(18, 1 / 32)
SPECS = [
    BackboneSpec(50, 1 / 32, 8),
    *(BackboneSpec(18, 1 / 32, stride) for stride in (16, 32)),
    BackboneSpec(18, 1 / 32, 8, stem="3x3"),
    VitSpec(64, 2, 1, 16, 64),
]
SIZES = ((70, 50), (70, 50), (64, 96), (70, 50))


def photos(folder: Path) -> Scenes:
    """Pictures of noise of different sizes, neighbours of one size among them."""
    rng, paths = np.random.default_rng(0), []
    for number, (width, height) in enumerate(SIZES):
        paths.append(folder / f"{number}.png")
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(paths[-1])
    return Scenes("photos, train", tuple(paths), tuple(paths))


def computed(network: FrozenNetwork, views: Views, folder: Path, workers: int = 0) -> features.Features:
    folder.mkdir(exist_ok=True)
    features.compute(network, views, folder, workers)
    found = features.read(folder)
    assert found is not None
    return found


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.title}, {getattr(spec, 'output_stride', 'patches')}")
def test_each_map_is_that_of_its_picture(spec: BackboneSpec | VitSpec, tmp_path: Path) -> None:
    network = FrozenNetwork(random_backbone(spec, 0))
    views = Views(photos(tmp_path), Images(64, "squash" if isinstance(spec, VitSpec) else "shorter"))
    found = computed(network, views, tmp_path / "entry")
    assert len(found) == len(SIZES)
    assert found.stride == (spec.patch if isinstance(spec, VitSpec) else spec.output_stride)
    for place in range(len(views)):
        height, width = views[place].shape[1:]
        assert (height, width) == views.shape(place)
        assert found.map(place).shape == (-(-height // found.stride), -(-width // found.stride), found.channels)
        expected = network(views[place][None])[0]
        torch.testing.assert_close(found.map(place), expected)
        assert expected.shape == network.shape(height, width)
    assert not any(p.requires_grad for p in network.parameters())
    assert (tmp_path / "entry" / features.VALUES).stat().st_size == features.size_of(network, views)[1]


def test_the_map_of_a_vit_is_that_of_its_patches(tmp_path: Path) -> None:
    backbone = random_backbone(SPECS[-1], 0)
    network = FrozenNetwork(backbone)
    assert isinstance(network.network, ViT)
    views = Views(photos(tmp_path), Images(64))
    *_, last = network.network.forward_stages(network.normalised(views[2][None].float())).values()
    assert last.shape == (1, 4, 4, 64)
    torch.testing.assert_close(computed(network, views, tmp_path / "entry").map(2), last[0])


def test_features_of_a_vit_get_its_last_norm() -> None:
    """As timm's `forward_features` returns them, of a ViT without class token; a random one gets a new norm."""
    from timm.models.vision_transformer import VisionTransformer

    plain, generator = random_backbone(SPECS[-1], 0), torch.Generator().manual_seed(0)
    norm = {name: torch.randn(64, generator=generator) for name in ("weight", "bias")}
    backbone = replace(plain, last_norm=norm)
    network, images = FrozenNetwork(backbone), torch.rand(2, 3, 64, 64, generator=generator) * 255
    theirs = VisionTransformer(
        img_size=64, embed_dim=64, depth=2, num_heads=1, num_classes=0, class_token=False, global_pool=""
    ).eval()
    state = plain.state | {"pos_embed": plain.state["pos_embed"][:, 1:]}
    theirs.load_state_dict(state | {f"norm.{name}": tensor for name, tensor in norm.items()})
    with torch.no_grad():
        wanted = theirs.forward_features(network.normalised(images)).view(2, 4, 4, 64)
        torch.testing.assert_close(network(images), wanted, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(FrozenNetwork(plain)(images), wanted, atol=0.1)
    assert network.fingerprint != FrozenNetwork(plain).fingerprint
    assert of_vits(network) == ("the ViT runs without its class token, as in ViTDet",)
    assert len(of_vits(FrozenNetwork(plain))) == 2
    assert of_vits(FrozenNetwork(random_backbone(TINY, 0))) == ()


def test_another_stride_is_that_of_the_config() -> None:
    network = FrozenNetwork(random_backbone(TINY, 0), output_stride=8)
    assert (network.stride, network.shape(64, 64)) == (8, (8, 8, 16))
    with pytest.raises(
        UserError, match=r"seed 0 holds a .*CIFAR.*cells cannot be of 16 pixels .*images\.output_stride"
    ):
        FrozenNetwork(random_backbone(SPECS[3], 0), output_stride=16)


def test_pooled_features_are_the_mean_of_the_map(tmp_path: Path) -> None:
    network, pictures = FrozenNetwork(random_backbone(TINY, 0)), photos(tmp_path)
    maps, pooled = (
        computed(network, Views(pictures, Images(64, "centre", pool=pool)), tmp_path / str(pool))
        for pool in (False, True)
    )
    assert pooled.shapes == ((1, 1),) * len(SIZES)
    for place in range(len(SIZES)):
        torch.testing.assert_close(pooled.map(place)[0, 0], maps.map(place).mean((0, 1)))


@pytest.mark.parametrize(("workers", "pixels"), [(2, 64 * 64), (0, 64 * 100 * 2), (2, features.BATCH_PIXELS)])
def test_workers_and_batches_change_nothing(
    workers: int, pixels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, views = FrozenNetwork(random_backbone(TINY, 0)), Views(photos(tmp_path), Images(64, "shorter"))
    alone = computed(network, views, tmp_path / "alone")
    monkeypatch.setattr(features, "BATCH_PIXELS", pixels)
    torch.testing.assert_close(computed(network, views, tmp_path / "other", workers).cells, alone.cells)


def test_features_do_not_depend_on_how_a_backbone_wants_its_pixels(tmp_path: Path) -> None:
    """A backbone and its twin that takes BGR, nothing divided, are one function of the picture."""
    backbone, views = random_backbone(TINY, 0), Views(photos(tmp_path), Images(64))
    kernel = backbone.state["conv1.weight"] / torch.tensor(backbone.pixels.std).view(3, 1, 1)
    pixels = Pixels("BGR", backbone.pixels.mean[::-1], (1.0, 1.0, 1.0))
    twin = replace(backbone, state={**backbone.state, "conv1.weight": kernel.flip(1)}, pixels=pixels)
    ours, theirs = (computed(FrozenNetwork(b), views, tmp_path / b.pixels.order) for b in (backbone, twin))
    torch.testing.assert_close(theirs.cells, ours.cells)


@pytest.mark.parametrize(
    ("resize", "shapes"),
    [
        ("squash", [(40, 40), (40, 40), (40, 40), (40, 40)]),
        ("shorter", [(40, 56), (40, 56), (60, 40), (40, 56)]),
        ("native", [(50, 70), (50, 70), (96, 64), (50, 70)]),
        ("centre", [(40, 40), (40, 40), (40, 40), (40, 40)]),
    ],
)
def test_inputs_have_the_size_that_is_said_before(resize: str, shapes: list[tuple[int, int]], tmp_path: Path) -> None:
    views = Views(photos(tmp_path), Images(40, resize))  # type: ignore[arg-type]
    assert [views.shape(place) for place in range(len(views))] == shapes
    assert [tuple(views[place].shape[1:]) for place in range(len(views))] == shapes


def test_half_a_file_is_no_features(tmp_path: Path) -> None:
    network, views = FrozenNetwork(random_backbone(TINY, 0)), Views(photos(tmp_path), Images(64))
    computed(network, views, tmp_path / "entry")
    values = tmp_path / "entry" / features.VALUES
    with open(values, "r+b") as stream:
        stream.truncate(values.stat().st_size // 2)
    assert features.read(tmp_path / "entry") is None
    values.unlink()
    assert features.read(tmp_path / "entry") is None


def test_one_reader_for_each_core_unless_processes_share_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert features.cores() == 6
    for processes, each in ((1, 6), (4, 1), (8, 1), (3, 2)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        assert features.cores() == each
    assert features.loader([0, 1], [[0, 1]], list, 5, torch.device("cpu")).num_workers == 1  # none without a batch

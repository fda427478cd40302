"""Shapes of maps and sizes of pictures are known without computing a map or decoding a picture, each looked up once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from pixbench.errors import UserError
from pretrain.models.backbone_spec import BackboneSpec
from transfer.frozen import features, network
from transfer.frozen.class_folders import class_folders
from transfer.frozen.network import FrozenNetwork
from transfer.frozen.scenes import Scenes
from transfer.frozen.views import Images, Views
from transfer.initial_weights import random_backbone
from transfer.weights.vit_spec import VitSpec

SPEC = BackboneSpec(18, 1 / 32)
SIDES = range(33, 45)


@pytest.fixture
def views(tmp_path: Path) -> Views:
    """144 pictures of as many sizes, in class folders."""
    for split in ("train", "val"):
        for width in SIDES:
            (tmp_path / split / f"w{width}").mkdir(parents=True)
            for height in SIDES:
                Image.new("RGB", (width, height)).save(tmp_path / split / f"w{width}" / f"{height}.png")
    return Views(class_folders(tmp_path)[0], Images(resize="native", pool=True))


def test_many_sizes_build_one_network_and_decode_no_picture(views: Views, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {"built": 0, "forwards": 0, "decoded": 0, "opened": 0}

    def counted(name: str, function):
        def call(*args, **kwargs):
            calls[name] += 1
            return function(*args, **kwargs)

        return call

    frozen = FrozenNetwork(random_backbone(SPEC, 0))
    network.cells_along.cache_clear()
    network._without_weights.cache_clear()
    monkeypatch.setattr(network, "build_network", counted("built", network.build_network))
    monkeypatch.setattr(network, "last_map", counted("forwards", network.last_map))
    monkeypatch.setattr(ImageFile.ImageFile, "load", counted("decoded", ImageFile.ImageFile.load))
    monkeypatch.setattr(Image, "open", counted("opened", Image.open))
    shapes, size = features.size_of(frozen, views)
    features._batches(views)
    assert (len(shapes), size) == (len(SIDES) ** 2, 4 * 16 * len(SIDES) ** 2)
    assert calls == {"built": 1, "forwards": len(SIDES), "decoded": 0, "opened": len(SIDES) ** 2}
    assert [views.pictures.size(0), views.pictures.size(1)] == [(33, 33), (33, 34)]


@pytest.mark.parametrize("spec", [SPEC, BackboneSpec(18, 1 / 32, 8, stem="deep"), VitSpec(64, 2, 1, 16, 64)])
@pytest.mark.parametrize("pad", [False, True])
def test_shapes_are_those_of_the_maps(spec: BackboneSpec | VitSpec, pad: bool) -> None:
    frozen = FrozenNetwork(random_backbone(spec, 0), pad=pad)
    for height, width in ((32, 32), (33, 65), (70, 47), (16, 64)):
        assert frozen.shape(height, width) == frozen(torch.zeros(1, 3, height, width)).shape[1:]


def test_a_picture_without_a_header_is_named(tmp_path: Path) -> None:
    paths = (tmp_path / "0.png", tmp_path / "1.png")
    Image.fromarray(np.zeros((3, 5, 3), np.uint8)).save(paths[0])
    paths[1].write_bytes(b"no image")
    scenes = Scenes("photos, train", paths, paths)
    assert scenes.size(0) == (5, 3)
    with pytest.raises(UserError, match=rf"image {paths[1]} is broken"):
        scenes.size(1)

"""Each family of backbones with PixPro, MoCo v2 and, on a ViT, iBOT: 100 steps on the mini world without a collapse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_every_method_trains import QUEUE, mean, train, world  # noqa: F401  a fixture

pytestmark = pytest.mark.e2e

SWIN = {"img_size": 64, "embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8], "window_size": 4}
CONVNEXT = {"depths": [1, 1, 2, 1], "dims": [16, 32, 64, 128]}
UNIFORMER = {"widths": [16, 32, 64, 128], "head_dim": 16, "depths": [1, 1, 2, 1]}
FAMILIES = {
    "resnet18": ("--backbone.depth=18", "--backbone.width=0.25", "--backbone.output_stride=16"),
    "vit": ("--config=configs/pretrain/mini_vit.yaml",),
    "convnext": ("--backbone.name=timm:convnext_tiny", f"--backbone.options={json.dumps(CONVNEXT)}"),
    "swin": ("--backbone.name=timm:swin_tiny_patch4_window7_224", f"--backbone.options={json.dumps(SWIN)}"),
    "own": (
        "--backbone.name=examples.backbones.uniformer:uniformer_small",
        f"--backbone.options={json.dumps(UNIFORMER)}",
    ),
}
METHODS = {"pixpro_100ep": (), "moco_v2_200ep": QUEUE}
SHORT = ("--epochs=5", "--data.image_size=64", "--optimizer.name=adamw", "--optimizer.base_lr=0.004")


@pytest.mark.parametrize("recipe", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_it_does_not_collapse(family: str, recipe: str, world: Path, tmp_path: Path) -> None:  # noqa: F811
    without_collapse(train(recipe, world, tmp_path / "run", *FAMILIES[family], *SHORT))


def test_ibot_does_not_collapse(world: Path, tmp_path: Path) -> None:  # noqa: F811
    without_collapse(train("ibot_vit_s16_800ep", world, tmp_path / "run", "--epochs=5"))


def without_collapse(lines: list[dict[str, float]]) -> None:
    assert len(lines) == 100
    assert all(line["loss"] is not None for line in lines)
    assert mean(lines[-20:], "feature_std") > 0.1

"""Every method for 200 steps on the mini world: no NaN, the loss goes down, the features do not collapse."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from benchmarks.miniworld.generate import World, generate
from pixbench.paths import CONFIGS
from pretrain.__main__ import main
from pretrain.method_descriptions import config_files
from pretrain.methods import METHODS

CLASSES = "--method.classes=6"
QUEUE = ("--method.queue_size=64", "--method.momentum=0.99")  # full after two steps: an empty one makes the loss rise
LEARNS = {
    "pixpro_100ep": ("mini",),
    "pixcontrast_100ep": ("mini",),
    "pixpro_instance_contrastive_100ep": ("mini",),
    "pixpro_instance_regression_100ep": ("mini",),
    "moco_v1_200ep": ("mini_linear", *QUEUE),
    "moco_v2_200ep": ("mini", *QUEUE),
    "simclr_1000ep": ("mini",),
    "byol_300ep": ("mini",),
    "densecl_200ep": ("mini", *QUEUE),
    "pixpro_vit_s16_100ep": ("mini mini_short mini_vit",),
    "pixpro_convnext_t_100ep": ("mini mini_short mini_convnext",),
    "densecl_vit_s16_200ep": ("mini mini_short mini_vit", *QUEUE),
    "ibot_vit_s16_800ep": ("mini mini_short mini_ibot", "--method.dim=256"),
    "supervised_90ep": ("mini_linear", CLASSES),
    "cds_90ep": ("mini_linear", CLASSES),
    "cds_cifar_300ep": ("mini_linear", CLASSES, "--data.image_size=32", "--backbone.output_stride=8"),
    "pixpro_fpn_100ep": ("mini mini_fpn", "--data.image_size=64", "--backbone.output_stride=32"),  # P5 of 2 × 2 cells
    "pixpro_fpn_head_100ep": ("mini mini_fpn", "--data.image_size=64", "--backbone.output_stride=32"),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world") / "data"
    generate(root, World(seed=0, images=640, name="shapes"), workers=2)
    return root / "imagenet"


def train(recipe: str, world: Path, out: Path, *settings: str) -> list[dict[str, float]]:
    overlay, *own = LEARNS[recipe]
    files = [
        word
        for name in dict.fromkeys((recipe, *overlay.split(), "mini_short"))
        for word in ("--config", str(CONFIGS / f"pretrain/{name}.yaml"))
    ]
    assert main([*files, "--data.root", str(world), "--out", str(out), *own, *settings]) == 0
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def mean(lines: list[dict[str, float]], name: str) -> float:
    return statistics.fmean(line[name] for line in lines)


def test_every_method_is_here() -> None:
    assert [name for name in METHODS if not {Path(file).stem for file in config_files(name)} & LEARNS.keys()] == []


@pytest.mark.e2e
@pytest.mark.parametrize("recipe", LEARNS)
def test_it_learns(recipe: str, world: Path, tmp_path: Path) -> None:
    lines = train(recipe, world, tmp_path / "run")
    assert len(lines) == 200
    assert all(line["loss"] is not None for line in lines)
    assert mean(lines[-20:], "loss") < mean(lines[:20], "loss")
    assert mean(lines[-20:], "feature_std") > 0.1


@pytest.mark.e2e
def test_pixpro_without_propagation_collapses(world: Path, tmp_path: Path) -> None:
    """With l = 0 and a γ so large that a cell is similar to itself alone, the module passes its input through."""
    spread = {}
    for name, settings in {"with": (), "without": ("--method.layers=0", "--method.gamma=1e6")}.items():
        lines = train("pixpro_100ep", world, tmp_path / name, *settings)
        spread[name] = mean(lines[-20:], "feature_std")
    assert spread["without"] < 0.5 * spread["with"], spread

"""Runs on networks by name that are stopped and go on are those of an uninterrupted run, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from test_engine import assert_equal, content_of, log_of, stop_after

from pretrain import engine
from pretrain.config import from_dict
from pretrain.settings import RunConfig

pytestmark = pytest.mark.slow

NOISE = {"drop_path_rate": 0.2}
"""Draws of the network itself in training, which must be the same after a resume too."""
IBOT = {"bottleneck": 8, "patch_dim": 8}


def mini(name: str) -> dict[str, Any]:
    """The backbone of a mini config, with noise."""
    backbone = yaml.safe_load(Path(f"configs/pretrain/mini_{name}.yaml").read_text())["backbone"]
    return {**backbone, "options": backbone["options"] | NOISE}


@pytest.fixture
def config(image_tree: Callable[..., Path], tmp_path: Path) -> Callable[..., RunConfig]:
    root = image_tree(2, 4, size=(80, 72))

    def make(out: str, method: str, network: str) -> RunConfig:
        local = {"local_crops": 1, "local_size": 32} if method == "ibot" else {}
        content = {
            "method": {"name": method, "hidden": 16, "dim": 8, **(IBOT if method == "ibot" else {})},
            "data": {"root": str(root), "image_size": 64, "workers": 0, "cache": True, **local},
            "backbone": mini(network),
            "optimizer": {"name": "adamw", "base_lr": 0.01, "weight_decay": 0.05, "layer_decay": 0.7, "clip_norm": 3.0},
            "schedule": {"warmup_epochs": 1},
            **{"epochs": 2, "batch_size": 4, "log_every": 1, "out": str(tmp_path / out)},
        }
        return from_dict(content)

    return make


@pytest.mark.parametrize(
    ("method", "network"), [("pixpro", "vit"), ("ibot", "vit"), ("pixpro", "convnext")], ids="-".join
)
def test_continuing_is_bit_exact(
    method: str, network: str, config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, broken = config("straight", method, network), config("broken", method, network)
    assert engine.train(straight) == 0
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        with pytest.raises(KeyboardInterrupt):
            engine.train(broken)
    torch.manual_seed(12345)  # another process has another state
    assert engine.train(replace(broken, data=replace(broken.data, workers=1))) == 0
    for part in ("model", "optimizer", "scaler", "step", "epoch", "finished"):
        assert_equal(content_of(straight)[part], content_of(broken)[part], part)
    losses = [[line["loss"] for line in log_of(made)] for made in (straight, broken)]
    assert len(losses[0]) == 4
    assert losses[0] == losses[1]

"""A backbone of each family from images to a table: pre-trained, evaluated frozen, fine-tuned under a segmentor's head."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.commands.main import main
from pixbench.paths import CONFIGS

pytestmark = [pytest.mark.frameworks, pytest.mark.slow]

VIT = {"img_size": 64, "patch_size": 16, "embed_dim": 32, "depth": 4, "num_heads": 2}
SWIN = {"img_size": 64, "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8], "window_size": 4}
FAMILIES = {
    "resnet18": ("--backbone.depth=18", "--backbone.width=0.125"),
    "vit": ("--backbone.name=timm:vit_small_patch16_224", f"--backbone.options={json.dumps(VIT)}"),
    "convnext": (
        "--backbone.name=timm:convnext_tiny",
        f"--backbone.options={json.dumps({'depths': [1, 1, 1, 1], 'dims': [8, 16, 24, 32]})}",
    ),
    "swin": ("--backbone.name=timm:swin_tiny_patch4_window7_224", f"--backbone.options={json.dumps(SWIN)}"),
    "own": ("--backbone.name=networks_of_mine:net",),
}
DEFAULT = {"vit"}
OWN = """
from torch import nn

class Net(nn.Module):
    channels, strides = (8, 16, 24, 32), (4, 8, 16, 32)

    def __init__(self):
        super().__init__()
        wide = (3, *self.channels)
        self.steps = nn.ModuleList(nn.Conv2d(a, b, k, k) for a, b, k in zip(wide, wide[1:], (4, 2, 2, 2)))

    def forward(self, x):
        return [x := step(x).relu() for step in self.steps]

net = Net
"""
FEW = {"train_cfg.max_iters": 2, "train_cfg.val_interval": 2, "auto_scale_lr.base_batch_size": 2}


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=() if name in DEFAULT else pytest.mark.e2e) for name in FAMILIES]
)
def test_from_images_to_a_table(
    family: str, mini_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "networks_of_mine.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PIXBENCH_NETWORKS", "networks_of_mine")
    configs = [f"--config={CONFIGS / 'pretrain' / name}" for name in ("pixpro_100ep.yaml", "mini.yaml")]
    short = ("--epochs=1", "--batch_size=4", "--schedule.warmup_epochs=0", "--data.workers=0", "--method.hidden=16")
    data, pretrained = f"--data.root={mini_root / 'imagenet'}", tmp_path / "pretrained"
    assert main(["pretrain", *configs, *short, *FAMILIES[family], data, f"--out={pretrained}"]) == 0
    weights, places = str(pretrained / "checkpoint.pth"), ("--data-root", str(mini_root), "--scale", "mini")
    runs = tmp_path / "runs"
    frozen = ("--protocols", "ade20k_knn", "--out", str(runs), "--workers", "0")
    assert main(["probe", weights, *places, *frozen, "--label", family]) == 0
    settings = [word for key, value in FEW.items() for word in ("--set", f"{key}={value}")]
    tuned = ("--weights", weights, "--out", str(runs / "tuned"), "--label", family)
    assert main(["transfer", "ade20k_upernet", *tuned, *places, *settings]) == 0
    capsys.readouterr()
    assert main(["table", str(runs)]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith(f"| {family} ")]
    assert len(rows) == 2  # fine-tuned, and frozen
    assert all(any(character.isdigit() for character in row.partition("|")[2].partition("|")[2]) for row in rows)

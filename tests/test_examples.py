"""Every file in `examples/` runs as a user would start it, at its smallest sizes, and leaves what its docstring promises."""

from __future__ import annotations

import ast
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from started import finished

from pretrain.models.backbone_spec import BackboneSpec
from pretrain.models.resnet import build_resnet
from transfer.weights import load

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, folder: Path, *arguments: object) -> str:
    """Run the example ``name`` in ``folder`` and return what it prints."""
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}  # threads that wait for each other are slow on a busy machine
    done = finished(command, cwd=folder, env=alone)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_pretrain_own_images(mini_root: Path, tmp_path: Path) -> None:
    images = mini_root / "VOC2007" / "JPEGImages"
    sizes = ("--epochs", 1, "--batch-size", 8, "--size", 32, "--width", 0.0625)
    printed = run("pretrain_own_images.py", tmp_path, "--images", images, "--out", "run", *sizes)
    assert "map of (128, 8, 8)" in printed  # 4 × 32 pixels, 16 a cell
    with Image.open(tmp_path / "run" / "features.png") as picture:
        assert picture.width > 2 * picture.height
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 100
    assert load(tmp_path / "run" / "checkpoint.pth").resnet.width == 0.0625


@pytest.mark.e2e
@pytest.mark.frameworks
def test_convert_to_detectron2(mini_root: Path, tmp_path: Path) -> None:
    """From a file with MoCo v2's keys and a narrow backbone."""
    backbone = build_resnet(BackboneSpec(50, 0.25), zero_init_residual=False)
    state = {f"module.encoder_q.{name}": tensor for name, tensor in backbone.state_dict().items()}
    state |= {f"module.encoder_q.fc.{layer}.weight": torch.ones(2, 2) for layer in (0, 2)}
    torch.save({"arch": "resnet50", "epoch": 200, "state_dict": state}, tmp_path / "moco_v2.pth.tar")
    image = next((mini_root / "VOC2007" / "JPEGImages").glob("*.jpg"))
    printed = run("convert_to_detectron2.py", tmp_path, "moco_v2.pth.tar", "--image", image, "--out", "moco_v2.pkl")
    assert "moco_v2, student: ResNet-50 of width 0.25" in printed
    assert "into the model: 265 converted" in printed
    assert "instances" in printed
    assert "every tensor equal" in printed
    found = load(tmp_path / "moco_v2.pkl").state
    assert torch.equal(found["layer4.2.conv3.weight"], backbone.get_parameter("layer4.2.conv3.weight"))


@pytest.mark.e2e
def test_timm_pixel_learner(mini_root: Path, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    images = mini_root / "VOC2007" / "JPEGImages"
    sizes = ("--steps", 3, "--batch-size", 6, "--size", 64)
    printed = run("timm_pixel_learner.py", tmp_path, "--images", images, "--out", "resnet18.pth", *sizes)
    assert printed.count("  loss ") == 3
    assert "layer4.1.conv2.weight" in torch.load(tmp_path / "resnet18.pth", weights_only=True)


@pytest.mark.e2e
def test_new_method(mini_root: Path, tmp_path: Path) -> None:
    sizes = ("--epochs", 1, "--batch-size", 6, "--width", 0.0625)
    printed = run("new_method.py", tmp_path, "--images", mini_root / "imagenet", "--out", "run", *sizes)
    assert "318 tensors are the same in both files" in printed
    assert "'predictor': " in printed
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    assert all(-1 <= line["loss"] <= 1 for line in lines)


def test_the_readme_lists_every_example() -> None:
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f"[{path.name}]({path.name})" in readme
        assert f"python examples/{path.name} " in (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "")

"""Every pre-training method goes the whole way: a step, a checkpoint, a converted file, the same weights again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import VIT

from pixbench.errors import UserError
from pixbench.file_versions import CHECKPOINT_FILE
from pretrain import checkpoint, engine
from pretrain.config import from_dict
from pretrain.methods import METHODS
from transfer.weights import convert, load, read

pytestmark = pytest.mark.slow

SMALL = {"hidden": 8, "dim": 8, "queue_size": 8, "channels": 32, "classes": 3}

VARIANTS = {"moco_v1", "pixpro_fpn"}
"""Of MoCo v2 and PixPro FPN + head, which are tested by default."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.e2e if name in VARIANTS else ()) for name in METHODS]
)
def test_a_method_goes_from_a_step_to_a_loaded_file(name: str, tmp_path: Path, mini_root: Path) -> None:
    on_vit = METHODS[name].needs_tokens
    settings = {key: value for key, value in SMALL.items() if key in METHODS[name].Config.__dataclass_fields__}
    settings |= {"classes": 6} if "classes" in settings else {}
    config = from_dict(
        {
            "method": {"name": name, **settings},
            "data": {"root": str(mini_root / "imagenet"), "image_size": 64, "workers": 0, "limit": 4},
            "backbone": VIT.as_dict() if on_vit else {"width": 1 / 32},
            "schedule": {"warmup_epochs": 0},
            "epochs": 1,
            "batch_size": 4,
            "out": str(tmp_path / "run"),
        }
    )
    engine.train(config)
    path = tmp_path / "run" / CHECKPOINT_FILE
    saved = checkpoint.load(path)
    assert saved["exports"] == list(METHODS[name].exports)
    reading = read(path)
    told = {*saved["exports"], *saved["left_behind"], "momentum_encoder"}
    assert {key.partition(".")[0] for key in saved["model"]} <= told  # nothing in the file is without a place
    convert(path, tmp_path / "x.safetensors", "timm" if on_vit else "detectron2_fpn", check_forward=False)
    backbone = load(tmp_path / "x.safetensors")
    for key, tensor in backbone.state.items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(tensor, saved["model"][f"backbone.{key}"])
    assert set(backbone.extras) == set(reading.backbone.extras)
    assert {key.partition(".")[0] for key in backbone.extras} == set(METHODS[name].exports) - {"backbone"}


def test_a_head_of_any_name_is_left_behind(tmp_path: Path, make_backbone) -> None:
    model = {f"backbone.{key}": tensor for key, tensor in make_backbone().state.items()}
    model |= {"prototypes.weight": torch.ones(2, 2), "momentum_encoder.prototypes.weight": torch.ones(2, 2)}
    spec = make_backbone().spec.as_dict()
    content = {"format": "pixbench-pretrain", "version": 2, "backbone": spec, "model": model, "exports": ["backbone"]}
    torch.save({**content, "left_behind": ["prototypes"]}, tmp_path / "checkpoint.pth")
    assert read(tmp_path / "checkpoint.pth").counts.dropped == {"prototypes": 2}


@pytest.mark.parametrize("names", [[f"m{i}" for i in range(101)], ["m" * 2000]])
def test_a_hostile_declaration_is_refused_at_once(tmp_path: Path, make_backbone, names: list[str]) -> None:
    model = {f"backbone.{key}": tensor for key, tensor in make_backbone().state.items()}
    content = {"format": "pixbench-pretrain", "version": 2, "backbone": make_backbone().spec.as_dict(), "model": model}
    torch.save({**content, "exports": ["backbone"], "left_behind": names}, tmp_path / "checkpoint.pth")
    with pytest.raises(UserError, match="declares more than 100 modules or a very long name"):
        read(tmp_path / "checkpoint.pth")


def test_a_declaration_cannot_drop_keys_of_the_backbone(tmp_path: Path, make_backbone) -> None:
    model = {f"backbone.{key}": tensor for key, tensor in make_backbone().state.items()} | {"backbone.x": torch.ones(1)}
    content = {"format": "pixbench-pretrain", "version": 2, "backbone": make_backbone().spec.as_dict(), "model": model}
    torch.save({**content, "exports": ["backbone"], "left_behind": ["backbone"]}, tmp_path / "checkpoint.pth")
    with pytest.raises(UserError, match=r"1 unknown \(backbone.x\)"):
        read(tmp_path / "checkpoint.pth")

"""Patches of 14 pixels become patches of 16 where ViTDet takes them: in `pixbench convert` as in `pixbench transfer`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.commands.convert import report
from pixbench.errors import UserError
from pretrain.models.named_spec import NamedSpec
from transfer.initial_weights import random_backbone
from transfer.weights import load
from transfer.weights.conversion import convert, prove
from transfer.weights.larger_patches import RESIZING, resized
from transfer.weights.vit_spec import VitSpec
from transfer.weights.write_file import save

SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 14}
DINOV2 = NamedSpec("timm:vit_small_patch14_reg4_dinov2", SMALL | {"img_size": 56})
LONG = NamedSpec(DINOV2.name, SMALL | {"img_size": [56, 28]})


@pytest.mark.frameworks
@pytest.mark.parametrize("spec", [DINOV2, LONG], ids=["square", "not square"])
def test_a_conversion_to_vitdet_resizes_and_records_it(spec: NamedSpec, tmp_path: Path) -> None:
    backbone = random_backbone(spec, 0)
    save(backbone, tmp_path / "it.safetensors", "timm")
    done = convert(tmp_path / "it.safetensors", tmp_path / "it.pkl", "detectron2_vitdet")
    assert done.parity is not None
    assert done.parity.ok
    wanted, found = resized(backbone), load(tmp_path / "it.pkl")
    assert (found.spec, found.resized, wanted.resized, backbone.resized) == (wanted.spec, True, True, False)
    assert all(torch.equal(found.state[name], x) for name, x in wanted.state.items())
    assert json.loads(done.record.read_text())["output"]["changes"] == [RESIZING]
    assert f"changed  {RESIZING}" in report(done)
    parity, _, _ = prove(tmp_path / "it.safetensors", tmp_path / "it.pkl")
    assert parity.ok
    again = convert(tmp_path / "it.pkl", tmp_path / "again.pkl", "detectron2_vitdet")
    assert not again.changes
    assert load(tmp_path / "again.pkl").resized, "what was done once stays known"


@pytest.mark.frameworks
def test_a_vit_of_detectron2s_kind_is_resized_too(tmp_path: Path) -> None:
    save(random_backbone(VitSpec(64, 2, 1, 14, 56), 0), tmp_path / "it.pkl", "detectron2_vitdet")
    found = load(tmp_path / "it.pkl")
    assert (found.spec, found.resized) == (VitSpec(64, 2, 1, 16, 64), True)


def test_sides_that_are_not_equal_stay_so() -> None:
    found = resized(random_backbone(LONG, 0)).spec
    assert found == NamedSpec(LONG.name, SMALL | {"patch_size": 16, "img_size": [64, 32]})


@pytest.mark.frameworks
def test_a_network_without_the_option_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
        import torch
        class Net(torch.nn.Conv2d):
            channels, strides = [8], [14]
            def __init__(self):
                super().__init__(3, 8, 14, 14)
            def forward(self, x):
                return [super().forward(x)]
    """
    (tmp_path / "cells_of_14.py").write_text(code.replace("\n        ", "\n"))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="no patches of 14 pixels"):
        save(random_backbone(NamedSpec("cells_of_14:Net"), 0), tmp_path / "it.pkl", "detectron2_vitdet")

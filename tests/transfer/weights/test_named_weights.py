"""Weights of backbones by name: read, inspected, converted, evaluated; code in files only with permission."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

from pixbench.errors import UserError
from pixbench.file_versions import CHECKPOINT_FORMAT, CHECKPOINT_VERSION
from pretrain.models.families import build_backbone
from pretrain.models.named_network import NamedNetwork
from pretrain.models.named_spec import NamedSpec
from transfer.frozen.network import FrozenNetwork
from transfer.weights import load, read
from transfer.weights.backbone import Backbone
from transfer.weights.conversion import convert, prove
from transfer.weights.inspection import inspect

VIT = NamedSpec(
    "timm:vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2}
)
CONVNEXT = NamedSpec("timm:convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]})
SWIN = NamedSpec(
    "timm:swin_tiny_patch4_window7_224",
    {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8], "window_size": 4, "img_size": 64},
)
SPECS = pytest.mark.parametrize("spec", [VIT, CONVNEXT, SWIN], ids=lambda spec: spec.function)


def checkpoint(spec: NamedSpec, path: Path, seed: int = 0) -> NamedNetwork:
    """Write a checkpoint as pre-training does, and return the student's backbone."""
    torch.manual_seed(seed)
    student, teacher = build_backbone(spec), build_backbone(spec)
    assert isinstance(student, NamedNetwork)
    for parameter in student.parameters():  # no weight is as it was initialised: layer scales, norms
        torch.nn.init.normal_(parameter, std=0.05)
    model = {f"backbone.{name}": x for name, x in student.state_dict().items()}
    model |= {f"momentum_encoder.backbone.{name}": x for name, x in teacher.state_dict().items()}
    model |= {"projector.linear1.weight": torch.zeros(2, 2), "momentum_encoder.step": torch.zeros(())}
    about = {"format": CHECKPOINT_FORMAT, "version": CHECKPOINT_VERSION, "method": "pixpro"}
    about |= {"backbone": spec.as_dict(), "exports": ["backbone"], "left_behind": ["projector"]}
    torch.save({**about, "model": model}, path)
    return student.eval()


@SPECS
def test_a_checkpoint_arrives_in_timm(spec: NamedSpec, tmp_path: Path) -> None:
    source, out = tmp_path / "checkpoint.pth", tmp_path / "timm.safetensors"
    student = checkpoint(spec, source)
    done = convert(source, out, "timm")
    assert done.parity is not None
    assert done.parity.ok
    assert done.reading.counts.converted == len(student.state_dict())
    theirs = timm.create_model(spec.function, num_classes=0, checkpoint_path=str(out), **spec.options).eval()
    x = torch.randn(1, 3, 64, 64) if spec is not VIT else torch.randn(1, 3, 32, 32)
    found = theirs.forward_features(x)
    if spec is VIT:
        torch.testing.assert_close(student(x).flatten(2).transpose(1, 2), found[:, 1:])
    elif spec is CONVNEXT:
        torch.testing.assert_close(student(x), found)
    else:
        torch.testing.assert_close(theirs.norm(student(x).permute(0, 2, 3, 1)), found)
    again = load(out)
    assert again.spec == spec
    assert prove(source, out)[0].ok


def test_a_changed_weight_is_found(tmp_path: Path) -> None:
    checkpoint(VIT, tmp_path / "one.pth")
    convert(tmp_path / "one.pth", tmp_path / "one.safetensors", "timm")
    checkpoint(VIT, tmp_path / "two.pth", seed=1)
    parity, _, _ = prove(tmp_path / "two.pth", tmp_path / "one.safetensors")
    assert not parity.ok
    assert parity.unequal
    assert all(difference.relative > 1e-3 for difference in parity.stages.values())


def test_both_branches_and_what_inspect_says(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    student = checkpoint(VIT, path)
    assert torch.equal(load(path).state["net.cls_token"], student.net.cls_token)
    assert not torch.equal(load(path, "momentum_encoder").state["net.cls_token"], student.net.cls_token)
    about = inspect(path)["formats"]["pixbench"]
    assert about["backbone"]["title"] == VIT.title
    assert about["unknown"] == []


@SPECS
def test_a_frozen_network_gives_the_map_of_the_spec(spec: NamedSpec, tmp_path: Path) -> None:
    student = checkpoint(spec, tmp_path / "checkpoint.pth")
    frozen = FrozenNetwork(load(tmp_path / "checkpoint.pth"))
    images = torch.randint(0, 256, (1, 3, 64, 64)).float()
    torch.testing.assert_close(frozen(images), student(frozen.normalised(images)).permute(0, 2, 3, 1))
    assert frozen.stride == student.stride
    assert frozen.shape(64, 64) == frozen(images).shape[1:]


def test_the_stride_of_a_hierarchical_network_is_a_choice() -> None:
    network = NamedNetwork(CONVNEXT)
    backbone = Backbone(CONVNEXT, network.state_dict(), "it")
    assert FrozenNetwork(backbone, 16)(torch.zeros(1, 3, 64, 64)).shape == (1, 4, 4, 24)
    with pytest.raises(UserError, match="no map of stride 3"):
        FrozenNetwork(backbone, 3)


def test_the_version_of_the_checkpoint_is_checked(tmp_path: Path) -> None:
    checkpoint(VIT, path := tmp_path / "checkpoint.pth")
    torch.save({**torch.load(path), "version": CHECKPOINT_VERSION + 1}, path)
    with pytest.raises(UserError, match=rf"of version {CHECKPOINT_VERSION + 1}, but this PixBench reads"):
        load(path)


def test_missing_and_unknown_keys_are_named(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    checkpoint(VIT, path)
    content = torch.load(path)
    content["model"]["backbone.net.more"] = content["model"].pop("backbone.net.cls_token")
    torch.save(content, path)
    with pytest.raises(UserError, match=r"1 missing \(net.cls_token\).*1 unexpected \(net.more\)"):
        load(path)


def test_a_file_cannot_run_code_that_was_not_permitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_nets.py").write_text(
        "import torch\n"
        "def net():\n"
        "    class Net(torch.nn.Conv2d):\n"
        "        channels, strides = [4], [8]\n"
        "        def forward(self, x):\n"
        "            return [super().forward(x)]\n"
        "    return Net(3, 4, 8, 8)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = tmp_path / "checkpoint.pth"
    checkpoint(NamedSpec("my_nets:net"), path)
    monkeypatch.delitem(sys.modules, "my_nets")
    with pytest.raises(UserError, match="PIXBENCH_NETWORKS=my_nets"):
        read(path)
    assert "my_nets" not in sys.modules
    monkeypatch.setenv("PIXBENCH_NETWORKS", "others,my_nets")
    assert read(path).backbone.spec == NamedSpec("my_nets:net")


def test_other_options_are_other_networks(tmp_path: Path) -> None:
    checkpoint(VIT, tmp_path / "one.pth")
    other = replace(VIT, options=VIT.options | {"depth": 3})
    checkpoint(other, tmp_path / "two.pth")
    with pytest.raises(UserError, match="different networks"):
        prove(tmp_path / "one.pth", tmp_path / "two.pth")

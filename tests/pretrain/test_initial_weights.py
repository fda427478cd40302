"""`init_from`: what `pixbench pretrain` reads, and what `pretrain` does with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.commands.main import main as pixbench
from benchmarks.commands.pretrain import initial_weights
from pixbench.errors import UserError
from pixbench.file_versions import CHECKPOINT_FILE
from pixbench.files import sha256
from pretrain import checkpoint
from pretrain.__main__ import main
from pretrain.config import from_dict, parse
from pretrain.initial_weights import check_backbone
from pretrain.models.backbone_spec import BackboneSpec
from pretrain.models.resnet import build_resnet
from pretrain.run import setup
from pretrain.settings import RunConfig
from transfer.weights import Backbone
from transfer.weights.file_format import Pixels

pytestmark = pytest.mark.slow

SPEC = BackboneSpec(18, 0.0625)


def weights(path: Path, spec: BackboneSpec = SPEC, seed: int = 5) -> Path:
    """Write a backbone alone, with torchvision's names."""
    torch.manual_seed(seed)
    torch.save(build_resnet(spec).state_dict(), path)
    return path


@pytest.fixture
def words(image_tree: Callable[..., Path], tmp_path: Path) -> list[str]:
    """Settings of 2 steps from ``w.pth``; C5 has a stride other than the file's."""
    options = {
        "method.name": "pixpro",
        "method.hidden": 8,
        "method.dim": 8,
        "data.root": image_tree(2, 8),
        "data.image_size": 32,
        "data.workers": 0,
        "backbone.depth": 18,
        "backbone.width": 0.0625,
        "backbone.output_stride": 16,
        "schedule.warmup_epochs": 0,
        "batch_size": 8,
        "epochs": 1,
        "init_from": weights(tmp_path / "w.pth"),
        "out": tmp_path / "run",
    }
    return [f"--{key}={value}" for key, value in options.items()]


def test_the_student_and_its_copy_start_from_the_file(words: list[str], tmp_path: Path) -> None:
    config = parse(words)
    initial = initial_weights(config)
    assert initial is not None
    run = setup(config, torch.device("cpu"), initial)
    held = torch.load(tmp_path / "w.pth", weights_only=True)
    state = run.method.state_dict()
    names = [name for name in state if name.startswith("backbone.")]
    assert len(names) > 100
    for name in names:
        assert state[name].equal(held[name.removeprefix("backbone.")])
        assert state[f"momentum_encoder.{name}"].equal(state[name])
    assert run.notes == [f"starting from {tmp_path}/w.pth ({SPEC.title}; sha256 {initial.sha256[:12]})"]


def test_a_run_from_weights_goes_on(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digest = sha256(tmp_path / "w.pth")
    assert pixbench(["pretrain", *words]) == 0
    assert "starting from" in capsys.readouterr().out
    content = checkpoint.load(tmp_path / "run" / CHECKPOINT_FILE)
    assert content["initial"] == {"source": f"{tmp_path}/w.pth", "sha256": digest}
    assert pixbench(["pretrain", *words, "--epochs=2"]) == 0
    printed = capsys.readouterr().out
    assert "going on after step 2 of 4" in printed
    assert "starting from" not in printed
    assert checkpoint.load(tmp_path / "run" / CHECKPOINT_FILE)["initial"] == content["initial"]

    (tmp_path / "w.pth").rename(tmp_path / "moved.pth")
    assert main([*words, "--epochs=3"]) == 0  # the checkpoint is enough
    assert pixbench(["pretrain", *words, "--epochs=4"]) == 0
    assert pixbench(["pretrain", *words, "--epochs=5", f"--init_from={tmp_path}/moved.pth"]) == 0
    weights(tmp_path / "w.pth", seed=6)
    assert pixbench(["pretrain", *words, "--epochs=6"]) == 2
    assert f"belongs to a run from other weights: {tmp_path}/w.pth with sha256 {digest[:12]}" in capsys.readouterr().err
    assert pixbench(["pretrain", *words, "--epochs=5", "--init_from="]) == 2
    assert "init_from (checkpoint: " in capsys.readouterr().err


def test_who_reads_the_file(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    printed = capsys.readouterr().err
    assert "python -m pretrain reads no weights; start the same run with pixbench pretrain" in printed
    assert "torchrun --nproc_per_node 8 --no-python pixbench pretrain" in printed
    assert pixbench(["pretrain", *words, "--init_from=nowhere.pth"]) == 2
    assert "there is no file nowhere.pth" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def config(path: Path) -> RunConfig:
    return from_dict({"method": {"name": "pixpro"}, "init_from": str(path)})


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    initial = initial_weights(config(weights(tmp_path / "a.pth")))
    assert initial is not None
    check_backbone(initial, replace(SPEC, output_stride=8))
    with pytest.raises(
        UserError, match=r"holds a ResNet-18 of width 0\.0625, .* ResNet-50 of width 1; give --backbone\.dep"
    ):
        check_backbone(initial, BackboneSpec())
    small = replace(SPEC, stem="3x3", output_stride=8)
    initial = initial_weights(config(weights(tmp_path / "b.pth", small)))
    assert initial is not None
    with pytest.raises(UserError, match=r"give --backbone\.stem 3x3 --backbone\.output_stride 8, or"):
        check_backbone(initial, SPEC)


def test_other_pixels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    pixels = Pixels("BGR", (103.53, 116.28, 123.675), (1.0, 1.0, 1.0))
    caffe = Backbone(SPEC, build_resnet(SPEC).state_dict(), "a test", pixels=pixels)
    monkeypatch.setattr("transfer.weights.load", lambda located: caffe)
    with pytest.raises(UserError, match=r"takes BGR, mean 103\.53, .*, but pre-training gives RGB, mean 123\.675"):
        initial_weights(config(weights(tmp_path / "a.pth")))


def test_what_else_is_in_the_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extras = {"fpn.lateral3.weight": torch.zeros(1), "head.conv1.weight": torch.zeros(1)}
    held = Backbone(SPEC, build_resnet(SPEC).state_dict(), "a test", extras=extras)
    monkeypatch.setattr("transfer.weights.load", lambda located: held)
    initial = initial_weights(config(weights(tmp_path / "a.pth")))
    assert "; its fpn and head is not used" in str(initial)

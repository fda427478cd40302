"""`python -m benchmarks.speed...`: what the commands take, print and write. How fast anything is does not matter here."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from benchmarks.speed import __main__ as speed
from benchmarks.speed import engine, methods, options, pretrain_step
from benchmarks.speed.__main__ import Pair
from benchmarks.speed.page import ENOUGH, page, table
from pretrain.methods import METHODS

SMALL = ["--backbone.width=0.03125", "--data.image_size=32", "--data.cache=false", "--batch_size=8"]
MODULES = ("__main__", "check", "checkpoints", "data_index", "engine", "methods", "pretrain_step", "scaling", "weights")


@pytest.mark.parametrize("module", MODULES)
def test_help_names_the_command_and_explains_every_option(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "--help"])
    with pytest.raises(SystemExit, match="0"):
        importlib.import_module(f"benchmarks.speed.{module}").main()
    said = capsys.readouterr().out
    assert said.startswith(f"usage: python -m benchmarks.speed.{module} ".replace(".__main__", ""))
    shown = said.partition("\noptions:\n")[2].splitlines()
    for line, following in pairwise([*shown, ""]):
        if line.startswith("  -"):  # the text is beside the option, or below it
            assert "  " in line.strip() or following.startswith(6 * " "), line


def test_a_mistyped_name_is_refused_with_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        speed.main(["lose"])
    said = capsys.readouterr().err
    assert (
        "'lose' is not one of input, loss, ppm, step, mini, options, gpu_loss, gpu_ppm, gpu_step; did you mean loss?"
        in said
    )
    with pytest.raises(SystemExit, match="2"):
        speed.main(["--rounds", "0"])
    assert "argument --rounds: '0' is not a whole number above 0" in capsys.readouterr().err


def test_a_file_that_cannot_take_the_figures_is_refused_before_they_are_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.json").write_text("[1]")
    (tmp_path / "broken.json").write_text("{")
    for name, reason in (
        ("none/x.json", "there is no folder"),
        ("other.json", "does not hold figures"),
        ("broken.json", "cannot be read as JSON"),
    ):
        with pytest.raises(SystemExit, match="2"):
            speed.main(["loss", "--into", str(tmp_path / name)])
        assert reason in capsys.readouterr().err


def test_what_needs_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        speed.main(["gpu_step"])
    assert "gpu_step needs a CUDA device, and PyTorch finds none" in capsys.readouterr().err


@pytest.mark.gpu
def test_a_gpu_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    small = {
        name: [Pair(f"{name[4:]}_ours:7:2@cuda", f"{name[4:]}_reference:7:2@cuda", name)]
        for name in ("gpu_loss", "gpu_ppm")
    }
    monkeypatch.setattr(speed, "GPU_GROUPS", small)
    speed.main([*small, "--rounds", "1", "--into", str(tmp_path / "mine.json")])
    stored = json.loads((tmp_path / "mine.json").read_text())
    assert stored["gpu_loss"]["gpu"] == torch.cuda.get_device_name()
    assert all(group["lines"][0]["megabytes"] > 0 for group in stored.values())
    assert torch.cuda.get_device_name() in page(stored)


def test_few_turns_are_not_compared_with_the_aim() -> None:
    line = {
        "title": "work",
        "seconds": 1.0,
        "ratio": 0.9,
        "time": 0.8,
        "megabytes": 1.0,
        "memory_ratio": 0.2,
        "memory": 0.5,
    }
    assert "0.90 (aim: 0.80)" in table([{**line, "rounds": ENOUGH - 1}])
    whole = table([{**line, "rounds": ENOUGH}])
    assert "0.90 ✗ (aim: 0.80)" in whole
    assert "0.20 ✓ (aim: 0.50)" in whole


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of the real processes with maps of 2 × 2 cells; the current folder has a folder docs."""
    groups = {
        name: [speed.Pair(f"{name}_ours:2:1", f"{name}_reference:2:1", f"{name} of 2 × 2", time=1.0)]
        for name in ("loss", "ppm")
    }
    monkeypatch.setattr(speed, "GROUPS", groups)
    monkeypatch.setenv("PYTHONPATH", str(Path(speed.__file__).parents[2]))
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.e2e
def test_nothing_is_written_unless_a_file_is_named(
    small: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    speed.main(["loss", "--rounds", "1"])
    out, err = capfd.readouterr()
    assert out.count("× memory") == 1  # one table
    assert "loss of 2 × 2" in out
    assert f"median of 1 turn, too few to compare with the aims; take {ENOUGH} or more" in out
    assert "✗" not in out
    assert err.splitlines() == ["measuring: loss of 2 × 2"]
    assert [path.name for path in tmp_path.rglob("*")] == ["docs"]


@pytest.mark.e2e
def test_all_figures_and_their_plot_are_written_where_one_says(small: None, tmp_path: Path) -> None:
    speed.main(["--rounds", "1", "--into", "mine.json"])
    assert list(json.loads((tmp_path / "mine.json").read_text())) == ["loss", "ppm"]
    assert (tmp_path / "mine.png").exists()
    assert not any((tmp_path / "docs").iterdir())


def test_the_cost_of_steps_has_a_row_for_every_method_branch_and_network() -> None:
    rows = methods.configs()
    assert next(iter(rows)) == "supervised"
    assert {name.partition(",")[0] for name in rows} == METHODS.keys()
    networks = {"ibot": "vit_small_patch16_224", "densecl": "vit_small_patch16_224", "pixpro": "convnext_tiny"}
    assert {f"{method}, {network}" for method, network in networks.items()} < rows.keys()
    assert rows["pixpro"] == "pixpro_100ep.yaml"
    assert {
        "pixpro, instance contrastive",
        "pixpro, instance regression",
        "pixpro, vit_small_patch16_224",
    } < rows.keys()


def test_the_options_of_a_run_are_those_of_pretrain(tmp_path: Path) -> None:
    config = options.run_settings(["--data.root", "x", "--epochs=7", "--out", "own"], tmp_path)
    assert (config.data.root, config.epochs, config.out) == ("x", 7, str(tmp_path))
    assert (config.method.name, config.backbone.width, config.data.workers) == ("pixpro", 0.25, 0)
    paper = options.run_settings(["--config", "configs/pretrain/byol_300ep.yaml", "--data.workers", "3"], tmp_path)
    assert (paper.method.name, paper.backbone.width, paper.data.workers) == ("byol", 1.0, 3)


@pytest.mark.slow
def test_a_step_of_my_own_images(mini_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data.root", str(mini_root / "imagenet"), "--rounds", "1", *SMALL]
    pretrain_step.main(words)
    step, data, workers = capsys.readouterr().out.splitlines()
    assert step.startswith("step: ")
    assert data.startswith("data, one worker: ")
    assert int(workers.removeprefix("data workers that keep up with the step: ")) >= 1
    pretrain_step.main([*words, "--compare", "data.backend=pil,opencv"])
    step, _, workers = capsys.readouterr().out.splitlines()
    assert "; ratio " in step
    assert "data.backend=pil " in workers
    assert "data.backend=opencv " in workers


@pytest.mark.slow
def test_the_engine_beside_the_bare_step(mini_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--log_every=1", "--log.knn_every=0", "--log.views_every=0"]
    engine.main(["--data.root", str(mini_root / "imagenet"), "--blocks", "1", *SMALL, *few])
    said = capsys.readouterr().out
    assert "engine alone" in said
    assert "epochs:" not in said  # no picture, no k-NN accuracy


@pytest.mark.e2e
def test_what_the_user_can_correct_is_one_sentence(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "benchmarks.speed.engine", "--data.root", str(tmp_path / "none"), *SMALL]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("benchmarks.speed.engine: error: root ")
    assert len(done.stderr.splitlines()) == 1

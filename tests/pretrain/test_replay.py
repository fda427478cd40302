"""`pixbench replay`: the same batch and the same weights as in the run, and where the first value that is not finite is."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from benchmarks.commands.main import main
from pixbench.errors import UserError
from pixbench.file_versions import CHECKPOINT_FILE
from pretrain import checkpoint, engine
from pretrain.config import from_dict
from pretrain.data.loader import Batches
from pretrain.data.order import EpochOrder
from pretrain.data.views import Views
from pretrain.methods.simclr import SimCLR
from pretrain.output_watch import OutputWatch
from pretrain.replay import replay
from pretrain.settings import RunConfig

pytestmark = pytest.mark.slow
CPU = torch.device("cpu")


def test_the_first_module_that_is_not_finite_is_the_innermost() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 3), nn.Identity()), nn.ReLU())
    with torch.no_grad():
        network[1][0].bias[1] = float("nan")
    with OutputWatch(network) as watch:
        network(torch.ones(1, 2))
    assert watch.first == "1.0 (Linear), call 1"
    assert set(watch.largest) == {"0", "1.0", "1.1", "2"}
    assert not any(module._forward_hooks for module in network.modules())


@pytest.fixture
def config(tiny: Callable[..., RunConfig]) -> RunConfig:
    """24 images, 3 steps an epoch, 2 epochs."""
    return tiny("run", "simclr", max_bad_steps=0)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Views, float]]:
    """The batches and losses of all steps."""
    found: list[tuple[Views, float]] = []
    original = engine.train_step

    def train_step(run: engine.Run, views: Views) -> dict[str, Any]:
        values = original(run, views)
        found.append((views, float(values["loss"])))
        return values

    monkeypatch.setattr(engine, "train_step", train_step)
    return found


@pytest.mark.parametrize(("method", "accumulate"), [("simclr", 1), ("simclr", 2), ("pixpro", 1)])
def test_a_step_is_rebuilt_exactly(
    config: RunConfig, method: str, accumulate: int, seen: list[tuple[Views, float]]
) -> None:
    """At the start, after a checkpoint, and from the folder of the earlier ones."""
    settings = from_dict({**config.as_dict(), "method": {"name": method, "hidden": 16, "dim": 8}})
    engine.train(replace(settings, checkpoint_every_steps=1, keep_last=3, accumulate=accumulate))
    for step in (5, 6):
        result = replay(Path(config.out), step, CPU)
        views, loss = seen[step - 1]
        assert f"after step {step - 1}" in result.weights
        assert torch.equal(result.views[0], views.ready().view1)
        assert torch.equal(result.views[1], views.ready().view2)
        assert [image["index"] for image in result.images] == views.image_index.tolist()
        assert sum(part["loss"] for part in result.losses) / accumulate == pytest.approx(loss, rel=1e-6)
        assert result.finite
    shutil.rmtree(Path(config.out) / "earlier")
    (Path(config.out) / CHECKPOINT_FILE).unlink()
    result = replay(Path(config.out), 1, CPU)
    assert result.weights == "those of the start"
    weights = replay(Path(config.out), 3, CPU).weights
    assert weights.startswith("those of the start. There is no checkpoint of step 2, so the run had other weights here")
    assert sum(part["loss"] for part in result.losses) / accumulate == pytest.approx(seen[0][1], rel=1e-6)


def test_what_is_not_finite_is_named(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The images of the batch are those of the file; the exit code says that something was found."""
    original = SimCLR.forward

    def forward(self: SimCLR, views: Views) -> dict[str, torch.Tensor]:
        if 7 in views.image_index.tolist():
            with torch.no_grad():
                next(self.projector.parameters())[0, 0] = float("nan")
        return original(self, views)

    monkeypatch.setattr(SimCLR, "forward", forward)
    with pytest.raises(UserError, match="not finite in 1 step in a row"):
        engine.train(config)
    described = json.loads((Path(config.out) / "bad_batch.json").read_text())
    capsys.readouterr()
    assert main(["replay", config.out]) == 1
    printed = capsys.readouterr().out
    assert f"step {described['step']}: 8 images" in printed
    assert "first output that is not finite: projector." in printed
    assert "gradients that are not finite: " in printed
    assert printed.count("pixels: normalised, as the network gets them: from -2.12 (black) to 2.64 (white)") == 1
    assert "view 1    view 1    view 1    view 2" in printed
    largest = re.search("modules with the largest finite outputs: (.*)", printed)
    assert largest
    assert "backbone." in largest[1]
    assert "nan" not in largest[1]
    assert re.search(r"modules with outputs that are not finite: [1-9]\d* of \d+", printed)
    assert main(["replay", config.out, "--anomaly"]) == 1
    printed = capsys.readouterr().out
    assert re.search(
        r"anomaly detection: Function '.* returned nan values .* belongs to File \".*pretrain/losses/", printed
    )
    facts = json.loads((Path(config.out) / "replay" / f"step{described['step']:09}.json").read_text())
    assert [image["name"] for image in facts["images"]] == described["images"]
    assert facts["finite"] is False
    with Image.open(Path(config.out) / "replay" / f"step{described['step']:09}.png") as picture:
        assert picture.size == (8 * 34 + 2, 2 * 34 + 2)

    assert main(["replay", config.out, "--step", "99"]) == 2
    assert "it has steps 1 to 6" in capsys.readouterr().err


def test_bad_steps_before_do_not_hide_whose_weights_these_are(config: RunConfig) -> None:
    engine.train(replace(config, epochs=1))
    path = Path(config.out) / CHECKPOINT_FILE
    content = checkpoint.load(path)
    for in_a_row, whose in (
        (1, f"those after step 2, from {path} (step 3 was bad and changed no weights)"),
        (2, f"those after step 1, from {path} (the steps 2 to 3 were bad and changed no weights)"),
        (3, f"those of the start, from {path} (the steps 1 to 3 were bad and changed no weights)"),
    ):
        checkpoint.save(path, {**content, "bad_steps": {"total": in_a_row, "in_a_row": in_a_row}})
        assert replay(Path(config.out), 3, CPU).weights == whose


def test_the_parts_of_several_processes_follow_one_another(config: RunConfig) -> None:
    engine.train(replace(config, epochs=1))
    path = Path(config.out) / CHECKPOINT_FILE
    checkpoint.save(path, {**checkpoint.load(path), "step": 2, "processes": 2})
    result = replay(Path(config.out), 3, CPU)
    assert len(result.losses) == 2
    indices = [image["index"] for image in result.images]
    for rank in range(2):
        part = next(iter(Batches(EpochOrder(24), 8, seed=0, first=2, last=3, rank=rank, world=2)))
        assert indices[4 * rank : 4 * rank + 4] == [index for _, index in part]


def test_what_cannot_be_replayed(config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step in ([], ["--step", "3"]):
        assert main(["replay", str(tmp_path / "nothing"), *step]) == 2
        assert f"there is no folder {tmp_path / 'nothing'}" in capsys.readouterr().err
        assert main(["replay", str(tmp_path), *step]) == 2
        assert "is not the folder of a pre-training run" in capsys.readouterr().err
    engine.train(replace(config, epochs=1))
    assert main(["replay", config.out]) == 2
    assert "did not stop for bad steps; choose a step with --step" in capsys.readouterr().err
    assert main(["replay", config.out, "--step", "0"]) == 2
    capsys.readouterr()
    (Path(config.out) / "bad_batch.json").write_text('{"step": 2')
    assert main(["replay", config.out]) == 2
    assert "bad_batch.json is damaged" in capsys.readouterr().err
    (Path(config.out) / "bad_batch.json").write_text('{"step": 2, "processes": 1, "samples": [[0, 1]]}')
    assert main(["replay", config.out]) == 2
    assert "names other images" in capsys.readouterr().err

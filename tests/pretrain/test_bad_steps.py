"""Steps whose loss is not finite are skipped and counted; too many in a row end the run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pixbench.errors import UserError
from pixbench.file_versions import BAD_BATCH_FILE, CHECKPOINT_FILE
from pretrain import checkpoint, earlier, engine
from pretrain.bad_batch import fingerprint
from pretrain.bad_steps import BadSteps, LateFlags
from pretrain.config import from_dict
from pretrain.data.loader import Batches
from pretrain.data.order import EpochOrder
from pretrain.methods.simclr import SimCLR
from pretrain.replay import replay
from pretrain.settings import RunConfig


def test_counts() -> None:
    steps = BadSteps(2)
    for bad in (True, False, True, True):
        steps.count(bad)
    assert (steps.total, steps.in_a_row, steps.too_many) == (3, 2, False)
    assert BadSteps(2, **steps.state()) == steps
    steps.count(True)
    assert steps.too_many


def test_flags_of_the_host_are_read_at_once() -> None:
    flags = LateFlags()
    flags.add(1, torch.tensor(True))
    flags.add(2, torch.tensor(False))
    assert list(flags.read(everything=False)) == [(1, True), (2, False)]
    assert list(flags.read(everything=True)) == []


@pytest.mark.gpu
def test_flags_of_a_gpu_are_read_two_steps_later() -> None:
    flags, seen = LateFlags(), []
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(1, 6):
            flags.add(step, torch.full((), step == 2, device="cuda"))
            seen.append(list(flags.read(everything=False)))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert seen == [[], [], [(1, False)], [(2, True)], [(3, False)]]
    assert list(flags.read(everything=True)) == [(4, False), (5, False)]


@pytest.fixture
def config(tiny: Callable[..., RunConfig]) -> RunConfig:
    """24 images, 3 steps an epoch, 4 epochs."""
    return tiny("run", "simclr", epochs=4, max_bad_steps=2)


@pytest.fixture
def bad_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``bad_at(steps)``: the loss of these steps is infinite."""
    original, done = SimCLR.forward, [0]

    def make(*bad: int, after: int = 0) -> None:
        done[0] = after

        def forward(self: SimCLR, views: Any) -> dict[str, torch.Tensor]:
            done[0] += 1
            values = original(self, views)
            return {**values, "loss": values["loss"] / (0 if done[0] in bad else 1)}

        monkeypatch.setattr(SimCLR, "forward", forward)

    return make


def log_of(config: RunConfig) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(config.out) / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_few_are_skipped(config: RunConfig, bad_at: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    bad_at(3, 6, 7)
    assert engine.train(config) == 0
    lines = log_of(config)
    assert [line.get("bad_steps", 0) for line in lines] == [0, 0, 1, 1, 1, 2, 3, 3, 3, 3, 3, 3]
    assert [line["step"] for line in lines if line["loss"] is None] == [3, 6, 7]
    printed = capsys.readouterr().out
    assert printed.count("the loss or a gradient is not finite, so the step is skipped") == 2, "once for each row"
    assert "step 3: the loss or a gradient is not finite, so the step is skipped (images n0000000" in printed
    content = checkpoint.load(Path(config.out) / CHECKPOINT_FILE)
    assert content["bad_steps"] == {"total": 3, "in_a_row": 0}
    assert all(value.isfinite().all() for value in content["model"].values())


@pytest.mark.slow
def test_too_many_in_a_row_stop_the_run(config: RunConfig, bad_at: Callable[..., None]) -> None:
    """The checkpoint is of that moment, and its weights those before the first of them. A run that is started again goes on."""
    bad_at(2, 5, 6, 7)
    with pytest.raises(
        UserError, match=r"not finite in 3 steps in a row, the last of them step 7 \(images .*pixbench replay"
    ):
        engine.train(config)
    out = Path(config.out)
    content = checkpoint.load(out / CHECKPOINT_FILE, verify=True)
    assert (content["step"], content["bad_steps"]) == (7, {"total": 4, "in_a_row": 3})
    before = checkpoint.load(earlier.earlier(out)[0], verify=True)
    assert (before["step"], before["bad_steps"]["in_a_row"]) == (6, 2)
    for name, value in before["model"].items():
        assert torch.equal(value, content["model"][name]) or name.endswith("num_batches_tracked"), name
    described = json.loads((out / BAD_BATCH_FILE).read_text())
    order = Batches(EpochOrder(24), 8, seed=0, first=6, last=7)
    assert [tuple(sample) for sample in described["samples"]] == next(iter(order))
    assert (described["step"], described["seed"], described["processes"]) == (7, 0, 1)
    assert len(described["images"]) == 8
    assert described["config"] == fingerprint(replace(from_dict(content["config"]), out="elsewhere"))
    assert json.loads((out / "result.json").read_text())["status"] == "failed"

    shutil.rmtree(out / "earlier")  # the one there is of step 6
    said = replay(out, None, torch.device("cpu")).weights
    assert said.startswith("those after step 4, from ")
    assert "the steps 5 to 7 were bad and changed no weights" in said
    bad_at(8, after=7)
    with pytest.raises(UserError, match="4 steps in a row, the last of them step 8"):
        engine.train(config)
    bad_at(after=8)
    assert engine.train(config) == 0
    assert not (out / BAD_BATCH_FILE).exists()
    assert checkpoint.load(out / CHECKPOINT_FILE)["bad_steps"] == {"total": 5, "in_a_row": 0}


@pytest.mark.slow
def test_the_row_goes_on_after_a_resume(config: RunConfig, bad_at: Callable[..., None]) -> None:
    """An epoch ends in the middle of the row, and then the process is gone."""
    bad_at(5, 6, 7)
    original = engine.train_step

    def killed(run: engine.Run, views: Any) -> dict[str, Any]:
        if run.step == 6:
            raise KeyboardInterrupt
        return original(run, views)

    engine.train_step = killed
    try:
        with pytest.raises(KeyboardInterrupt):
            engine.train(config)
    finally:
        engine.train_step = original
    assert checkpoint.load(Path(config.out) / CHECKPOINT_FILE)["bad_steps"] == {"total": 2, "in_a_row": 2}
    bad_at(7, after=6)
    with pytest.raises(UserError, match="3 steps in a row, the last of them step 7"):
        engine.train(config)

"""Checkpoints are written in a thread; what goes wrong there reaches the run."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pixbench.errors import UserError
from pretrain import checkpoint, earlier, engine
from pretrain.run import Run, setup
from pretrain.saver import Saver
from pretrain.settings import RunConfig


@pytest.fixture
def config(tiny: Callable[..., RunConfig]) -> RunConfig:
    """24 images, 3 steps an epoch, 2 epochs; a checkpoint after each step."""
    return tiny("run", checkpoint_every_steps=1)


@pytest.fixture
def run(config: RunConfig) -> Run:
    return setup(config, torch.device("cpu"))


@pytest.fixture
def full_disk() -> Iterator[None]:
    """The system refuses to write more than 200 kB to a file, as it does when the disk is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def weight(content: Any) -> torch.Tensor:
    value: torch.Tensor = content["model"]["backbone.conv1.weight"]
    return value


def test_the_run_goes_on_while_the_file_is_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    go, original = threading.Event(), earlier.save
    monkeypatch.setattr(earlier, "save", lambda *given: (go.wait(30), original(*given)))
    saver, before = Saver(run), run.method.state_dict()["backbone.conv1.weight"].clone()
    saver.save(run)
    with torch.no_grad():
        run.method.state_dict()["backbone.conv1.weight"].add_(1)  # the next step
    saver.check()  # nothing has gone wrong so far, and it does not wait
    assert not run.latest.exists()
    go.set()
    saver.finish()
    assert torch.equal(weight(checkpoint.load(run.latest)), before)
    saver.close()


def test_a_step_is_saved_once(run: Run) -> None:
    saver = Saver(run)
    saver.save(run)
    saver.finish()
    before = run.latest.stat().st_mtime_ns
    saver.save(run)
    saver.close()
    assert run.latest.stat().st_mtime_ns == before
    assert earlier.earlier(run.out) == []


@pytest.mark.usefixtures("full_disk")
def test_an_error_of_the_thread_is_raised_at_the_next_call(run: Run) -> None:
    saver = Saver(run)
    saver.save(run)
    with pytest.raises(UserError, match=r"checkpoint\.pth cannot be written \(File too large\); free some disk space"):
        saver.finish()
    saver.finish()  # it is raised once
    saver.save(replace(run, step=1))
    saver.close()  # waits, and hides nothing that matters: the run has ended
    assert not run.latest.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_ends_the_run(config: RunConfig) -> None:
    with pytest.raises(UserError, match=r"checkpoint\.pth cannot be written \(File too large\)"):
        engine.train(config)
    assert not list(Path(config.out).rglob("*.pth"))


@pytest.mark.slow
@pytest.mark.parametrize("keep_last", [1, 3])
def test_the_last_ones_are_kept(config: RunConfig, keep_last: int) -> None:
    engine.train(replace(config, keep_last=keep_last))
    kept = [checkpoint.load(path, verify=True)["step"] for path in earlier.earlier(Path(config.out))]
    assert kept == [5, 4][: keep_last - 1]

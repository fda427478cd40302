"""A run goes on without its broken images: the same ones with any number of workers and processes, and after any restart."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from started import output
from test_cli import arguments, start, steps, torchrun, wait_for

from pixbench.errors import UserError
from pixbench.file_versions import CHECKPOINT_FILE, RESULT_FILE, SKIPPED_LIST
from pretrain import checkpoint, engine
from pretrain.config import from_dict
from pretrain.data.order import EpochOrder
from pretrain.data.sources import open_source
from pretrain.settings import RunConfig

pytestmark = pytest.mark.slow

Tree = Callable[..., Path]


def broken(root: Path, *indices: int) -> list[str]:
    source = open_source(root)
    for index in indices:
        Path(source.where(index)).write_bytes(b"")
    return [source.names[index] for index in indices]


@pytest.fixture
def config(image_tree: Tree, tmp_path: Path) -> Callable[..., RunConfig]:
    """Runs of 2 epochs on 24 images in 6 steps, of which a tenth may be broken."""
    root = image_tree(2, 12)

    def make(out: str, **data: Any) -> RunConfig:
        content = {
            "method": {"name": "pixpro", "hidden": 8, "dim": 8},
            "data": {"root": str(root), "image_size": 32, "workers": 0, "max_skipped": 0.1, **data},
            "backbone": {"depth": 18, "width": 0.0625, "output_stride": 16},
            "schedule": {"warmup_epochs": 0},
            **{"epochs": 2, "batch_size": 8, "log_every": 1, "checkpoint_every_steps": 2, "out": str(tmp_path / out)},
        }
        return from_dict(content)

    return make


def outcome(config: RunConfig) -> tuple[dict[str, torch.Tensor], dict[int, str]]:
    content = checkpoint.load(Path(config.out) / CHECKPOINT_FILE)
    return content["model"], content["skipped"]


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


def test_the_same_images_are_skipped_however_a_run_is_made(
    config: Callable[..., RunConfig], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = config("straight")
    names = broken(Path(straight.data.root), 5, 6)
    engine.train(straight)
    model, skipped = outcome(straight)
    assert skipped == {5: "it is empty", 6: "it is empty"}
    listed = (Path(straight.out) / SKIPPED_LIST).read_text()
    assert sorted(listed.splitlines()) == [f"{name}\tit is empty" for name in names]
    printed = capsys.readouterr().out
    assert printed.count("is skipped (it is empty)") == 2
    assert "2 skipped" in printed
    assert json.loads((Path(straight.out) / RESULT_FILE).read_text())["skipped"] == 2
    assert json.loads((Path(straight.out) / "log.jsonl").read_text().splitlines()[-1])["skipped"] == 2

    for out, data in (("workers", {"workers": 2}), ("cache", {"cache": True}), ("both", {"workers": 1, "cache": True})):
        other = config(out, **data)
        engine.train(other)
        assert outcome(other)[1] == skipped
        assert same(outcome(other)[0], model)

    stopped = config("stopped")
    original, calls = engine.train_step, []

    def train_step(run: engine.Run, views: engine.Views) -> dict[str, Any]:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("killed")
        return original(run, views)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "train_step", train_step)
        with pytest.raises(RuntimeError, match="killed"):
            engine.train(stopped)
    (Path(stopped.out) / SKIPPED_LIST).write_text("more than the checkpoint knows\tx\n")
    engine.train(stopped)
    assert outcome(stopped)[1] == skipped
    assert same(outcome(stopped)[0], model)
    assert sorted((Path(stopped.out) / SKIPPED_LIST).read_text().splitlines()) == sorted(listed.splitlines())


def test_only_images_of_finished_batches_are_counted(
    config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = config("run", workers=1)  # the worker is several batches ahead
    last = int(EpochOrder(24).numbers(0, 0)[-1])
    broken(Path(run.data.root), last)
    seen = []

    def stop_early(first: engine.Run, views: engine.Views) -> dict[str, Any]:
        seen.append(dict(first.skipped))
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return {"loss": torch.ones(()), "lr": 1.0, "bad": torch.zeros((), dtype=torch.bool)}

    monkeypatch.setattr(engine, "train_step", stop_early)
    with pytest.raises(KeyboardInterrupt):
        engine.train(run)
    assert seen == [{}, {}, {last: "it is empty"}]


def test_too_many_end_the_run_with_the_list(config: Callable[..., RunConfig]) -> None:
    run = config("run")
    names = broken(Path(run.data.root), 2, 9, 17)
    with pytest.raises(
        UserError,
        match=r"^3 of 24 images are broken, more than data\.max_skipped 0\.1 allows: .*\(it is empty\).*skipped\.txt",
    ):
        engine.train(run)
    listed = (Path(run.out) / SKIPPED_LIST).read_text().splitlines()
    assert sorted(listed) == [f"{name}\tit is empty" for name in names]
    assert json.loads((Path(run.out) / RESULT_FILE).read_text())["status"] == "failed"
    more = replace(run, data=replace(run.data, max_skipped=0.2))  # may change when the run goes on
    assert engine.train(more) == 0
    assert set(outcome(more)[1]) == {2, 9, 17}


@pytest.mark.parametrize("max_skipped", [0.0, 1.0])
def test_a_folder_of_broken_images(config: Callable[..., RunConfig], max_skipped: float) -> None:
    run = config("run", max_skipped=max_skipped)
    broken(Path(run.data.root), *range(24))
    said = r"24 of 24 images are broken" if max_skipped else r"image .* is broken \(it is empty\)"
    with pytest.raises(UserError, match=said):
        engine.train(run)
    if max_skipped:
        assert len((Path(run.out) / SKIPPED_LIST).read_text().splitlines()) == 24


def test_one_image_of_few_may_be_broken(config: Callable[..., RunConfig]) -> None:
    run = config("run", max_skipped=0.01)
    broken(Path(run.data.root), 3)
    assert engine.train(run) == 0
    assert outcome(run)[1] == {3: "it is empty"}


SOME = ("--epochs", "2", "--data.max_skipped", "0.2", "--data.cache", "false", "--accumulate", "2")


@pytest.mark.e2e
def test_two_processes(image_tree: Tree, tmp_path: Path) -> None:
    """Broken images that either process meets are counted once, by both."""
    root = image_tree(2, 12)
    broken(root, 4, 5, 16)
    done = torchrun(*arguments(root, tmp_path / "two", *SOME))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "two" / SKIPPED_LIST).read_text().count("\n") == 3
    content = checkpoint.load(tmp_path / "two" / CHECKPOINT_FILE)
    assert sorted(content["skipped"]) == [4, 5, 16]
    assert done.stdout.count("is skipped (it is empty)") == 3


@pytest.mark.e2e
def test_a_kill_and_too_many_in_two_processes(image_tree: Tree, tmp_path: Path) -> None:
    root = image_tree(2, 12)
    names = broken(root, 4, 5, 16)
    words = arguments(root, tmp_path / "one", *SOME, "--checkpoint_every_steps", "2")
    process = start(*words)
    wait_for(lambda: len(steps(tmp_path / "one")) >= 3, process)
    process.kill()
    process.communicate()
    process = start(*words)
    _, error = output(process)
    assert process.returncode == 0, error
    listed = (tmp_path / "one" / SKIPPED_LIST).read_text().splitlines()
    content = checkpoint.load(tmp_path / "one" / CHECKPOINT_FILE)
    assert [line.split("\t")[0] for line in listed] == [open_source(root).names[index] for index in content["skipped"]]
    assert sorted(line.split("\t")[0] for line in listed) == names

    broken(root, 10, 11, 12)
    done = torchrun(*arguments(root, tmp_path / "three", *SOME))
    assert done.returncode != 0
    assert done.stderr.count("of 24 images are broken, more than data.max_skipped 0.2 allows") >= 1
    assert "defect" not in done.stderr

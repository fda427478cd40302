"""What a run shows of its numbers: log.jsonl, TensorBoard, the screen."""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from pretrain import engine
from pretrain.data.sources import Source
from pretrain.log.memory import Memory
from pretrain.log.screen import SHOWN
from pretrain.settings import LogConfig, RunConfig

Runs = Callable[..., RunConfig]
REPO = Path(__file__).parents[2]
ALWAYS = {"loss", "lr", "feature_std", "images_per_s", "data_wait", "memory_gb"}


def log_of(config: RunConfig) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(config.out) / "log.jsonl").read_text().splitlines()]


def board_of(config: RunConfig) -> EventAccumulator:
    board = EventAccumulator(str(Path(config.out) / "tensorboard"), size_guidance={"images": 0})
    board.Reload()
    return board


def test_memory_is_about_what_the_process_has() -> None:
    block = np.ones(50_000_000, dtype=np.uint8)
    found = Memory(torch.device("cpu")).gigabytes() * 1e9
    assert block.nbytes < found < 1.5 * psutil.Process().memory_info().rss + 1e9


@pytest.mark.slow
@pytest.mark.parametrize("method", ["pixpro", "simclr"])
def test_every_value_is_in_the_log_on_the_board_and_on_the_screen(
    method: str, tiny: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny("run", method)
    engine.train(config)
    lines, said, board = log_of(config), capsys.readouterr().out, board_of(config)
    own = {"momentum", "positives"} if method == "pixpro" else {"accuracy"}
    for line in lines:
        assert line.keys() == {"step", "epoch", "time", *ALWAYS, *own}
        assert 0 <= line["data_wait"] <= 1
        assert 0.05 < line["memory_gb"] < 20
    for name in {*ALWAYS, *own}:
        assert [event.step for event in board.Scalars(name)] == [1, 2, 3, 4, 5, 6]
        assert [event.value for event in board.Scalars(name)] == pytest.approx([line[name] for line in lines])
    assert [event.step for event in board.Images("views")] == [1]
    assert re.search(r"epoch 2.0/2, step 6/6, \d+ img/s, data wait \d+%, \d+\.\d GB, 00:00 left\n", said)
    values = r"    loss -?\d+\.\d{4}, lr [\d.e-]+, EMA 0\.\d{4}, feature std \d\.\d\d, \d+\.\d positives\n"
    if method == "pixpro":
        assert re.search(values, said)
        # from 0.99 to 1 along a cosine, in the 6 steps of the run; the value is that of the next step
        assert lines[2]["momentum"] == pytest.approx(1 - 0.01 * (np.cos(np.pi * 3 / 6) + 1) / 2)


@pytest.mark.e2e
def test_slow_images_show_as_waiting(tiny: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Source.read
    monkeypatch.setattr(Source, "read", lambda source, index: (time.sleep(0.1), original(source, index))[1])
    config = tiny("run", epochs=1)
    engine.train(replace(config, data=replace(config.data, cache=False)))
    assert all(line["data_wait"] > 0.3 for line in log_of(config)[1:])


@pytest.mark.slow
def test_pictures_come_at_the_start_and_every_so_many_epochs(tiny: Runs) -> None:
    config = tiny("run", epochs=4, log=LogConfig(views_every=2, knn_every=0))
    engine.train(config)
    images = board_of(config).Images("views")
    assert [image.step for image in images] == [1, 6, 12]
    side = 32 * 7  # views of 32 pixels are enlarged to 224
    assert (images[0].width, images[0].height) == (2 * side + 8, 4 * side + 3 * 8)
    off = tiny("off", log=LogConfig(views_every=0))
    engine.train(off)
    assert "views" not in board_of(off).Tags()["images"]


@pytest.mark.slow
def test_a_collapse_is_said_once(
    tiny: Runs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = engine.train_step

    def collapsed(run: engine.Run, views: Any) -> dict[str, Any]:
        values = original(run, views)
        return {**values, "feature_std": torch.tensor(0.04 if run.step else 0.5)}

    monkeypatch.setattr(engine, "train_step", collapsed)
    engine.train(tiny("run"))
    said = capsys.readouterr().out
    assert said.count("warning: the features have nearly collapsed: feature_std is 0.04 at step 2") == 1
    assert said.count("collapsed") == 1


@pytest.mark.slow
def test_values_are_read_at_log_steps_only(tiny: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a value of the step makes the host wait for a GPU."""
    reads: list[int] = []

    class Watched(Tensor):
        def __float__(self) -> float:
            reads.append(step[0])
            return super().item()

    original, step = engine.train_step, [0]

    def train_step(run: engine.Run, views: Any) -> dict[str, Any]:
        step[0] = run.step + 1
        values = original(run, views)
        return {**values, "loss": values["loss"].as_subclass(Watched)}

    monkeypatch.setattr(engine, "train_step", train_step)
    engine.train(tiny("run", log_every=4))
    assert reads == [1, 4, 6]


def in_a_terminal(*words: str) -> list[str]:
    """What Python with ``words`` writes to a real pseudo-terminal of 100 columns, split where the cursor goes to column 1."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    process = subprocess.Popen([sys.executable, *words], cwd=REPO, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    text = b""
    with suppress(OSError):  # the other end is closed
        while part := os.read(ours, 10_000):
            text += part
    os.close(ours)
    assert process.wait(60) == 0, text.decode()
    return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.decode()))


def test_large_numbers_fit_into_100_columns() -> None:
    record = {"step": 124999, "epoch": 99.9, "images_per_s": 18240.2, "data_wait": 0.52, "memory_gb": 631.4}
    record |= {"loss": -2.9154, "lr": 9.14e-05, "momentum": 0.9904, "feature_std": 0.53, "positives": 4410.2}
    record |= {"skipped": 1234, "bad_steps": 12}
    code = f"""
from pretrain.log.screen import Screen
screen = Screen(124998, 125100, 100)
screen.show({record})
screen.step()
screen.close()
"""
    states = in_a_terminal("-c", code)
    assert max(map(len, states)) <= 100
    bar = next(state for state in reversed(states) if "|" in state)
    assert re.match(
        r"epoch 99.9/100, step 124999/125100 \|.{5,}\|100%, 18240 img/s, data wait 52%, 631.4 GB, .* left$", bar
    )
    assert "loss -2.9154, lr 9.14e-05, EMA 0.9904, feature std 0.53, 4410.2 positives, 1234 skipped, 12 bad" in states


def test_what_went_into_no_step_does_not_count_for_the_time_left() -> None:
    code = """
import tqdm.std
clock = [0.0]
tqdm.std.time = lambda: clock[0]
from pretrain.log.screen import Screen
screen = Screen(0, 100, 1)
for step in range(10):
    clock[0] += 1
    screen.step(0)
clock[0] += 1001
screen.step(1000)
screen.close()
"""
    bar = next(state for state in reversed(in_a_terminal("-c", code)) if "step 11/100" in state)
    assert bar.endswith(", 01:29 left")


def test_every_value_on_the_screen_is_explained() -> None:
    page = (REPO / "docs" / "watching.md").read_text(encoding="utf-8")
    assert [name for name in (*SHOWN, *ALWAYS, "knn", "knn_s", "recovered") if f"`{name}`" not in page] == []


@pytest.mark.slow
def test_the_bar_in_a_terminal(tiny: Runs, tmp_path: Path) -> None:
    """A real pseudo-terminal of 100 columns: nothing is wider, and the last state stays."""
    config = tiny("run", log=LogConfig(knn_every=2), profile=1)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(config.as_dict()))))
    states = in_a_terminal("-m", "pretrain", "--config", str(tmp_path / "config.yaml"))
    paths = [state for state in states if str(tmp_path) in state]  # a path may be long
    assert all(len(state) <= 100 for state in states if state not in paths), [s for s in states if len(s) > 100]
    bars = [state for state in states if re.match(r"epoch 2.0/2, step 6/6 \|█+\|100%, \d+ img/s, data wait", state)]
    assert bars
    last = states.index(bars[-1])
    assert re.match(r"loss -\d.*, lr .*, EMA .*, feature std .*, .* positives$", states[last + 1])
    assert any(state.startswith("epoch 2: k-NN accuracy") for state in states)
    assert any(state.startswith("profile of the steps") for state in states)

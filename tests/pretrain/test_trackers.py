"""Trackers: what they get, offline; and that a run does not depend on them."""

from __future__ import annotations

import importlib.util
import json
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pixbench.errors import UserError
from pretrain import engine
from pretrain.log import trackers
from pretrain.log.trackers import check_installed
from pretrain.settings import LogConfig, RunConfig

pytestmark = pytest.mark.slow
Runs = Callable[..., RunConfig]


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(
        bool(missing), reason=f"not installed: {', '.join(missing)} (pip install 'pixbench[trackers]')"
    )


def stop_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    original = engine.train_step

    def train_step(run: engine.Run, views: Any) -> dict[str, Any]:
        if run.step == steps:
            raise KeyboardInterrupt
        return original(run, views)

    monkeypatch.setattr(engine, "train_step", train_step)


def test_a_missing_package_is_said_before_training(tiny: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed([])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    config = tiny("run", log=LogConfig(trackers=("wandb",)))
    with pytest.raises(
        UserError, match=r"log\.trackers asks for wandb, which is not installed; run `pip install wandb`"
    ):
        engine.train(config)
    assert not Path(config.out).exists()


def entries(content: bytes) -> Iterator[bytes]:
    """Entries of a .wandb file, a log in LevelDB's format: blocks of 32 KiB, each part with its checksum, length and kind."""
    place, entry = 7, b""
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        entry += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # the whole entry, or its last part
            yield entry
            entry = b""


@pytest.mark.e2e
@needs("wandb")
def test_wandb_offline(tiny: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that is interrupted and continued is one run there, with all steps."""
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    config = tiny("run", checkpoint_every_steps=1, log=LogConfig(trackers=("wandb",)))
    with monkeypatch.context() as patch:
        stop_after(4, patch)
        with pytest.raises(KeyboardInterrupt):
            engine.train(config)
    name = (Path(config.out) / "wandb_run.txt").read_text().strip()
    time.sleep(1.1)  # the name of wandb's folder has the second in it
    engine.train(config)
    assert (Path(config.out) / "wandb_run.txt").read_text().strip() == name
    assert "warning" not in capsys.readouterr().out
    found: dict[int, dict[str, float]] = {}
    files = sorted(Path(config.out).glob(f"wandb/offline-run-*/run-{name}.wandb"))
    assert len(files) == 2
    ends = time.monotonic() + 30  # wandb's own process writes the files, and may still be at it
    while len(found) < 6 and time.monotonic() < ends:
        for data in (data for path in files for data in entries(path.read_bytes())):
            with suppress(DecodeError):
                record = Record.FromString(data)
                if record.HasField("history"):
                    items = {
                        item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item
                    }
                    found[int(items["_step"])] = items
        time.sleep(0.2)
    lines = [json.loads(line) for line in (Path(config.out) / "log.jsonl").read_text().splitlines()]
    assert sorted(found) == [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    for line in lines:
        for key in ("loss", "lr", "momentum", "data_wait"):
            assert found[line["step"]][key] == pytest.approx(line[key])


@needs("mlflow", "sqlalchemy", "alembic")
def test_mlflow_in_a_file(tiny: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    config = tiny("run", checkpoint_every_steps=1, log=LogConfig(trackers=("mlflow",)))
    monkeypatch.setattr(trackers, "CLOSE_S", 60.0)  # its first start creates the tables
    with monkeypatch.context() as patch:
        stop_after(4, patch)
        with pytest.raises(KeyboardInterrupt):
            engine.train(config)
    name = (Path(config.out) / "mlflow_run.txt").read_text().strip()
    client = MlflowClient()
    assert client.get_run(name).info.status == "KILLED"
    engine.train(config)
    assert "warning" not in capsys.readouterr().out
    run = client.get_run(name)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "run")
    assert run.data.params["method.name"] == "pixpro"
    lines = [json.loads(line) for line in (Path(config.out) / "log.jsonl").read_text().splitlines()]
    for key in ("loss", "momentum"):
        history = sorted((metric.step, metric.value) for metric in client.get_metric_history(name, key))
        assert history == [(line["step"], pytest.approx(line[key])) for line in lines]
    assert len(client.search_runs([run.info.experiment_id])) == 1


class Failing:
    """A tracker whose server goes away."""

    id = "x"

    def __init__(self, out: Path, settings: dict[str, Any], known: str) -> None:
        self.sent = 0

    def send(self, step: int, at: float, values: Mapping[str, float]) -> None:
        self.sent += 1
        if self.sent == 2:
            raise ConnectionError("the server\x1b is gone\nmore lines")

    def close(self, finished: bool) -> None:
        raise AssertionError("it is not called after an error")


class Hanging(Failing):
    """A tracker whose server never answers."""

    def send(self, step: int, at: float, values: Mapping[str, float]) -> None:
        threading.Event().wait()


@pytest.mark.parametrize(
    ("tracker", "said"),
    [
        (Failing, r"warning: wandb gets no more values of this run (the server\x1b is gone); the run goes on"),
        (Hanging, "warning: wandb has not taken all values of this run"),
    ],
)
def test_a_tracker_that_fails_ends_nothing(
    tracker: Any, said: str, tiny: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine, "check_installed", lambda names: None)
    monkeypatch.setattr(trackers, "CONNECTIONS", {"wandb": tracker})
    monkeypatch.setattr(trackers, "CLOSE_S", 1.0)
    monkeypatch.setattr(trackers, "KEPT", 2)
    config = tiny("run", log=LogConfig(trackers=("wandb", "wandb")))
    assert engine.train(config) == 0
    assert capsys.readouterr().out.count(said) == 1
    assert len((Path(config.out) / "log.jsonl").read_text().splitlines()) == 6


def test_trackers_may_change_on_a_continued_run(tiny: Runs) -> None:
    config = tiny("run", epochs=1)
    engine.train(config)
    engine.train(replace(config, epochs=2, log=LogConfig(1, 0, ())))

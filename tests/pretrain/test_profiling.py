"""Profile of a few steps: a file that trace viewers read, a table, and a training that does not notice it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pixbench.file_versions import CHECKPOINT_FILE
from pretrain import checkpoint, engine
from pretrain.log import profiling
from pretrain.settings import RunConfig

pytestmark = pytest.mark.slow
Runs = Callable[..., RunConfig]


def traces(config: RunConfig) -> list[str]:
    return sorted(path.name for path in Path(config.out, "profile").glob("*"))


@pytest.mark.e2e
def test_a_profile(tiny: Runs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its writing counts in no speed: the clock jumps a day ahead while the trace is written."""
    day, late, clock, write = 86_400, [0], time.monotonic, profiling.Profiler._write

    def slow(profiler: profiling.Profiler, done: Any) -> None:
        write(profiler, done)
        late[0] = day

    monkeypatch.setattr(profiling, "WARM_UP", 2)
    monkeypatch.setattr(profiling.Profiler, "_write", slow)
    monkeypatch.setattr(time, "monotonic", lambda: clock() + late[0])
    plain, profiled = tiny("plain"), tiny("profiled", profile=2)
    engine.train(plain)
    capsys.readouterr()
    engine.train(profiled)
    assert traces(profiled) == ["steps_3_to_4.pt.trace.json"]
    events = json.loads((Path(profiled.out) / "profile" / traces(profiled)[0]).read_text())["traceEvents"]
    names = [event.get("name", "") for event in events]
    assert sum(name.startswith("ProfilerStep#") for name in names) == 2
    assert "aten::convolution_backward" in names
    said = capsys.readouterr().out
    head, table = said.partition("profile of the steps 3 to 4: ")[2].split("\n", 1)
    assert head.endswith("steps_3_to_4.pt.trace.json (open it in ui.perfetto.dev)")
    rows = table.splitlines()[: profiling.ROWS + 2]
    assert rows[0].split() == ["operation", "calls", "ms", "on", "the", "cpu", "share"]
    assert all(row.endswith("%") for row in rows[2:])
    times = [float(row.split()[-2]) for row in rows[2:]]
    assert times == sorted(times, reverse=True)
    models = [checkpoint.load(Path(config.out) / CHECKPOINT_FILE)["model"] for config in (plain, profiled)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    lines = [json.loads(line) for line in (Path(profiled.out) / "log.jsonl").read_text().splitlines()]
    assert lines[4]["time"] > day  # it did take that long
    assert all(line["images_per_s"] > 100 * profiled.batch_size / day for line in lines)


@pytest.mark.e2e
def test_a_run_that_is_shorter_than_the_profile_and_goes_on(tiny: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    short = tiny("short", profile=100, epochs=1)
    engine.train(short)
    assert traces(short) == ["steps_2_to_3.pt.trace.json"]
    engine.train(tiny("short", profile=1))
    assert traces(short)[1:] == ["steps_6_to_6.pt.trace.json"]
    one = tiny("one", profile=3, epochs=1, batch_size=24)
    engine.train(one)
    assert traces(one) == []
    assert "nothing is profiled: there is only one step left" in capsys.readouterr().out

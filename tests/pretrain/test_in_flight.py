"""Bytes of the batches in flight: the formula, and what is said where there is too little room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pixbench.paths import CONFIGS
from pretrain.config import parse
from pretrain.data import in_flight as module
from pretrain.data.in_flight import PREFETCH, fitting, free_memory, free_shared, in_flight, readable, shortages
from pretrain.run import setup
from pretrain.settings import RunConfig

GIB = 2**30


@pytest.fixture
def simclr() -> RunConfig:
    return parse(["--config", str(CONFIGS / "pretrain" / "simclr_1000ep.yaml")])


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """``room(shared, memory)`` sets what this machine has, in bytes."""

    def have(shared: int, memory: int) -> None:
        monkeypatch.setattr(module, "free_shared", lambda: shared)
        monkeypatch.setattr(module, "free_memory", lambda: memory)

    return have


def test_a_machine_with_eight_gpus(simclr: RunConfig) -> None:
    need, view = in_flight(simclr, 8), 512 * 3 * 224**2
    batches = 8 * (16 * PREFETCH + 1)
    assert need.batch == 2 * view
    assert need.shared == batches * 2 * view
    assert need.making == 8 * 16 * 2 * 2 * view
    assert need.pinned == batches * 2 * 2**27  # the power of two above 77 million
    assert need.memory == need.shared + need.making + need.pinned
    assert in_flight(simclr, 8, gpu=False).pinned == 0


def test_two_machines_share_the_work(simclr: RunConfig) -> None:
    one, two = in_flight(simclr, 8), in_flight(simclr, 16, here=8)
    assert two.shared * 2 == one.shared


def test_without_workers_nothing_lies_in_dev_shm(simclr: RunConfig) -> None:
    alone = replace(simclr, data=replace(simclr.data, workers=0))
    need = in_flight(alone, 8)
    assert need.shared == 0
    assert need.memory > 0


def test_too_little_room_is_said_with_what_to_do(simclr: RunConfig, room: Callable[[int, int], None]) -> None:
    room(10**15, 10**15)
    assert shortages(simclr, 8) == []
    need = in_flight(simclr, 8)
    room(need.shared - 1, need.memory)
    (line,) = shortages(simclr, 8)
    assert line.startswith(
        f"/dev/shm has {readable(need.shared - 1)} free, but 16 data workers for each of 8 processes"
    )
    assert line.endswith("lower data.workers to 15")
    room(need.shared, need.memory // 2)
    (line,) = shortages(simclr, 8)
    assert line.startswith("this machine has")
    assert line.endswith("lower data.workers to 7")
    room(2**20, 2**20)
    assert len(shortages(simclr, 8)) == 2
    assert fitting(simclr, 8) == "lower batch_size, or take a machine with more memory"


def test_a_run_warns_before_it_starts(tiny: Callable[..., RunConfig], room: Callable[[int, int], None]) -> None:
    config = tiny("run")
    config = replace(config, data=replace(config.data, workers=2))
    room(10**15, 10**15)
    assert not any("free, but" in note for note in setup(config, torch.device("cpu")).notes)
    room(10, 10**15)
    notes = setup(config, torch.device("cpu")).notes
    assert any(note.startswith("warning: /dev/shm has 0 MiB free, but 2 data workers") for note in notes)


def test_what_this_machine_has() -> None:
    assert 0 < free_memory() <= 2**62
    assert free_shared() > 0


@pytest.mark.parametrize(
    ("line", "file", "text", "limits"),
    [
        ("0::/job/step", "job/memory.max", "1000\n", [1000]),
        ("0::/job/step", "job/step/memory.max", "max\n", []),
        ("4:memory:/job", "memory/job/memory.limit_in_bytes", "1000\n", [1000]),
        ("4:cpu,cpuacct:/job", "cpu,cpuacct/job/memory.max", "1000\n", []),
    ],
)
def test_limits_of_containers_and_of_slurm(
    line: str, file: str, text: str, limits: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(text)
    (tmp_path / "cgroup").write_text(f"{line}\n")
    monkeypatch.setattr(module, "CGROUPS", tmp_path)
    monkeypatch.setattr(module, "OWN_CGROUPS", tmp_path / "cgroup")
    assert module._limits() == limits

"""Memory and energy of a run."""

from __future__ import annotations

import mmap
import threading
from pathlib import Path

import pytest

from pixbench import usage
from pixbench.usage import CpuEnergy, Usage


def filled(size: int) -> mmap.mmap:
    """New memory from the system, not what the process has freed and kept."""
    block = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    block.write(b"x" * size)
    return block


def counter(home: Path, name: str, now: int, turn: int = 1000) -> Path:
    zone = home / name
    zone.mkdir(parents=True, exist_ok=True)
    (zone / "energy_uj").write_text(f"{now}\n")
    (zone / "max_energy_range_uj").write_text(f"{turn}\n")
    return zone


def test_energy_of_all_packages_is_added_up_and_counters_wrap_around(tmp_path: Path) -> None:
    counter(tmp_path, "intel-rapl:0", 100)
    counter(tmp_path, "intel-rapl:1", 900)
    counter(tmp_path, "intel-rapl:0:0", 50)  # a part of the first
    energy = CpuEnergy(tmp_path)
    counter(tmp_path, "intel-rapl:0", 300)
    counter(tmp_path, "intel-rapl:1", 100)  # 100 to the end, and 100
    counter(tmp_path, "intel-rapl:0:0", 90)
    energy.sample()
    assert energy.joules == pytest.approx((200 + 200) / 1e6)
    assert energy.why == ""


def test_counters_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    assert "has no energy counters" in CpuEnergy(tmp_path).why
    zone = counter(tmp_path, "intel-rapl:0", 100)
    (zone / "energy_uj").unlink()
    (zone / "energy_uj").mkdir()
    assert "cannot be read (Is a directory)" in CpuEnergy(tmp_path).why


def test_the_peak_of_memory_is_that_of_any_sample() -> None:
    with Usage() as found:
        block = filled(400_000_000)
        found._sample()
        held = usage.held()
        block.close()
        once = found.stop()
    assert once["peak_memory_gb"] > (held - 100_000_000) / 1e9
    assert usage.held() < held - 300_000_000
    assert found.stop() is once
    assert not any(thread.name == "usage" for thread in threading.enumerate())


def test_held_is_what_the_process_holds() -> None:
    before = usage.held()
    block = filled(240_000_000)
    assert usage.held() - before > 0.8 * len(block)
    block.close()

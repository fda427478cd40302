"""Measure what a run takes of its machine: the most memory, and energy where the machine lets it be read."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

EVERY_S = 10.0
"""Seconds between two samples of memory and of the processor's energy counters, which wrap around after some minutes."""
POWERCAP = Path("/sys/class/powercap")
"""Where Linux has the energy counters of processors (RAPL)."""

NO_GPU = "there is no GPU"


def held() -> int:
    """Return the bytes of memory that this process and its children hold now.

    Memory that several of them share counts once where the system says how much that is (PSS, on Linux). Adding it up takes
    about 20 ms for each gigabyte.
    """
    own = psutil.Process()
    return sum(_held(process) for process in (own, *own.children(recursive=True)))


def _held(process: psutil.Process) -> int:
    with suppress(psutil.Error):  # a worker has ended meanwhile, or belongs to another user
        full = process.memory_full_info()
        return getattr(full, "pss", full.rss)
    return 0


class Usage:
    """What is used from the moment this object is made until `stop`, by all processes below this one on this machine."""

    def __init__(self) -> None:
        self._began, self.seconds = time.monotonic(), 0.0
        """When it was made; duration once it is stopped."""
        self._found: dict[str, Any] | None = None
        self._peak, self._ended = 0, threading.Event()
        self._cpu = CpuEnergy()
        self._gpu, self._gpu_why = _gpu_millijoules()
        if (cuda := _cuda()) and cuda.is_initialized():
            cuda.reset_peak_memory_stats()
        self._thread = threading.Thread(target=self._watch, name="usage", daemon=True)
        self._thread.start()

    def __enter__(self) -> Usage:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _watch(self) -> None:
        wait = 1.0
        while not self._ended.wait(wait):
            self._sample()
            wait = EVERY_S

    def _sample(self) -> None:
        self._peak = max(self._peak, held())
        self._cpu.sample()

    def stop(self) -> dict[str, Any]:
        """Return memory in GB (10⁹ bytes) and energy in joules; None for what cannot be read, and "unread" says why.

        The first call ends the measurement; a later one returns the same.
        """
        if self._found is None:
            self._found = self._measured()
        return self._found

    def _measured(self) -> dict[str, Any]:
        self.seconds = round(time.monotonic() - self._began, 2)
        self._ended.set()
        self._thread.join()
        self._sample()
        cuda, unread = _cuda(), {}
        used = cuda and cuda.is_initialized()
        if self._cpu.why:
            unread["cpu_energy_j"] = self._cpu.why
        now, why = _gpu_millijoules()
        gpu = None if self._gpu is None or now is None else round((now - self._gpu) / 1000, 3)
        if gpu is None:
            unread["gpu_energy_j"] = self._gpu_why or why
        if not used:
            unread["peak_gpu_memory_gb"] = "this process used no GPU" if cuda else NO_GPU
        return {
            "peak_memory_gb": round(self._peak / 1e9, 4),
            "peak_gpu_memory_gb": round(cuda.max_memory_allocated() / 1e9, 4) if used else None,
            "cpu_energy_j": None if self._cpu.why else round(self._cpu.joules, 3),
            "gpu_energy_j": gpu,
            "unread": unread,
        }


class CpuEnergy:
    """Sum of the energy counters of all processor packages of this machine, other programs included."""

    def __init__(self, home: Path = POWERCAP) -> None:
        self.joules, self.why = 0.0, ""
        self._last: dict[Path, int] = {}
        self._turns: dict[Path, int] = {}
        try:
            for zone in sorted(home.glob("intel-rapl:*")):
                if zone.name.count(":") == 1:  # a whole package, not a part of one
                    self._turns[zone] = int((zone / "max_energy_range_uj").read_text())
                    self._last[zone] = _microjoules(zone)
        except (OSError, ValueError) as error:
            self.why = f"the counters in {home} cannot be read ({getattr(error, 'strerror', None) or error})"
        if not self._last and not self.why:
            self.why = f"{home} has no energy counters"

    def sample(self) -> None:
        """Add what was used since the last sample; a counter that wrapped around since has done so once."""
        try:
            for zone, before in self._last.items():
                now = _microjoules(zone)
                self.joules += ((now - before) if now >= before else (now - before + self._turns[zone])) / 1e6
                self._last[zone] = now
        except (OSError, ValueError) as error:
            self.why = self.why or f"the counters could no longer be read ({error})"


def _microjoules(zone: Path) -> int:
    return int((zone / "energy_uj").read_text())


def _gpu_millijoules() -> tuple[int | None, str]:
    """Return the energy that the GPUs of this run have used since their driver started; None and why if it cannot be read.

    It must not initialise CUDA, which would take memory on the first GPU in every process.
    """
    cuda = _cuda()
    if not cuda:
        return None, NO_GPU
    try:
        import pynvml
    except ImportError:
        return None, "the package nvidia-ml-py is not installed"
    count = min(cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    try:
        pynvml.nvmlInit()
        names = [name.strip() for name in visible.split(",")[:count]]
        handles = [
            pynvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else pynvml.nvmlDeviceGetHandleByUUID(name)
            for name in names
        ]
        return sum(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) for handle in handles), ""
    except pynvml.NVMLError as error:
        return None, f"NVML gives no energy ({error})"


def _cuda() -> Any:
    """Return `torch.cuda` if there is a GPU."""
    import torch

    return torch.cuda if torch.cuda.is_available() else None

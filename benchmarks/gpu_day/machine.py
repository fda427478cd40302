"""What this machine is, for the report, and how much memory of its GPUs is in use."""

from __future__ import annotations

import os
import shutil
from datetime import datetime, timezone
from pathlib import Path

import psutil
import torch

from benchmarks.nvidia import lines, nvidia_smi
from benchmarks.speed.__main__ import machine as cpu
from pixbench.paths import CONFIGS
from pixbench.provenance import versions


def describe(gpus: int) -> dict[str, str]:
    """Return what the report says of this machine, of which ``gpus`` GPUs are used."""
    shm, names = Path("/dev/shm"), "; ".join(dict.fromkeys(nvidia_smi("name,memory.total"))) or "none"
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="minutes"),
        "commit": commit(),
        "on": f"{gpus} × {names}" if gpus else "CPU",
        "driver": ", ".join(dict.fromkeys(nvidia_smi("driver_version"))) or "none",
        "CUDA": str(torch.version.cuda),
        "cuDNN": str(torch.backends.cudnn.version()),
        "NCCL": ".".join(map(str, torch.cuda.nccl.version())) if torch.distributed.is_nccl_available() else "none",
        "CPU": f"{cpu()['cpu']}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "/dev/shm": f"{shutil.disk_usage(shm).total / 2**30:.1f} GiB" if shm.exists() else "none",
        **versions(),
    }


def commit() -> str:
    """Return the commit of this checkout, with a + if files of it were changed; "unknown" outside of a checkout."""
    words = ["git", "-C", str(CONFIGS), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    return "".join(lines(words)) or "unknown"


def memory_in_use() -> list[int]:
    """Return the MB in use on each GPU, by whichever process."""
    return [int(line.split()[0]) for line in nvidia_smi("memory.used") if line.split()[0].isdigit()]

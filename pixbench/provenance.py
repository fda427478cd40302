"""Where a result came from: the commit of this program, the packages it ran with, and the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
"""Folder that holds the packages of this program."""
SOURCES = ("pixbench", "pretrain", "transfer", "benchmarks", "configs")
"""What a result can depend on; other files of the checkout make it no other program."""
_PACKAGES = (
    "pixbench torch torchvision numpy detectron2 sal-detectron2 mmcv onedl-mmcv mmengine onedl-mmengine "
    "mmsegmentation onedl-mmsegmentation mmdet onedl-mmdetection pycocotools cityscapesscripts timm"
).split()


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that can affect a result."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@cache
def code() -> dict[str, Any]:
    """Return the "commit" of this program, and whether its sources are "dirty", that is, differ from the commit.

    Both are None if the program is no git checkout, and "why" says so. The answer is that of the first call, because the code
    of a running process does not change with its files.
    """
    top = _git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != ROOT:
        return {"commit": None, "dirty": None, "why": "the program is not a git checkout, or git is not installed"}
    commit, changed = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--", *SOURCES)
    if commit is None or changed is None:
        return {"commit": None, "dirty": None, "why": "git gives no commit of the checkout"}
    return {"commit": commit, "dirty": bool(changed), "why": ""}


def _git(*words: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(ROOT), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def host() -> dict[str, Any]:
    """Return the machine of this process: GPUs, processor, cores, threads, memory, system. It has no name of a person or host."""
    import psutil
    import torch

    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "device": gpus[0] if gpus else "cpu",
        "gpus": gpus,
        "processes": int(os.environ.get("WORLD_SIZE", 1)),
        "cpu": _processor(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 2),
        "system": platform.platform(),
    }


def now() -> str:
    """Return the current UTC time in ISO 8601, in whole seconds."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())

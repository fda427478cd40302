"""What nvidia-smi says of the GPUs of this machine, and whether their driver is new enough for the installed PyTorch."""

from __future__ import annotations

import os
import subprocess

LEAST_DRIVER = {11: 450, 12: 525, 13: 580}
"""Major version of CUDA -> least driver on Linux: NVIDIA, "CUDA Compatibility", minor version compatibility, table 1
(https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html)."""
PAGE = "docs/dependencies.md tells how to install another build of PyTorch"


def nvidia_smi(fields: str) -> list[str]:
    """Return one line for each GPU that this process may use; empty if there is no ``nvidia-smi``."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    which = ["-i", chosen] if chosen else []
    return lines(["nvidia-smi", *which, f"--query-gpu={fields}", "--format=csv,noheader"])


def lines(words: list[str]) -> list[str]:
    """Return what a command prints; empty if it fails, or takes longer than half a minute."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.strip().splitlines() if done.returncode == 0 else []


def hidden() -> bool:
    """Return whether CUDA_VISIBLE_DEVICES hides all GPUs on purpose."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")


def problem(cuda: str, driver: str) -> tuple[str, str]:
    """Return why PyTorch cannot use the GPUs of this machine, and what to do.

    Args:
        cuda: the version of CUDA that PyTorch was built for, such as "13.0"; "None" for a build without.
        driver: version of the driver, such as "580.65.06".
    """
    if not cuda[:1].isdigit():
        return "this PyTorch is a build without CUDA, but there are GPUs", PAGE
    least = LEAST_DRIVER.get(int(cuda.partition(".")[0]), 0)
    if (major := driver.partition(".")[0]).isdigit() and int(major) < least:
        return (
            f"driver {driver} is too old: this PyTorch, for CUDA {cuda}, needs {least} or newer",
            f"update it; or {PAGE}",
        )
    why = "python -c 'import torch; torch.cuda.init()' prints why"
    return f"there are GPUs (driver {driver}), but PyTorch, for CUDA {cuda}, cannot use them", why

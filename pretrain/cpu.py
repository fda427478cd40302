"""What makes training on a CPU faster: memory that is kept, and arithmetic that the processor has."""

from __future__ import annotations

import ctypes
import sys

import torch

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Settings of glibc's `mallopt`, see malloc.h."""
PAD = 64 * 2**20
"""Bytes that the heap grows at a time."""


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, and return whether the C library can.

    By default glibc gives each freed feature map back to the system, which has to clear every page of it when the next step asks
    for it again: a fifth of a step. Data workers that start later inherit the setting. It has no effect on results.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return all(
        mallopt(name, value) for name, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, PAD))
    )


def bf16_instructions() -> list[str]:
    """Return the names of the processor's instructions for bf16, e.g. "amx_bf16"; without any, bf16 is emulated."""
    find = getattr(torch.cpu, "get_capabilities", dict)  # not in every release
    return sorted(name for name, able in find().items() if name.endswith("bf16") and able is True)


def bf16_note() -> str:
    """Return a sentence about bf16 on this processor."""
    if found := bf16_instructions():
        return f"this processor has instructions for bf16 ({', '.join(found)})"
    return "warning: this processor has no known instructions for bf16, and without them precision fp32 is faster by half or more"

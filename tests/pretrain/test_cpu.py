"""Memory that is kept, and bf16: what the processor has, in words."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pretrain import cpu, run
from pretrain.config import from_dict

FAULTS = """
import resource, torch
from pretrain.cpu import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(16, 2**20)  # 64 MB, above every limit of glibc's own
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults(), keep_freed_memory(), faults() and faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_freed_memory_is_not_asked_for_again() -> None:
    """Counted are the pages that the system has to hand out: few instead of one for every 4 kB."""
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    given_back, able, kept = done.stdout.split()
    assert able == "True"
    assert int(kept) < int(given_back) / 20


def test_bf16_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "amx_bf16": True, "avx512_bf16": False})
    assert cpu.bf16_note() == "this processor has instructions for bf16 (amx_bf16)"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False})
    assert cpu.bf16_note().startswith("warning: this processor has no known instructions for bf16")
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert "no known instructions for bf16" in cpu.bf16_note()


def test_a_bf16_run_says_it(image_tree: Callable[..., Path], tmp_path: Path) -> None:
    content = {
        "method": {"name": "simclr", "hidden": 16, "dim": 8},
        "data": {"root": str(image_tree(1, 8)), "image_size": 32},
        "backbone": {"width": 0.0625},
        "schedule": {"warmup_epochs": 0},
        **{"epochs": 1, "batch_size": 8, "out": str(tmp_path / "run")},
    }
    config = from_dict(content)
    assert not any("bf16" in note for note in run.setup(config, torch.device("cpu")).notes)
    assert any("bf16" in note for note in run.setup(replace(config, precision="bf16"), torch.device("cpu")).notes)

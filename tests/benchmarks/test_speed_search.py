"""The benchmark of the exact search runs, and stores what it prints."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.speed import search


def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = "--patches 100 5000 --channels 8 --queries 1100 --rounds 1".split()
    monkeypatch.setattr(sys, "argv", ["search", *sizes, "--into", str(tmp_path / "figures")])
    search.main()
    stored = json.loads((tmp_path / "figures").read_text(encoding="utf-8"))
    assert [timing["patches"] for timing in stored["timings"]] == [100, 5000]
    assert "5,000" in capsys.readouterr().out

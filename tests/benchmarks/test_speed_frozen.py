"""The benchmark of frozen evaluation runs, and stores what it prints."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.speed import frozen


@pytest.mark.e2e
def test_it_runs_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"--images 60 --protocols voc12aug_knn --into {tmp_path / 'figures'}".split()
    monkeypatch.setattr(sys, "argv", ["frozen", *words])
    frozen.main()
    stored = json.loads((tmp_path / "figures").read_text(encoding="utf-8"))
    (protocol,) = stored["protocols"]
    assert protocol["name"] == "voc12aug_knn"
    assert protocol["pictures"].keys() == {"train", "test"}
    assert 0 < protocol["seconds"] < stored["seconds"]
    assert stored["bytes"] > 2**20
    assert "| `voc12aug_knn`" in capsys.readouterr().out

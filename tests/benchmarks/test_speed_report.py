"""The benchmark of the report runs, copies what it says, and stores what it prints."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import made_results
import pytest

from benchmarks.results.reading import read_all
from benchmarks.speed import report
from benchmarks.tables.collected import grouped


def runs(folder: Path) -> Path:
    for label in ("pixpro", "random"):
        made_results.write(folder / label, label=label)
    made_results.write_pretraining(folder / "pretrain", method="pixpro")
    return folder


def test_copies_are_rows_of_three_seeds(tmp_path: Path) -> None:
    found = read_all(runs(tmp_path / "runs"), heavy=True).found
    folder = report.copied(found, 14, tmp_path / "copies", stored=True)
    results = read_all(folder, heavy=True)
    assert (len(results.found), results.left_out) == (14, [])
    ((group,), left_out) = grouped(results, [folder])
    assert left_out == []
    assert {label: len(entry.runs) for label, entries in group.rows.items() for entry in entries.values()} == {
        **{"pixpro": 3, "random": 3},
        **{"pixpro_1": 2, "random_1": 1},
    }


def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(runs(tmp_path / "runs")), "--results", "30", "--runs", "9", "--into", str(tmp_path / "figures")]
    monkeypatch.setattr(sys, "argv", ["report", *words])
    report.main()
    stored = json.loads((tmp_path / "figures").read_text(encoding="utf-8"))
    assert [size["results"] for size in stored["sizes"]] == [9, 30]
    assert all(size["bytes"] > 500_000 for size in stored["sizes"])
    said = capsys.readouterr().out
    assert "30 runs" in said
    assert "making the page" in said

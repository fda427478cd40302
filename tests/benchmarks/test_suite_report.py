"""The report that a suite writes in the end."""

from __future__ import annotations

from pathlib import Path

from benchmarks.commands.suite import REPORT, write_report
from benchmarks.tables.options import Options


def test_a_report_is_written_and_named(tmp_path: Path) -> None:
    assert str(tmp_path / REPORT) in write_report(tmp_path, Options())
    assert "PixBench report" in (tmp_path / REPORT).read_text()


def test_a_suite_does_not_fail_because_of_its_report(tmp_path: Path) -> None:
    said = write_report(tmp_path / "missing", Options())
    assert said.startswith("no report: ")
    assert "missing" in said

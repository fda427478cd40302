"""What a suite says in the end: its tables, its report, and which jobs failed."""

from __future__ import annotations

from pathlib import Path

import made_results
import pytest
import yaml

from benchmarks.commands.main import main
from benchmarks.commands.suite import REPORT, write_report
from benchmarks.jobs import Job
from benchmarks.tables.options import Options
from pixbench.file_versions import RESULT_FILE


def test_a_report_is_written_and_named(tmp_path: Path) -> None:
    assert str(tmp_path / REPORT) in write_report(tmp_path, Options())
    assert "PixBench report" in (tmp_path / REPORT).read_text()


def test_a_suite_does_not_fail_because_of_its_report(tmp_path: Path) -> None:
    said = write_report(tmp_path / "missing", Options())
    assert said.startswith("no report: ")
    assert "missing" in said


@pytest.mark.parametrize("readable", [True, False])
def test_failed_jobs_are_named_whatever_becomes_of_the_tables(
    readable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_jobs(jobs: list[Job], *_: object) -> dict[str, str]:
        states = {job.name: "failed" if "/broken/" in job.name else "done" for job in jobs}
        for job in jobs:
            if states[job.name] == "done":
                made_results.write(job.output.parent, label="random", seed=0)
                if not readable:
                    (job.output.parent / RESULT_FILE).write_text("{")
        return states

    monkeypatch.setattr("benchmarks.launch.scheduler.run_jobs", run_jobs)
    suite = {"scale": "mini", "rows": {"broken": {"init": "supervised"}, "random": {}}, "protocols": ["voc_c4"]}
    (path := tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    code = main(["suite", str(path), "--data-root", str(tmp_path), "--out", str(tmp_path / "out")])
    said = capsys.readouterr()
    assert code == (1 if readable else 2)
    assert "transfer/broken/voc_c4/seed0: failed" in said.out
    assert ("## Measured at mini scale" in said.out) is readable

"""What `pixbench watch` shows of runs that have no result yet."""

from __future__ import annotations

import json
import os
from pathlib import Path

import made_results
import pytest

from benchmarks.commands.main import main
from benchmarks.jobs import Job, Records
from benchmarks.report.progress import begun, ended
from pixbench.progress import note_progress


def run(folder: Path, done: int = 30, **values: float) -> Path:
    """A fine-tuning run that goes on."""
    folder.mkdir(parents=True)
    note_progress(folder, done, 120, 0.5, **values)
    (folder / "curve.jsonl").write_text('{"step": 10, "loss": 3.0}\n{"step": 30, "loss": 1.5}\n')
    return folder


def test_a_run_is_shown_until_it_has_a_result(tmp_path: Path) -> None:
    folder = run(tmp_path / "a" / "b", AP=12.34)
    (found,) = begun([tmp_path])
    assert (found.folder, found.done, found.total, found.left_s, found.loss) == (folder, 30, 120, 45.0, 1.5)
    assert found.cells() == (str(folder), "running", "30/120", "0:00:45", "1.5", "AP 12.3")
    made_results.write(folder)
    assert [*begun([tmp_path])] == []


def test_pretraining_tells_its_loss_too(tmp_path: Path) -> None:
    note_progress(tmp_path, 5, 10, 1.0)
    (tmp_path / "log.jsonl").write_text('{"step": 5, "loss": -2.5}\n')
    (found,) = begun([tmp_path])
    assert found.loss == -2.5


def test_a_run_that_writes_nothing_is_called_silent(tmp_path: Path) -> None:
    progress = run(tmp_path / "a") / "progress.json"
    os.utime(progress, (progress.stat().st_atime, progress.stat().st_mtime - 7200))
    (found,) = begun([tmp_path])
    assert found.state.startswith("silent for 2:00:")


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "{}", '{"done": "x"}', '{"done": 1, "total": null, "left_s": 1}', "[" * 100_000),
        *('{"done": 1, "total": 2, "left_s": 1e300}', '{"done": 1, "total": 2, "left_s": NaN}'),
        *('{"done": 1e999, "total": 2, "left_s": 1}', '{"done": 1, "total": 2, "left_s": 1, "best": [1]}'),
    ],
)
def test_a_file_that_is_no_progress_is_passed_over(tmp_path: Path, content: str) -> None:
    (tmp_path / "progress.json").write_text(content)
    assert [*begun([tmp_path])] == []


def test_jobs_of_a_suite_that_failed_are_told_with_the_reason(tmp_path: Path) -> None:
    records = Records(tmp_path / "jobs")
    records.write(Job("pretrain/a", ("x",), tmp_path), "done", 1.0)
    records.write(Job("pretrain/b", ("x",), tmp_path), "failed", 1.0, "CUDA ran out of memory")
    (tmp_path / "jobs" / "broken.json").write_text("{")
    assert [*ended([tmp_path])] == [("pretrain/b", "CUDA ran out of memory")]


def test_the_command_prints_it_once_without_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "a")
    made_results.write(tmp_path / "b")
    made_results.write(tmp_path / "c", metrics=..., status="failed", reason="no memory", seed=3)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "result.json").write_text(json.dumps({}))
    assert main(["watch", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "1 in progress, 1 done, 1 failed, 1 with an unusable result" in said
    assert "30/120" in said


def test_names_cannot_write_to_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "[red]a\x1b[31m")
    assert main(["watch", str(tmp_path)]) == 0
    said = "".join(capsys.readouterr().out.split())
    assert "\x1b" not in said
    assert r"[red]a\x1b[31m" in said


def test_an_empty_folder_says_that_nothing_has_begun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", str(tmp_path)]) == 0
    assert "nothing has begun here yet" in capsys.readouterr().out


def test_damaged_files_of_runs_and_jobs_end_nothing(tmp_path: Path) -> None:
    good = '{"done": 1, "total": 2, "left_s": 1, "best": {}}'
    (tmp_path / "jobs").mkdir()
    for place, content in enumerate(("[" * 100_000, "[]", '"x"', '{"status": "failed"}')):
        (tmp_path / "jobs" / f"{place}.json").write_text(content)
    os.mkfifo(tmp_path / "jobs" / "pipe.json")
    run(tmp_path / "pipe")
    (tmp_path / "pipe" / "curve.jsonl").unlink()
    os.mkfifo(tmp_path / "pipe" / "curve.jsonl")
    (tmp_path / "endless").mkdir()
    os.mkfifo(tmp_path / "endless" / "progress.json")
    for name, curve in {"deep": "[" * 100_000, "text": '{"step": 1, "loss": "abc"}\n'}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "progress.json").write_text(good)
        (tmp_path / name / "curve.jsonl").write_text(curve)
    assert {found.folder.name for found in begun([tmp_path])} >= {"pipe", "text"}
    assert [*ended([tmp_path])] == []
    assert main(["watch", str(tmp_path)]) == 0

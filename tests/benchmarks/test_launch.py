"""The local launcher: order, failure, skipping what is finished, and interruption."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.jobs import Job, Records
from benchmarks.launch.local import run_jobs


def job(tmp_path: Path, name: str, code: str = "", after: tuple[str, ...] = ()) -> Job:
    output = tmp_path / f"{name}.out"
    script = f"{code}\nopen({str(tmp_path / 'order')!r}, 'a').write({name + ' '!r})\nopen({str(output)!r}, 'w').close()"
    return Job(name, (sys.executable, "-c", script), output, after)


def run(jobs: list[Job], tmp_path: Path, workers: int = 1) -> dict[str, str]:
    return run_jobs(jobs, Records(tmp_path / "records"), tmp_path / "logs", workers)


def order(tmp_path: Path) -> list[str]:
    return (tmp_path / "order").read_text().split()


def test_jobs_wait_for_what_they_need(tmp_path: Path) -> None:
    jobs = [job(tmp_path, "a", "import time; time.sleep(0.5)"), job(tmp_path, "b", after=("a",)), job(tmp_path, "c")]
    assert run(jobs, tmp_path, workers=2) == dict.fromkeys("abc", "done")
    assert order(tmp_path).index("a") < order(tmp_path).index("b")


def test_a_failure_blocks_only_its_dependents_and_its_last_words_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [
        job(tmp_path, "a", "raise SystemExit('the disk is on fire')"),
        job(tmp_path, "b", after=("a",)),
        job(tmp_path, "c"),
    ]
    assert run(jobs, tmp_path) == {"a": "failed", "b": "blocked", "c": "done"}
    assert "the disk is on fire" in capsys.readouterr().out


def test_a_command_that_leaves_no_output_has_failed(tmp_path: Path) -> None:
    assert run([Job("a", (sys.executable, "-c", ""), tmp_path / "nothing")], tmp_path) == {"a": "failed"}


def test_finished_jobs_are_skipped_until_command_config_or_output_changes(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("a: 1")
    base = job(tmp_path, "a")
    first = Job(base.name, base.command, base.output, (), (config,))
    for change, runs in ((None, 1), (None, 1), ("config", 2), ("output", 3)):
        if change == "config":
            config.write_text("a: 2")
        if change == "output":
            first.output.unlink()
        run([first], tmp_path)
        assert order(tmp_path) == ["a"] * runs


def test_what_was_made_from_an_older_output_is_made_again(tmp_path: Path) -> None:
    jobs = [job(tmp_path, "a"), job(tmp_path, "b", after=("a",))]
    run(jobs, tmp_path)
    run(jobs, tmp_path)
    assert order(tmp_path) == ["a", "b"]
    jobs[0].output.unlink()
    run(jobs, tmp_path)
    assert order(tmp_path) == ["a", "b", "a", "b"]
    jobs[0].output.unlink()
    run(jobs[:1], tmp_path)  # as if interrupted between the two
    run(jobs, tmp_path)
    assert order(tmp_path)[4:] == ["a", "b"]


def test_interruption_lets_the_running_jobs_save(tmp_path: Path) -> None:
    worker = (
        "import signal, sys, time\n"
        f"def stop(*_): open({str(tmp_path / 'saved')!r}, 'w').close(); sys.exit(130)\n"
        f"signal.signal(signal.SIGINT, stop); open({str(tmp_path / 'up')!r}, 'w').close(); time.sleep(60)"
    )
    driver = (
        "import sys; from pathlib import Path; from benchmarks.jobs import Job, Records\n"
        "from benchmarks.launch.local import run_jobs\n"
        f"t = Path({str(tmp_path)!r})\n"
        f"run_jobs([Job('a', (sys.executable, '-c', {worker!r}), t / 'x')], Records(t / 'r'), t / 'l')"
    )
    process = subprocess.Popen([sys.executable, "-c", driver], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not (tmp_path / "up").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    process.wait(30)
    assert (tmp_path / "saved").exists()

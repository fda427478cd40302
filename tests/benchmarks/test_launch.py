"""The local launcher: order, failure, skipping what is finished, and interruption."""

from __future__ import annotations

import io
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from rich.console import Console

from benchmarks.jobs import Job, Records
from benchmarks.launch.display import Display
from benchmarks.launch.local import Local
from benchmarks.launch.process import interrupt, start
from benchmarks.launch.scheduler import run_jobs
from pixbench.progress import note_progress

pytestmark = pytest.mark.slow


def job(tmp_path: Path, name: str, code: str = "", after: tuple[str, ...] = ()) -> Job:
    output = tmp_path / f"{name}.out"
    script = f"{code}\nopen({str(tmp_path / 'order')!r}, 'a').write({name + ' '!r})\nopen({str(output)!r}, 'w').close()"
    return Job(name, (sys.executable, "-c", script), output, after)


def run(jobs: list[Job], tmp_path: Path, *options: Any) -> dict[str, str]:
    records = Records(tmp_path / "records")
    return run_jobs(jobs, records, Local(records, tmp_path / "logs", *options))


def order(tmp_path: Path) -> list[str]:
    return (tmp_path / "order").read_text().split()


def test_jobs_wait_for_what_they_need(tmp_path: Path) -> None:
    jobs = [job(tmp_path, "a", "import time; time.sleep(0.5)"), job(tmp_path, "b", after=("a",)), job(tmp_path, "c")]
    assert run(jobs, tmp_path, 2) == dict.fromkeys("abc", "done")
    assert order(tmp_path).index("a") < order(tmp_path).index("b")


def test_a_config_that_changes_while_its_job_runs_is_not_done(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("lr: 1")

    def jobs() -> list[Job]:
        edit = f"open({str(config)!r}, 'w').write('lr: 2')"
        return [replace(job(tmp_path, "a", edit), inputs=(config,)), replace(job(tmp_path, "b", edit), after=("a",))]

    assert run(jobs(), tmp_path) == {"a": "done", "b": "done"}
    run(jobs(), tmp_path)
    assert order(tmp_path) == ["a", "b", "a", "b"]
    run(jobs(), tmp_path)  # nothing has changed since
    assert order(tmp_path) == ["a", "b", "a", "b"]


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
        run([replace(first)], tmp_path)  # planned anew at each start
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


@pytest.mark.parametrize("presses", [1, 2])
def test_interruption_lets_the_running_jobs_save_unless_pressed_again(tmp_path: Path, presses: int) -> None:
    """Each job has a child in a session of its own, as torchrun's workers are; nothing is left of it."""
    child = f"import os, time; open({str(tmp_path / 'child')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    worker = (
        "import signal, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True)\n"
        "def stop(*_):\n"
        f"    time.sleep({30 * (presses - 1)}); child.kill(); open({str(tmp_path / 'saved')!r}, 'w').close(); sys.exit(130)\n"
        f"signal.signal(signal.SIGINT, stop); time.sleep(60)"
    )
    process = drive(tmp_path, worker)
    wait_for(tmp_path / "child")
    for _ in range(presses):
        os.kill(process.pid, signal.SIGINT)
        time.sleep(1)
    process.communicate(timeout=30)
    assert (tmp_path / "saved").exists() == (presses == 1)
    assert (
        not psutil.pid_exists(pid := int((tmp_path / "child").read_text())) or psutil.Process(pid).status() == "zombie"
    )
    assert not list((tmp_path / "r").glob("*"))  # it is to be started again


SAVES_SLOWLY = """
import os, signal, sys, time
from pathlib import Path
from pixbench.distributed import rank
from pixbench.errors import run_command
from pixbench.interrupt import StopSignal
from pixbench.process_group import AgreedStop, process_group

def command():
    folder = Path(sys.argv[1])
    with process_group("cpu"), StopSignal() as stop:
        (folder / f"up{rank()}").touch()
        while not stop.asked_at:
            time.sleep(0.05)
        if rank() == 0:
            time.sleep(float(sys.argv[2]))
            (folder / "saved").touch()
        raise AgreedStop

sys.exit(run_command(command, name="pixbench", continues=True))
"""


@pytest.mark.parametrize("seconds", [2, pytest.param(33, marks=pytest.mark.e2e)])
@pytest.mark.e2e
def test_torchrun_does_not_kill_a_job_that_saves(seconds: int, tmp_path: Path) -> None:
    """torchrun, asked to stop, kills its workers after 30 seconds; so they are asked, and wait for the one that saves."""
    script = tmp_path / "job.py"
    script.write_text(SAVES_SLOWLY)
    many = Job("a", (sys.executable, str(script), str(tmp_path), str(seconds)), tmp_path / "never", gpus=2)
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    process = start(many, tmp_path / "log", environment)
    wait_for(tmp_path / "up0")
    wait_for(tmp_path / "up1")
    interrupt(process)
    process.wait(timeout=90)
    said = (tmp_path / "log").read_text()
    assert (tmp_path / "saved").exists(), said
    assert said.count("interrupted; all finished work is kept") == 2


def test_jobs_end_with_a_suite_that_was_killed(tmp_path: Path) -> None:
    worker = (
        f"import signal, time\ndef stop(*_): open({str(tmp_path / 'saved')!r}, 'w').close()\n"
        f"signal.signal(signal.SIGTERM, stop); open({str(tmp_path / 'child')!r}, 'w').write('x'); time.sleep(60)"
    )
    process = drive(tmp_path, worker)
    wait_for(tmp_path / "child")
    process.kill()
    process.communicate()
    wait_for(tmp_path / "saved")


def drive(tmp_path: Path, worker: str) -> subprocess.Popen[bytes]:
    """Another process that runs ``worker`` as its only job."""
    driver = (
        "import sys; from pathlib import Path; from benchmarks.jobs import Job, Records\n"
        "from benchmarks.launch.local import Local; from benchmarks.launch.scheduler import run_jobs\n"
        f"t = Path({str(tmp_path)!r}); r = Records(t / 'r')\n"
        f"run_jobs([Job('a', (sys.executable, '-c', {worker!r}), t / 'x')], r, Local(r, t / 'l'))"
    )
    return subprocess.Popen([sys.executable, "-c", driver], stderr=subprocess.PIPE)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not (path.exists() and (path.stat().st_size or path.name != "child")):
        assert time.monotonic() < deadline, f"no {path}"
        time.sleep(0.05)


def test_devices_are_shared_out(tmp_path: Path) -> None:
    """Two devices a job, two jobs at a time; what needs none sees none."""
    seen = tmp_path / "seen"
    code = f"import os, time; open({str(seen)!r}, 'a').write(os.environ['CUDA_VISIBLE_DEVICES'] + ' '); time.sleep(0.6)"
    script = tmp_path / "script.py"
    script.write_text(f"{code}; open(os.environ.get('OUT') or {str(tmp_path)!r} + '/made', 'w')")
    jobs = [Job(f"pretrain/{n}", (sys.executable, str(script)), tmp_path / "made", (), (), 1) for n in "abcd"]
    assert set(run(jobs, tmp_path, 9, ["4", "6"]).values()) == {"done"}
    first, second = sorted(seen.read_text().split()[:2]), sorted(seen.read_text().split()[2:])
    assert first == second == ["4", "6"]
    seen.unlink()
    run([job(tmp_path, "data", code)], tmp_path, 1, ["4"])
    assert seen.read_text() == " "


def test_cores_are_shared_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that this process may use, not all that the machine has."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    seen = tmp_path / "seen"
    run([job(tmp_path, "a", f"import os; open({str(seen)!r}, 'w').write(os.environ['OMP_NUM_THREADS'])")], tmp_path, 2)
    assert seen.read_text() == "3"


def test_several_processes_come_through_torchrun(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    text = f"import os; open({str(tmp_path)!r} + '/rank' + os.environ['RANK'], 'w').write(os.environ['CUDA_VISIBLE_DEVICES'])"
    script.write_text(text)
    jobs = [Job("pretrain/a", (sys.executable, str(script)), tmp_path / "rank1", (), (), 2)]
    assert run(jobs, tmp_path, 1, ["1", "3", "5"]) == {"pretrain/a": "done"}
    assert (tmp_path / "rank0").read_text() == "1,3"


def test_the_number_of_gpus_is_no_part_of_what_a_job_is() -> None:
    one, two = (Job("pretrain/a", ("python", "-m", "pretrain"), Path("x"), gpus=gpus) for gpus in (1, 2))
    assert one.key == two.key
    assert two.argv()[1:5] == ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    assert one.argv(("--nnodes=2",))[3:] == ("--nnodes=2", "--nproc_per_node=1", "-m", "pretrain")


def test_a_job_that_hangs_is_ended_and_one_that_writes_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    busy = "import time\nfor i in range(30): print(i, flush=True); time.sleep(0.1)"
    jobs = [job(tmp_path, "busy", busy), job(tmp_path, "hung", "import time; time.sleep(60)")]
    assert run(jobs, tmp_path, 2, (), 1.5) == {"busy": "done", "hung": "failed"}
    assert "hung: FAILED: nothing written for 0.025 minutes (--stall-minutes)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL (out of memory?)"),
        (
            "print('pretrain: error: the loss is nan; lower it'); print('=' * 20); raise SystemExit(1)",
            "the loss is nan",
        ),
        ("print('pixbench pretrain: error: the loss is nan'); print('='); raise SystemExit(1)", "the loss is nan"),
        (
            "print('pixbench: error: the disk is full\\npixbench: error: RuntimeError: Connection closed by peer "
            "(a defect in PixBench? run again)'); raise SystemExit(70)",
            "the disk is full",
        ),
        (
            "print('pixbench: error: KeyError: 3 (a defect in PixBench? run again)'); raise SystemExit(70)",
            "KeyError: 3",
        ),
        ("raise SystemExit(3)", "exit code 3"),
    ],
)
def test_why_a_job_failed(tmp_path: Path, code: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    run([job(tmp_path, "a", code)], tmp_path)
    assert f"a: FAILED: {reason}" in capsys.readouterr().out
    assert reason in (tmp_path / "records" / "a.json").read_text()


def test_a_worker_of_torchrun_that_was_killed_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os; os.kill(os.getpid(), 9) if os.environ['RANK'] == '1' else __import__('time').sleep(60)"
    )
    run([Job("pretrain/a", (sys.executable, str(script)), tmp_path / "x", (), (), 2)], tmp_path)
    assert "killed by SIGKILL (out of memory?)" in capsys.readouterr().out


def test_the_table_shows_what_the_runs_tell(tmp_path: Path) -> None:
    """On a terminal of 20 rows: the failed and the running first, with iteration, time left and metrics."""
    running = Job("transfer/running", (), tmp_path / "r" / "result.json")
    note_progress(running.output.parent, 40, 120, 1.5, mIoU=21.25)
    jobs = [running, *(job(tmp_path, f"waiting{n}") for n in range(30)), job(tmp_path, "failed")]
    console = Console(width=120, height=20, force_terminal=True, file=io.StringIO())
    display = Display(jobs, console)
    display.event(0, running, "started")
    process = SimpleNamespace(job=running, state=lambda: "running")
    console.print(display.table({"failed": "failed"}, {"transfer/running": process}))
    text = re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue())
    assert "1 failed, 1 running, 30 waiting, 0:00:00; 18 rows hidden" in text
    assert re.search(r"running +running +0:00:00 +40/120 +0:02:00 +mIoU 21\.2", text)
    assert len(text.splitlines()) <= 20


def test_a_job_that_has_said_nothing_is_starting(tmp_path: Path) -> None:
    console = Console(width=200, file=io.StringIO())
    display = Display([first := job(tmp_path, "transfer/a")], console)
    log = tmp_path / "log"
    for line in ("", "$ /usr/bin/python -m x\n", "init_cfg={'type': 'Normal'}\n", "iteration 3/9  loss 2.9\n"):
        log.write_text(log.read_text() + line if log.exists() else line)
        display.last = -math.inf
        display.refresh({}, {first.name: SimpleNamespace(job=first, log=log)})
    said = [line.partition("transfer/a: ")[2] for line in console.file.getvalue().splitlines()]
    assert said == ["starting", "starting", "starting", "iteration 3/9  loss 2.9"]


def test_a_terminal_gets_a_table_that_stays(tmp_path: Path) -> None:
    import pty

    code = (
        "import sys; from pathlib import Path; from benchmarks.jobs import Job, Records\n"
        "from benchmarks.launch.local import Local; from benchmarks.launch.scheduler import run_jobs\n"
        f"t = Path({str(tmp_path)!r}); r = Records(t / 'r'); c = (sys.executable, '-c', 'import time; time.sleep(1)')\n"
        "run_jobs([Job('a', c, t), Job('b', (*c, 'x'), t / 'no')], r, Local(r, t / 'l', 2))"
    )
    main, side = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=side, stderr=side, env=environment)
    os.close(side)
    text = b""
    try:
        while block := os.read(main, 65536):
            text += block
    except OSError:  # the other side has closed
        pass
    assert process.wait(30) == 0
    assert text.count(b"best so far") > 1  # drawn again
    assert b"b: FAILED: the command ended without an error but did not write" in text

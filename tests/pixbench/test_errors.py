"""What stops a command becomes one sentence and an exit code."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys

import pytest
import torch

from pixbench.errors import UserError, run_command, worker_deaths_explained


def raising(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UserError("the data root x is missing; name another"), 2, "the data root x is missing"),
        (OSError(errno.ENOSPC, "No space left on device", "a.pth"), 2, "no space left on the disk while writing a.pth"),
        (PermissionError(errno.EACCES, "Permission denied", "b"), 2, "no permission for b"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "c"), 2, "No such file or directory: c"),
        (RuntimeError("boom"), 70, "RuntimeError: boom (a defect in PixBench?"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried"),
            2,
            "the GPU has too little memory for this run; in pre-training, lower",
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you"), 2, "in transfer, use a smaller --batch"),
        (MemoryError(), 2, "the machine has too little memory"),
    ],
)
def test_one_sentence_and_a_code(
    error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(lambda: raising(error), name="x") == code
    said = capsys.readouterr().err.strip()
    assert words in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("continues", "said"),
    [
        (False, "x: interrupted"),
        (True, "x: interrupted; all finished work is kept, start the same command again to continue"),
    ],
)
def test_only_a_command_that_goes_on_is_to_be_started_again(
    continues: bool, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(lambda: raising(KeyboardInterrupt()), name="x", continues=continues) == 130
    assert capsys.readouterr().err.strip() == said


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(UserError):
        run_command(lambda: raising(UserError("x")), name="x", debug=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_background_job_can_be_interrupted(number: int) -> None:
    """Shells start background jobs with SIGINT ignored; the command listens all the same."""
    script = (
        "import time; from pixbench.errors import run_command; import sys\n"
        "sys.exit(run_command(lambda: print('up', flush=True) or time.sleep(60), name='x'))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    os.kill(process.pid, number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"interrupted" in said


def test_a_reader_that_has_had_enough_is_not_scolded() -> None:
    script = (
        "import sys; from pixbench.errors import run_command\n"
        "sys.exit(run_command(lambda: [print(i, flush=True) for i in range(100000)] and 0, name='x'))"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(30) == 141  # as after SIGPIPE


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
        RuntimeError("received 0 items of ancdata"),  # it died while it handed over a batch
        RuntimeError("Invalid data received"),
        ConnectionResetError("reset"),
        EOFError("end"),
    ],
    ids=str,
)
def test_a_worker_that_dies_at_any_moment_is_called_one(error: Exception) -> None:
    with pytest.raises(UserError, match="a data worker died"), worker_deaths_explained():
        raise error


def test_a_worker_whose_death_is_noticed_elsewhere_is_no_defect_either(capsys: pytest.CaptureFixture[str]) -> None:
    """PyTorch's handler of SIGCHLD raises wherever the main thread is, also while another error is handled."""

    def command() -> int:
        try:
            with worker_deaths_explained():
                raise ConnectionResetError("reset")
        finally:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    assert run_command(command, name="pretrain") == 2
    assert "a data worker died (DataLoader worker (pid 7) is killed by signal: Killed.)" in capsys.readouterr().err


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), BrokenPipeError("output")], ids=str)
def test_other_errors_are_no_deaths_of_workers(error: Exception) -> None:
    with pytest.raises(type(error)), worker_deaths_explained():
        raise error

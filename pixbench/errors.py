"""Errors that are meant for the user, and the function that turns errors into exit codes."""

from __future__ import annotations

import difflib
import errno
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from pixbench.interrupt import stop_signals


class UserError(Exception):
    """An error that the user can correct. The message states what is wrong, where, and what to do."""


class OtherProcessStopped(UserError):
    """This process stops only because another one did. The cause is that other process's to tell."""

    SIGN = "another process stopped"
    """How its sentence begins."""

    def __init__(
        self,
        how: str = "with an error",
        advice: str = "look for the error of that process in this output",
        recorded: bool = True,
    ) -> None:
        super().__init__(f"{self.SIGN} {how}, so this one stops too; {advice}")
        self.recorded = recorded
        """Whether the other process records the cause itself."""


def run_command(command: Callable[[], int | None], *, name: str, debug: bool = False, continues: bool = False) -> int:
    """Run ``command``. If it raises an exception, print one sentence on stderr. Return an exit code.

    Exit codes: 0 success, 1 finished with failures (returned by the command itself), 2 an error that the user can correct,
    70 a defect in PixBench, 130 interrupted, 141 the reader of the output closed the pipe (as after SIGPIPE).
    With ``debug``, the traceback is shown instead of the sentence. ``continues`` says that the same command, started again after
    an interruption, goes on with what is finished.
    A process that is still in a group of processes after an error exits here and does not return (`pixbench.process_group`).
    """
    global _name, _debug, _continues
    _name, _debug, _continues = name, debug, continues
    try:
        with _interruptible():
            code = command() or 0
    except (Exception, KeyboardInterrupt) as error:
        if debug and not _in_group():
            raise
        code = _say(error)
    if _in_group():
        _exit_at_once(code)
    _drop_dead_streams()
    return code


_name, _debug, _continues = "pixbench", False, False
"""Of the command that runs."""


def _say(error: Exception | KeyboardInterrupt) -> int:
    """Print what ended the command, and return its exit code."""
    if _debug:
        traceback.print_exception(error)
        return 1
    if isinstance(error, BrokenPipeError):  # the reader closed the pipe, as in `pixbench table RUNS | head`
        return 141
    if isinstance(error, KeyboardInterrupt):
        advice = "; all finished work is kept, start the same command again to continue" if _continues else ""
        _print(f"\n{_name}: interrupted{advice}")
        return 130
    _print(printable(f"{_name}: error: {explain(error)}", kept="\n"))
    users = isinstance(error, UserError | OSError) or is_out_of_memory(error) or _is_worker_death(error)
    return 2 if users else 70


def _print(text: str) -> None:
    with suppress(OSError, ValueError):  # the terminal may be gone
        print(text, file=sys.stderr, flush=True)


def _drop_dead_streams() -> None:
    """Send what is still to be printed nowhere if the screen is gone; otherwise Python's own end changes the exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def say_last_words_after(seconds: float, error: Exception) -> None:
    """Print ``error`` and exit if this process still runs after ``seconds``. Only a process of several may need this."""

    def end() -> None:
        _exit_at_once(_say(error))

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def _in_group() -> bool:
    distributed = sys.modules.get("torch.distributed")  # not imported for this: it takes a second
    return distributed is not None and distributed.is_available() and distributed.is_initialized()


def _exit_at_once(code: int) -> None:
    """Exit without the interpreter's own end, which would wait for the other processes of the group."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    for worker in multiprocessing.active_children():
        worker.kill()
    os._exit(code)


def printable(text: str, kept: str = "") -> str:
    """Return ``text`` with all unprintable characters escaped, except those in ``kept``.

    Names from a file may contain control characters, which could write to the terminal, or lone surrogates.
    """
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)


def say(line: str) -> None:
    """Print a line that may hold names from files, on stdout."""
    print(printable(line))


def an(title: str) -> str:
    """Return ``title`` with its article; names that begin with MM are spelt."""
    return f"{'an' if title.startswith(('MM', *'aeiouAEIO')) else 'a'} {title}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean X?" with the most similar entry X of ``known``, or "" if none is similar."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def listed(names: Iterable[str], most: int = 8) -> str:
    """Return ``names`` with commas; of more than ``most``, the first ones and the number of the others."""
    words = [*names]
    shown = words if len(words) <= most + 1 else [*words[:most], f"… and {len(words) - most} more"]
    return ", ".join(shown)


@contextmanager
def worker_deaths_explained() -> Iterator[None]:
    """Turn PyTorch's error about a dead data worker into a `UserError`.

    Use it around the code that takes batches. Where PyTorch raises it outside, such as while files are closed, `run_command`
    says the same.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        ours = any(sign in str(error) for sign in _DEAD) if isinstance(error, RuntimeError) else True
        if not ours or isinstance(error, BrokenPipeError):  # a broken pipe is about our own output
            raise
        raise UserError(_worker_death(error)) from error


def _worker_death(error: BaseException) -> str:
    return (
        f"a data worker died ({str(error).partition(chr(10))[0].strip()}); the usual cause is that the memory or /dev/shm "
        "is full: lower the number of workers (data.workers, DATALOADER.NUM_WORKERS or train_dataloader.num_workers), then "
        "start the same command again"
    )


def _is_worker_death(error: BaseException) -> bool:
    """Return whether ``error`` is PyTorch's, whose handler of SIGCHLD raises it wherever the main thread is."""
    return isinstance(error, RuntimeError) and str(error).startswith(_DEAD[0])


_DEAD = ("DataLoader worker", "items of ancdata", "Invalid data received", "shared memory")
"""What the errors say: PyTorch's, and those of `multiprocessing.reduction` if a worker died while it handed over a batch."""


def innermost(message: str) -> str:
    """Return the text of the `UserError` in ``message``. An error from a data worker has a traceback around it."""
    return message.strip().rpartition("UserError: ")[2] if "Traceback" in message else message


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let every signal that asks to stop raise KeyboardInterrupt inside the block.

    SIGINT needs a handler too, because a shell starts its background jobs with SIGINT ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.default_int_handler) for number in stop_signals()}
    # it asks a run to save (`SaveSignal`), and by default it would kill one that has nothing to save yet
    before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def explain(error: BaseException) -> str:
    """Describe an exception in one sentence: what is wrong, where, and what to do."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = f" while writing {error.filename}" if error.filename else ""
        return f"no space left on the disk{where}; free some space and start the same command again"
    if isinstance(error, PermissionError):
        return f"no permission for {error.filename}; check its owner and permissions, or choose another path"
    if isinstance(error, OSError):
        return f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
    if is_out_of_memory(error):
        where = "GPU" if "CUDA" in str(error) else "machine"
        return (
            f"the {where} has too little memory for this run; in pre-training, lower batch_size or raise accumulate; "
            "in transfer, use a smaller --batch or use --accumulate, or lower SOLVER.IMS_PER_BATCH or "
            "train_dataloader.batch_size"
        )
    if _is_worker_death(error):
        return _worker_death(error)
    return f"{type(error).__name__}: {error} (a defect in PixBench? run again with --debug to see the traceback)"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether ``error`` says that memory ran out. Only names and texts are compared, to avoid importing PyTorch."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))

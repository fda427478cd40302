"""Errors meant for the person at the keyboard, and the one place where they turn into an exit code."""

from __future__ import annotations

import difflib
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from pixbench.interrupt import numbers


class UserError(Exception):
    """Something the user can mend. The message says what is wrong, where, and what to do about it."""


def run_command(command: Callable[[], int | None], *, name: str, debug: bool = False) -> int:
    """Run ``command`` and turn whatever stops it into one sentence on stderr and an exit code.

    Exit codes: 0 done, 1 finished with failures (returned by the command itself), 2 the user has to mend something,
    70 a defect of ours, 130 interrupted, 141 nobody reads our output (as after SIGPIPE).
    With ``debug`` the traceback is shown instead.
    """
    try:
        with _interruptible():
            return command() or 0
    except KeyboardInterrupt:
        if debug:
            raise
        print(
            f"\n{name}: interrupted; what was finished is kept, start the same command again to go on", file=sys.stderr
        )
        return 130
    except BrokenPipeError:  # who read our output has had enough, as in `pixbench table RUNS | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if debug:
            raise
        print(printable(f"{name}: error: {explain(error)}", kept="\n"), file=sys.stderr)
        return 2 if isinstance(error, UserError | OSError) or _is_out_of_memory(error) else 70


def printable(text: str, kept: str = "") -> str:
    """``text``, as a name out of a file, made harmless for a terminal: control characters and what no encoding knows escaped."""
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a sentence that suggests the most similar of ``known``; empty if none is similar."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


@contextmanager
def worker_deaths_explained() -> Iterator[None]:
    """Put around what takes batches: PyTorch raises wherever the parent happens to be when it learns of a death."""
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        ours = "DataLoader worker" in str(error) if isinstance(error, RuntimeError) else True
        if not ours or isinstance(error, BrokenPipeError):  # that one is of our output
            raise
        raise UserError(
            f"a data worker died ({str(error).partition(chr(10))[0].strip()}); most often memory or /dev/shm ran out: lower "
            "their number (data.workers, DATALOADER.NUM_WORKERS or train_dataloader.num_workers), then start the same command "
            "again"
        ) from error


def innermost(message: str) -> str:
    """An error from a data worker comes back with that process's traceback around it."""
    return message.strip().rpartition("UserError: ")[2] if "Traceback" in message else message


@contextmanager
def _interruptible() -> Iterator[None]:
    """Whatever asks to stop raises KeyboardInterrupt. Said in so many words since a shell starts its background jobs with
    SIGINT ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def explain(error: BaseException) -> str:
    """One sentence for any exception: what, where, what to do."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = f" while writing {error.filename}" if error.filename else ""
        return f"no space left on the disk{where}; free some and start the same command again"
    if isinstance(error, PermissionError):
        return f"no permission for {error.filename}; check who owns it, or choose another place"
    if isinstance(error, OSError):
        return f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
    if _is_out_of_memory(error):
        where = "GPU" if "CUDA" in str(error) else "machine"
        return (
            f"the {where} has too little memory for this run; pre-training: lower batch_size or raise accumulate; "
            "transfer: give --batch or --accumulate, or set SOLVER.IMS_PER_BATCH or train_dataloader.batch_size"
        )
    return f"{type(error).__name__}: {error} (a defect in PixBench? run again with --debug for the traceback)"


def _is_out_of_memory(error: BaseException) -> bool:
    """Known by name and words: the commands that need no PyTorch do without its import."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))

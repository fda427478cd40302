"""Give a folder one owner at a time, on one machine or on a file system that several machines share.

A process that wants a folder writes a claim into it, a file with a name of its own, and then looks for other claims. If two
processes come at the same moment, each sees the other: perhaps neither gets the folder, but never both. No process changes the
claim of another one, and only the claim of a dead process is removed. This needs neither exclusive creation nor `flock` nor an
exchange of two names, which some shared file systems lack. `docs/dependencies.md` says why no library is used.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from pixbench.errors import UserError
from pixbench.files import make_folder, write_json

CLAIMS = ".owner.*.json"
"""Pattern of the names of the claims in a folder."""
BEAT_S = 20.0
"""Seconds between two signs of life of an owner."""
STALE_S = 180.0
"""Seconds without a sign of life after which a claim of another machine no longer counts."""


@contextmanager
def owned(folder: str | os.PathLike[str], lost: Callable[[], object] | None = None) -> Iterator[None]:
    """Own ``folder`` while the block runs. The folder is created if it does not exist.

    If the claim of a dead process is taken over, this is reported on standard output.

    Args:
        folder: Folder to own.
        lost: Function that is called in a thread if another process took the folder because this process gave no sign of
            life in time, for example because the machine slept. By default, this process exits at once. It does not save
            first, because saving would overwrite the new owner's files.

    Raises:
        UserError: Another running process owns the folder. The message names this process.
    """
    folder = make_folder(folder)
    claim = folder / CLAIMS.replace("*", uuid.uuid4().hex)
    pid = os.getpid()
    write_json(claim, {"host": socket.gethostname(), "pid": pid, "machine": machine_id(), "born": _born(pid)})
    done = threading.Event()
    try:
        for other in folder.glob(CLAIMS):
            if other != claim:
                _refuse_or_remove(other, claim)
        threading.Thread(target=_beat, args=(claim, done, lost or partial(os._exit, 130)), daemon=True).start()
        yield
    finally:
        done.set()
        with suppress(OSError):  # a folder that is gone or no longer writable must not hide the error of the block
            claim.unlink(missing_ok=True)


def _refuse_or_remove(other: Path, mine: Path) -> None:
    """Raise `UserError` if the claim ``other`` counts; remove it if its owner is dead."""
    try:
        text = other.read_text(encoding="utf-8")
        # both times come from the file system, because the clocks of two machines differ
        age = mine.stat().st_mtime - other.stat().st_mtime
    except FileNotFoundError:  # its owner has just ended
        return
    try:
        owner = json.loads(text)
        name, here = f"process {owner['pid']} on {owner['host']}", owner["machine"] == machine_id()
        dead = _born(owner["pid"]) not in (owner["born"], "hidden") if here else age > STALE_S
    except (ValueError, TypeError, KeyError):  # damaged, for example when the machine lost power
        name, dead = f"the unknown process that wrote {other.name}", age > STALE_S
    if not dead:
        raise UserError(
            f"{mine.parent} is in use by {name}; wait until it ends or stop it, then start the same command again"
        )
    other.unlink(missing_ok=True)
    print(f"{mine.parent}: taken over from {name}, which no longer runs", flush=True)


def _beat(claim: Path, done: threading.Event, lost: Callable[[], object]) -> None:
    """Give a sign of life every `BEAT_S` seconds: set the time of the file ``claim``."""
    while not done.wait(BEAT_S):
        try:
            os.utime(claim)
        except FileNotFoundError:
            if not done.is_set():
                print(f"{claim.parent} was taken over by another process or removed, so this process stops", flush=True)
                lost()
            return
        except OSError:  # the file system is away for a while
            continue


def machine_id() -> str:
    """Return a text that is equal for processes that see each other's ids: same boot and same namespace of process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return uuid.uuid4().hex  # unknown: only signs of life count


def _born(pid: Any) -> str | None:
    """Return the start time of a process, in ticks since the boot, which tells it from a later one with the same id.

    It is "hidden" for a running process of another user that this system does not show, and None for a dead process.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return "hidden" if _answers(pid) else None
    return None if state == "Z" else fields[18]  # Z: it has ended, and its parent has not yet waited for it


def _answers(pid: Any) -> bool:
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True
    except (OSError, ValueError, TypeError, OverflowError):
        return False
    return True

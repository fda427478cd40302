"""One owner at a time for a folder, on one machine or on a file system that several share.

Who wants a folder leaves a claim in it, a file of its own, and then looks for the claims of others. Of two that come at the
same moment each sees the other, so that perhaps none gets in but never both. No claim is ever changed by another process,
and none is taken away but a stale one: no exclusive creation, no `flock` is needed, which some file systems lack.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pretrain.errors import UserError
from pretrain.files import write_json

BEAT_S = 20.0
"""Seconds between two heartbeats of an owner."""
STALE_S = 180.0
"""A claim of another machine without a heartbeat for so long is nobody's any more."""


@contextmanager
def owned(folder: str | os.PathLike[str], lost: Callable[[], object] | None = None) -> Iterator[None]:
    """Own ``folder`` while the block runs. A claim left behind by a dead process is taken over, which is said.

    If another takes it over meanwhile (this process slept too long), ``lost`` is called in a thread. By default the process ends
    on the spot: asked by a signal, it would save first, over what the new owner has saved.

    Raises UserError naming the owner if the folder has one already.
    """
    folder = Path(folder)
    claim = folder / f".owner.{uuid.uuid4().hex}.json"
    who = {"host": socket.gethostname(), "pid": os.getpid(), "machine": _machine(), "born": _born(os.getpid())}
    write_json(claim, who)
    done = threading.Event()
    try:
        for other in folder.glob(".owner.*.json"):
            if other != claim:
                _refuse_or_remove(other, claim)
        threading.Thread(target=_beat, args=(claim, done, lost or partial(os._exit, 130)), daemon=True).start()
        yield
    finally:
        done.set()
        claim.unlink(missing_ok=True)


def _refuse_or_remove(other: Path, mine: Path) -> None:
    try:
        owner = json.loads(other.read_text(encoding="utf-8"))
        # both times are the file system's: clocks of machines differ
        age = mine.stat().st_mtime - other.stat().st_mtime
    except FileNotFoundError:  # it has just left
        return
    name = f"process {owner['pid']} on {owner['host']}"
    gone = owner["born"] != _born(owner["pid"]) if owner["machine"] == _machine() else age > STALE_S
    if not gone:
        raise UserError(f"{mine.parent} is in use by {name}; wait for it or stop it, then start the same command again")
    other.unlink(missing_ok=True)
    print(f"{mine.parent}: taken over from {name}, which is gone", flush=True)


def _beat(claim: Path, done: threading.Event, lost: Callable[[], object]) -> None:
    while not done.wait(BEAT_S):
        try:
            os.utime(claim)
        except FileNotFoundError:
            if not done.is_set():
                print(f"{claim.parent} was taken over by another process; leaving it to that one", flush=True)
                lost()
            return
        except OSError:  # the file system is away for a while
            continue


def _machine() -> str | None:
    """Equal for processes that see each other's ids: same boot of the same machine, same namespace of processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return uuid.uuid4().hex  # not to be known: only the heartbeat counts


def _born(pid: Any) -> str | None:
    """When a process started, in ticks since the boot; tells it from a later one of the same id. None if it has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if state == "Z" else fields[18]

"""One owner at a time for a folder, on one machine or on a file system that several machines share.

The lock itself is `filelock.SoftFileLease`: a file in the folder whose owner renews it, so that the claim of a process that
died is taken over: at once if it ran on this machine, after `LEASE_S` seconds without a renewal if it ran on another one.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from filelock import SoftFileLease, Timeout

from pixbench.errors import UserError
from pixbench.files import make_folder

OWNER = ".owner.lock"
"""Name of the file in an owned folder."""
LEASE_S = 180.0
"""Seconds without a renewal after which the claim of another machine counts for nothing. The same in all processes."""
BEAT_S = 20.0
"""Seconds between two renewals."""


@contextmanager
def owned(folder: str | os.PathLike[str], lost: Callable[[], object] | None = None) -> Iterator[None]:
    """Own ``folder``, which is made if it is not there, while the block runs.

    Taking over the claim of a dead process is reported on standard output.

    Args:
        folder: the folder to own.
        lost: called in a thread if another process takes the folder over meanwhile, because this one slept too long. By
            default the process ends on the spot: asked by a signal, it would save first, over what the new owner has saved.

    Raises:
        UserError: the folder has another owner that is alive; the message names it.
    """
    folder = make_folder(folder)

    def give_up(_compromise: object) -> None:
        print(f"{folder} was taken over by another process; leaving it to that one", flush=True)
        (lost or _end)()

    lease = SoftFileLease(
        folder / OWNER, lease_duration=LEASE_S, heartbeat_interval=BEAT_S, on_compromise=give_up, thread_local=False
    )
    before = lease.owner
    name = f"process {before.pid} on {before.hostname.partition('?')[0]}" if before else "another process"
    try:
        _acquire(lease, folder, name)
    except Timeout as error:
        raise UserError(
            f"{folder} is in use by {name}; wait for it or stop it, then start the same command again"
        ) from error
    try:
        if before:
            print(f"{folder}: taken over from {name}, which is gone", flush=True)
        yield
    finally:
        lease.release()


def _acquire(lease: SoftFileLease, folder: Path, name: str) -> None:
    """Acquire ``lease``; wait for the end of its duration where only that can show that the owner is dead."""
    try:
        lease.acquire(timeout=0)
    except Timeout:
        owner = lease.owner
        if owner is None or (_is_here(owner.hostname) and _is_running(owner.pid)):
            raise
        print(f"{folder} belongs to {name}; waiting up to {LEASE_S:.0f} s for a sign of life from it", flush=True)
        lease.acquire(timeout=LEASE_S + BEAT_S, poll_interval=BEAT_S / 40)


def _is_here(hostname: str) -> bool:
    """Return whether a claim's ``hostname`` is this machine, seen from the same namespace of process ids."""
    host, _, namespace = hostname.partition("?pidns-")
    return host == socket.gethostname() and (not namespace or namespace == f"{os.stat('/proc/self/ns/pid').st_ino:x}")


def _is_running(pid: int) -> bool:
    """Return whether the process ``pid`` of this machine runs; one that ended and was not waited for does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _end() -> None:
    os._exit(130)

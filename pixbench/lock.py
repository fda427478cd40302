"""Give a folder one owner at a time, on one machine or on a file system that several machines share.

The lock is a `filelock.SoftFileLease`: a file in the folder that the owner renews regularly. The lock of a dead process is
taken over: at once if it ran on this machine, after `LEASE_S` seconds without a renewal if it ran on another machine.
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
"""Name of the lock file in an owned folder."""
LEASE_S = 180.0
"""Seconds without a renewal after which the lock of another machine expires. It must be the same in all processes."""
BEAT_S = 20.0
"""Seconds between two renewals."""


@contextmanager
def owned(folder: str | os.PathLike[str], lost: Callable[[], object] | None = None) -> Iterator[None]:
    """Own ``folder`` while the block runs. The folder is created if it does not exist.

    If the lock of a dead process is taken over, this is reported on standard output.

    Args:
        folder: Folder to own.
        lost: Function that is called in a thread if another process took the folder because this process did not renew its
            lock in time, for example because the machine slept. By default, this process exits at once. It does not save
            first, because saving would overwrite the new owner's files.

    Raises:
        UserError: Another running process owns the folder. The message names this process.
    """
    folder = make_folder(folder)

    def give_up(_compromise: object) -> None:
        print(f"{folder} was taken over by another process, so this process stops", flush=True)
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
            f"{folder} is in use by {name}; wait until it ends or stop it, then start the same command again"
        ) from error
    try:
        if before:
            print(f"{folder}: taken over from {name}, which no longer runs", flush=True)
        yield
    finally:
        lease.release()


def _acquire(lease: SoftFileLease, folder: Path, name: str) -> None:
    """Acquire ``lease``. Wait until it expires only if nothing else can show that the owner is dead."""
    try:
        lease.acquire(timeout=0)
    except Timeout:
        owner = lease.owner
        here = owner is not None and _is_here(owner.hostname)
        if owner is None or (here and _is_running(owner.pid)):
            raise
        if here:  # a process that ended and was not waited for, which filelock takes for alive
            lease.force_break()
            lease.acquire(timeout=0)
            return
        print(f"{folder} belongs to {name}; waiting up to {LEASE_S:.0f} s for a sign of life from it", flush=True)
        lease.acquire(timeout=LEASE_S + BEAT_S, poll_interval=BEAT_S / 40)


def _is_here(hostname: str) -> bool:
    """Return whether the ``hostname`` of a lock means this machine and the same namespace of process ids."""
    host, _, namespace = hostname.partition("?pidns-")
    return host == socket.gethostname() and (not namespace or namespace == f"{os.stat('/proc/self/ns/pid').st_ino:x}")


def _is_running(pid: int) -> bool:
    """Return whether the process ``pid`` runs on this machine. A zombie (ended, but not waited for) does not run."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _end() -> None:
    os._exit(130)

"""Let one process of each machine make something large, and let all processes of the machine map the same memory.

The memory is a file without a name (`memfd_create`, Linux), which the kernel frees when the last process ends, however it ends.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, BinaryIO, TypeVar

import torch.distributed as dist

from pixbench.distributed import objects_of_all, rank
from pixbench.errors import UserError, explain
from pixbench.lock import machine_id
from pixbench.process_group import GLOO_PAUSE_S

Made = TypeVar("Made")
Opened = TypeVar("Opened")
PATIENCE = timedelta(days=2)
"""How long the other processes wait for the one that makes it."""


def shared_by_machine(name: str, make: Callable[[BinaryIO], Made], open_: Callable[[str, Made], Opened]) -> Opened:
    """Make a file in memory in the first process of each machine, and open it in all of them.

    Args:
        name: name of the memory in lists of the system.
        make: writes the file, and returns what else the others need (small, because it is copied).
        open_: maps the file, given its path and what ``make`` returned. The path is no longer valid afterwards.

    Raises:
        UserError: ``make`` failed in another process. In the process itself its own error is raised.
    """
    agent = os.environ.get("GROUP_RANK")  # of torchrun; it may have files of its own
    here, group = _group_of(objects_of_all((machine_id(), agent)))
    if group is None:
        path, made, descriptor = _made(name, make)
        try:
            return open_(path, made)
        finally:
            os.close(descriptor)
    descriptor, error = -1, None
    said: tuple[str, Any, str] | None = None
    if here[0] == rank():
        try:
            path, made, descriptor = _made(name, make)
            said = path, made, ""
        except Exception as caught:
            error, said = caught, ("", None, explain(caught))
    path, made, trouble = _gathered(said, group, len(here))[0]
    try:
        if error is not None:
            raise error
        if trouble:
            raise UserError(trouble)
        return open_(path, made)
    finally:
        _gathered(None, group, len(here))  # all have opened it
        if descriptor >= 0:
            os.close(descriptor)
        time.sleep(GLOO_PAUSE_S)  # as when the whole group is left
        dist.destroy_process_group(group)


def _group_of(machines: list[Any]) -> tuple[list[int], dist.ProcessGroup | None]:
    """Return the ranks of this machine, and a group of them; None if there is one process only.

    Each group is of one machine, so no connection between machines is needed. The waits of NCCL would end after minutes.
    """
    here, own = [rank()], None
    for machine in dict.fromkeys(machines):
        ranks = [number for number, other in enumerate(machines) if other == machine]
        if len(ranks) > 1:
            group = dist.new_group(ranks, backend="gloo", timeout=PATIENCE)  # all processes must call it for all groups
            if rank() in ranks:
                here, own = ranks, group
    return here, own


def _made(name: str, make: Callable[[BinaryIO], Made]) -> tuple[str, Made, int]:
    descriptor = os.memfd_create(name)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as stream:
            made = make(stream)
    except BaseException:
        os.close(descriptor)
        raise
    return f"/proc/{os.getpid()}/fd/{descriptor}", made, descriptor


def _gathered(value: Any, group: dist.ProcessGroup, processes: int) -> list[Any]:
    found: list[Any] = [None] * processes
    dist.all_gather_object(found, value, group=group)
    return found

"""Join the processes that torchrun has started, and end without waiting for those that do not come.

A process may leave its group only when all leave it. NCCL waits for the others then, for as long as the group's time limit, and
a process whose own error ended it would print that error only afterwards, if at all. So after an error the process stays in the
group, says what happened and exits at once (`pixbench.errors.run_command`). torchrun then ends the others.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from pixbench.distributed import any_process, has_host_group, in_group, objects_of_all, world_size
from pixbench.errors import OtherProcessStopped, UserError, say_last_words_after
from pixbench.interrupt import stop_signals
from pixbench.patience import PROCESS_TIMEOUT_H

_GROUPS = itertools.count()
"""Numbers of the groups that this process joins; all processes join the same ones in the same order."""
GLOO_PAUSE_S = 0.5
"""Seconds to wait before a gloo group is destroyed."""
CLOSING_S = 15.0
"""Seconds that a process has to close its files after an error, before it exits without closing them."""


class AgreedStop(KeyboardInterrupt):
    """All processes stop at the same step, because one of them was asked to; what was done is saved."""


@contextmanager
def process_group(device: str, hours: float = PROCESS_TIMEOUT_H, backend: str = "") -> Iterator[torch.device]:
    """Be in the group of the processes that torchrun has started; one process alone needs no group.

    Inside another such block, it changes nothing.

    Yields the device of this process. The group is left when the block ends, or with `AgreedStop`, because all processes do
    that together. After any other exception the process stays in the group, see the top of this file.

    Args:
        device: "cuda" or "cpu"; the GPU of this process becomes the current one.
        hours: how long an exchange may take.
        backend: of `torch.distributed`; by default NCCL on GPUs and gloo on CPUs.

    Raises:
        UserError: There are more processes than GPUs on this machine.
    """
    place = torch.device(device)
    if device == "cuda":
        place = torch.device(device, int(os.environ.get("LOCAL_RANK", "0")))
        if place.index >= torch.cuda.device_count():
            raise UserError(
                f"process {place.index} finds only {torch.cuda.device_count()} GPUs; start one process per GPU"
            )
        torch.cuda.set_device(place)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or in_group():
        yield place
        return
    _join(backend or ("nccl" if device == "cuda" else "gloo"), timedelta(hours=hours))
    try:
        yield place
    except AgreedStop:
        with suppress(
            RuntimeError
        ):  # torchrun ends the others as soon as one exits, so wait until rank 0 has closed its files
            any_process(False)
        _leave()
        raise
    _leave()


def _join(backend: str, timeout: timedelta) -> None:
    """Join the group.

    Each group gets its own part of torchrun's store. Otherwise a process may read there the addresses of the group before, and
    wait for ever: of the group that it has just left, or, on one machine, of the processes before a restart
    (https://github.com/pytorch/pytorch/issues/135712). The agents of several machines do not count restarts alike; there,
    TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 gives each restart a new store.
    """
    store, rank, size = next(dist.rendezvous("env://"))
    store = dist.PrefixStore(f"group {next(_GROUPS)}", store)
    if os.environ.get("GROUP_WORLD_SIZE", "1") == "1":
        store = dist.PrefixStore(f"restart {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)


def _leave() -> None:
    """Destroy the group.

    Gloo's threads take the GIL to release the tensors of the last exchange. The thread that destroys the group holds the GIL
    while it waits for them. Without the pause, a run may hang after its last step.
    """
    if in_group():
        if has_host_group():
            time.sleep(GLOO_PAUSE_S)
        dist.destroy_process_group()


@contextmanager
def ends_in_time(record: Callable[[Exception], object]) -> Iterator[None]:
    """Record why the block failed, and end the process within `CLOSING_S` seconds, whatever its closing waits for.

    What waits then is, for example, a copy from a GPU whose queue holds an exchange with a process that is gone. One process
    alone may take its time.

    Args:
        record: writes down why the run ended. It is called in each process, but not after a request to stop.
    """
    try:
        yield
    except Exception as error:
        with suppress(OSError):  # the disk is full, or is not there: the reason is printed anyway
            record(error)
        if world_size() > 1:
            say_last_words_after(CLOSING_S, error)
            for number in stop_signals():  # of torchrun, once another process has ended; it would hide the error
                signal.signal(number, signal.SIG_IGN)
        raise


def may_record(error: Exception, path: Path) -> bool:
    """Return whether this process is to write ``error`` to the result ``path``.

    A consequence of another process's error does not replace the cause. A process that has not joined the others yet leaves
    ``path`` to rank 0, which may not own the folder yet.
    """
    if int(os.environ.get("RANK", "0")) > 0 and not in_group():
        return False
    return not (isinstance(error, OtherProcessStopped) and (error.recorded or path.exists()))


@contextmanager
def process_deaths_explained() -> Iterator[None]:
    """Turn the error of an exchange with a process that has died into an `OtherProcessStopped`."""
    try:
        yield
    except RuntimeError as error:
        if world_size() == 1 or not any(sign in str(error) for sign in _GONE):
            raise
        raise OtherProcessStopped(
            "without a farewell",
            "look for the cause in its output, then start the same command again, or give torchrun --max-restarts so that it "
            "goes on by itself",
            recorded=False,
        ) from error


_GONE = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "NCCL communicator was aborted",
    "remote process",
)
"""What gloo's and NCCL's errors say if a process has died."""


def check_alike(what: str, facts: Mapping[str, object]) -> None:
    """Compare ``facts`` of all processes.

    Raises:
        UserError: They differ; ``what`` says what they are about. All processes raise it.
    """
    found: list[dict[str, object]] = objects_of_all(dict(facts))
    for name, value in found[0].items():
        others = {number: other[name] for number, other in enumerate(found) if other[name] != value}
        if others:
            number, other = next(iter(others.items()))
            raise UserError(
                f"the processes do not agree on {what}: {name} is {value} in process 0 and {other} in process {number}"
                f"{f' (and differs in {len(others) - 1} more)' if len(others) > 1 else ''}; give all machines the same files "
                "(a shared folder may be slow to show what another machine has written: wait a minute), then start the same "
                "command again"
            )

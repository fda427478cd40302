"""Share the work of a frozen evaluation among the processes that torchrun started, so that the result is that of one process.

Work is done in turns: in turn t, process r of R does piece t · R + r of those that one process would do one after another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch

from pixbench.distributed import any_process, from_first, rank, world_size
from pixbench.errors import OtherProcessStopped, UserError, worker_deaths_explained
from pixbench.process_group import process_group

T = TypeVar("T")


def processes(hours: float) -> AbstractContextManager[torch.device]:
    """Return the group of the processes that torchrun started, as `process_group` does.

    On GPUs it has gloo too, so that what is on the host needs no GPU to be exchanged.
    """
    if torch.cuda.is_available():
        return process_group("cuda", hours, backend="cpu:gloo,cuda:nccl")
    return process_group("cpu", hours)


def in_turns(items: Iterable[Any], pieces: int) -> Iterator[Any]:
    """Yield ``items``, what this process takes of ``pieces`` in all, and None in a last turn for which it has no more.

    All processes must take all turns. If one of them has an error, as an item or raised by ``items``, all stop in that turn.

    Raises:
        UserError: An item is a `UserError`, a data worker died, or another process stopped for such a reason.
    """
    iterator = iter(items)
    for _ in range(-(-pieces // world_size())):
        try:
            with worker_deaths_explained():
                item = next(iterator, None)
        except UserError as error:
            item = error
        if any_process(isinstance(item, UserError))[0]:
            try:
                raise item if isinstance(item, UserError) else OtherProcessStopped()
            finally:
                del item  # the error would hold itself by this name and its traceback, and with it the data workers
        yield item


def by_first(work: Callable[[], T]) -> T:
    """Let rank 0 do ``work``; return the result in every process. It is pickled, so tensors should be on the CPU.

    Raises:
        UserError: Rank 0 could not do it.
    """
    result, trouble = None, None
    if rank() == 0:
        try:
            result = work()
        except UserError as error:
            trouble = error
    found: tuple[Any, str | None] = from_first((result, trouble and str(trouble)))
    if found[1] is not None:
        raise trouble or UserError(found[1])
    return found[0]

"""Queue of the momentum encoder's latest keys, kept in buffers of the method so that it is saved with the model.

Shapes: B batch of this process, R processes, C channels, K keys in the queue.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixbench.distributed import all_gather_cat
from pixbench.errors import UserError


def add_queue(owner: nn.Module, name: str, size: int, dim: int) -> None:
    """Add the buffers ``name`` and ``name``_pointer to ``owner``.

    They hold the keys (K, C), at first random unit vectors, and the index of the oldest key.
    """
    owner.register_buffer(name, F.normalize(torch.randn(size, dim), dim=1))
    owner.register_buffer(f"{name}_pointer", torch.zeros((), dtype=torch.int64))


@torch.no_grad()
def enqueue(owner: nn.Module, name: str, keys: Tensor) -> None:
    """Replace the oldest keys with the ``keys`` (B, C) of all processes.

    Raises:
        UserError: K is not a multiple of R·B.
    """
    queue, pointer = owner.get_buffer(name), owner.get_buffer(f"{name}_pointer")
    keys = all_gather_cat(keys, grad=False)
    size = len(queue)
    if size % len(keys):
        raise UserError(
            f"queue_size {size} is not a multiple of the total batch {len(keys)}; "
            f"set it to {max(1, round(size / len(keys))) * len(keys)}"
        )
    places = (
        pointer + torch.arange(len(keys), device=queue.device)
    ) % size  # on the device: no waiting for the pointer
    keys = torch.where(
        keys.isfinite().all(1, keepdim=True), keys.to(queue.dtype), queue[places]
    )  # of a step that is skipped
    queue.index_copy_(0, places, keys)
    pointer.add_(len(keys)).remainder_(size)

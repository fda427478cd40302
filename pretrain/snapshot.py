"""Copy the state of a run, so that it can be written while the run goes on."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor


class Snapshot:
    """A copy of nested dicts, lists and tuples with all tensors in host memory, which the next copy uses again.

    Tensors of a GPU are copied into pinned memory without waiting. The kernels that change them come later in the same stream,
    so the copy is of this moment.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[Any, ...], Tensor] = {}
        self._from_gpu = False
        self._copied: torch.cuda.Event | None = None

    @torch.no_grad()
    def take(self, content: Any) -> Any:
        """Return the copy of ``content``. Call `wait` before you read tensors of it; the next `take` overwrites them."""
        copied = self._copy(content, ())
        if self._from_gpu:
            self._copied = torch.cuda.Event()
            self._copied.record()
        return copied

    def wait(self) -> None:
        """Wait until the copies from a GPU are complete. Another thread may do this."""
        if self._copied is not None:
            self._copied.synchronize()

    def _copy(self, value: Any, place: tuple[Any, ...]) -> Any:
        if isinstance(value, Tensor):
            return self._copy_tensor(value, place)
        if isinstance(value, dict):
            result = copy.copy(value)  # of the same class, with its attributes: PyTorch keeps versions in them
            for key, inner in value.items():
                result[key] = self._copy(inner, (*place, key))
            return result
        if isinstance(value, list | tuple):
            return type(value)([self._copy(inner, (*place, number)) for number, inner in enumerate(value)])
        return value

    def _copy_tensor(self, tensor: Tensor, place: tuple[Any, ...]) -> Tensor:
        buffer = self._buffers.get(place)
        like = (tensor.shape, tensor.dtype, tensor.stride())
        if buffer is None or (buffer.shape, buffer.dtype, buffer.stride()) != like:
            buffer = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
            self._buffers[place] = buffer
        self._from_gpu |= tensor.is_cuda
        return buffer.copy_(tensor, non_blocking=True)

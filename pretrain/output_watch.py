"""Watch the outputs of all modules of a network during a forward pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


@dataclass
class OutputWatch:
    """While the block runs, note the first module whose output is not finite, and the largest absolute value of each module.

    A module inside another one ends first, so the first one is the innermost.
    """

    model: nn.Module
    first: str = ""
    """Name of the first module whose output has NaN or infinite values, and which of its calls it was; "" if there was none."""
    largest: dict[str, float] = field(default_factory=dict)
    """Largest absolute value in the outputs of each module without sub-modules, over all calls."""
    _calls: Counter[str] = field(default_factory=Counter)
    _handles: list[RemovableHandle] = field(default_factory=list)

    def __enter__(self) -> OutputWatch:
        for name, module in self.model.named_modules():
            if name:
                self._handles.append(module.register_forward_hook(self._hook(name, not [*module.children()])))
        return self

    def _hook(self, name: str, is_leaf: bool) -> Any:
        def note(module: nn.Module, given: Any, output: Any) -> None:
            self._calls[name] += 1
            for tensor in tensors_in(output):
                largest = float(tensor.detach().abs().max()) if tensor.numel() else 0.0
                if not self.first and not largest < float("inf"):  # NaN, too
                    self.first = f"{name} ({type(module).__name__}), call {self._calls[name]}"
                if is_leaf:
                    self.largest[name] = max(self.largest.get(name, 0.0), largest, key=lambda x: (x != x, x))

        return note

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the floating-point tensors in nested containers."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from tensors_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from tensors_in(inner)

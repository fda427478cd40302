"""What every format is read into and written from: a ResNet trunk under torchvision's names, checked for wholeness.

A deep stem has the names of `pretrain/models/resnet.py`: ``stem.0``, ``.1``, ``.3``, ``.4``, ``.6``, ``.7``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pretrain.errors import UserError
from pretrain.models.spec import TrunkSpec
from transfer.weights import neck_model
from transfer.weights.format import Pixels, measure
from transfer.weights.vit import VitSpec

COUNTER = "num_batches_tracked"
"""BatchNorm's count of training batches. With a fixed momentum, as everywhere here, no output depends on it."""


@dataclass(frozen=True)
class Trunk:
    """Weights of one trunk: exactly the names, shapes and types of ``spec.build().state_dict()``."""

    spec: TrunkSpec | VitSpec
    state: dict[str, Tensor]
    source: str
    """Where it came from, for messages and records."""
    extras: dict[str, Tensor] = field(default_factory=dict)
    """Pyramid and head of a detector that were trained with it, if any; see `transfer.weights.neck`."""
    pixels: Pixels = field(default_factory=Pixels)
    """How images must be prepared for it."""

    @property
    def resnet(self) -> TrunkSpec:
        """``spec`` where only a ResNet will do."""
        if isinstance(self.spec, TrunkSpec):
            return self.spec
        raise UserError(f"{self.source} holds a {self.spec.title}, and this needs a ResNet; choose another checkpoint")


@dataclass(frozen=True)
class Counts:
    """Where every tensor of one step (reading, writing, loading) went. Nothing ends anywhere else without an error."""

    converted: int
    dropped: dict[str, int] = field(default_factory=dict)
    """Left out on purpose: reason -> how many."""
    initialised: dict[str, int] = field(default_factory=dict)
    """Not from the source but of the receiver's own making, by design: reason -> how many."""
    cast: dict[str, int] = field(default_factory=dict)
    """Of those converted, how many were brought into another type; each value survived exactly."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        text = f"{self.converted} converted"
        tables = {"dropped on purpose": self.dropped, "initialised by design": self.initialised, "cast": self.cast}
        for verb, table in tables.items():
            if table:
                text += f", {sum(table.values())} {verb} ({', '.join(f'{n} {reason}' for reason, n in table.items())})"
        return text


class Problems:
    """Collects what is wrong with which key, so that one error names them all."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}

    def add(self, kind: str, keys: Iterable[str]) -> None:
        if keys := list(keys):
            self.found.setdefault(kind, []).extend(keys)

    def raise_if_any(self, what: str, advice: str) -> None:
        if self.found:
            listing = "; ".join(f"{len(keys)} {kind} ({', '.join(keys)})" for kind, keys in self.found.items())
            raise UserError(f"{what}: {listing}; {advice}")


def is_counter(name: str) -> bool:
    return name.endswith(f".{COUNTER}")


class _Blank(TorchFunctionMode):
    """Leaves parameters unfilled. On the meta device there is nothing to fill, yet PyTorch would import sympy to do it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init" or func.__name__ in (
            "fill_",
            "zero_",
            "normal_",
            "uniform_",
        ):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def skeleton(spec: TrunkSpec | VitSpec) -> Any:
    """A trunk of ``spec`` on the meta device: shapes without memory, whatever size a file claims to be."""
    with torch.device("meta"), _Blank():
        return spec.build()


def neck_skeleton(spec: TrunkSpec, extras: Mapping[str, Tensor]) -> nn.ModuleDict:
    """As `skeleton`: pyramid and head of ``extras``, see `neck_model.build`."""
    with torch.device("meta"), _Blank():
        return neck_model.build(spec, extras)


def expected(spec: TrunkSpec | VitSpec, extras: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Names, shapes and types of a trunk of ``spec``, and of pyramid and head if there are ``extras``."""
    neck = neck_skeleton(spec, extras).state_dict() if extras and isinstance(spec, TrunkSpec) else {}
    return _shapes(spec) | neck


@lru_cache
def _shapes(spec: TrunkSpec | VitSpec) -> dict[str, Tensor]:
    return dict(skeleton(spec).state_dict())


def infer_spec(state: Mapping[str, Tensor], source: str = "the state dict") -> TrunkSpec | VitSpec:
    """The spec that the weights tell, see `transfer.weights.format.measure`."""
    fields = measure({name: tuple(tensor.shape) for name, tensor in state.items()}, source)
    return VitSpec(**fields) if "patch" in fields else TrunkSpec(**fields)


def _finite(tensor: Tensor) -> bool:
    """Whether all values are. A sum is quicker, and cannot be finite if one of them is not."""
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def check(trunk: Trunk) -> None:
    """Raise one `UserError` that lists every missing, unexpected, mis-shaped, mis-typed or non-finite key."""
    wanted, held, problems = expected(trunk.spec, trunk.extras), {**trunk.state, **trunk.extras}, Problems()
    problems.add("missing", (name for name in wanted if name not in held))
    problems.add("unexpected", (name for name in held if name not in wanted))
    shared = [name for name in held if name in wanted]
    problems.add(
        "of the wrong shape",
        (
            f"{name} is {tuple(held[name].shape)}, should be {tuple(wanted[name].shape)}"
            for name in shared
            if held[name].shape != wanted[name].shape
        ),
    )
    problems.add(
        "of the wrong type",
        (
            f"{name} is {held[name].dtype}, should be {wanted[name].dtype}"
            for name in shared
            if held[name].dtype != wanted[name].dtype
        ),
    )
    problems.add(
        "with NaN or infinite values",
        (n for n in shared if held[n].shape == wanted[n].shape and not _finite(held[n])),
    )
    problems.raise_if_any(
        f"{trunk.source} does not hold a sound {trunk.spec.title}",
        "use a checkpoint that was written whole, of a trunk of this kind",
    )

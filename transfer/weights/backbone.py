"""What every format is read into and written from: a ResNet backbone under torchvision's names, checked for wholeness.

A deep stem has the names of `pretrain/models/resnet.py`: ``stem.0``, ``.1``, ``.3``, ``.4``, ``.6``, ``.7``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pixbench.errors import UserError, printable
from pretrain.models.backbone_spec import BackboneSpec
from transfer.weights.containers.arrays import Array, is_finite, type_name
from transfer.weights.expected_shapes import Shape, expected
from transfer.weights.file_format import Pixels
from transfer.weights.recognition import measure
from transfer.weights.vit_spec import VitSpec


@dataclass(frozen=True)
class Backbone:
    """Weights of one backbone: exactly the names, shapes and types of ``build_network(spec).state_dict()``.

    They are numpy's arrays where a file is turned into another, which so needs no PyTorch, and tensors for everybody else.
    """

    spec: BackboneSpec | VitSpec
    state: dict[str, Array]
    source: str
    """Where it came from, for messages and records."""
    extras: dict[str, Array] = field(default_factory=dict)
    """Pyramid and head of a detector that were trained with it, if any; see `transfer.weights.pyramid_head`."""
    pixels: Pixels = field(default_factory=Pixels)
    """How images must be prepared for it."""

    @property
    def resnet(self) -> BackboneSpec:
        """``spec`` where only a ResNet will do."""
        if isinstance(self.spec, BackboneSpec):
            return self.spec
        raise UserError(f"{self.source} holds a {self.spec.title}, and this needs a ResNet; choose another checkpoint")

    def tensors(self) -> Backbone:
        """The same in PyTorch's tensors, on the same memory if that may be written to."""
        import torch

        def tensor(values: Array) -> torch.Tensor:
            if isinstance(values, torch.Tensor):
                return values
            return torch.from_numpy(values if values.flags.writeable else values.copy())

        both = ({name: tensor(values) for name, values in table.items()} for table in (self.state, self.extras))
        return replace(self, state=next(both), extras=next(both))


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

    def raise_if_any(self, what: str, advice: str, most: int | None = None) -> None:
        """``most``: so many keys of each kind at most are named."""
        if self.found:
            listing = "; ".join(f"{len(keys)} {kind} ({_named(keys, most)})" for kind, keys in self.found.items())
            raise UserError(f"{what}: {listing}; {advice}")


def _named(keys: list[str], most: int | None) -> str:
    shown = [printable(key[:_LONGEST]) for key in keys[:most]]
    return ", ".join(shown) + (f" and {len(keys) - len(shown)} more" if len(keys) > len(shown) else "")


_LONGEST = 200
"""Letters of a name that are shown."""


def infer_spec(state: Mapping[str, Array], source: str = "the state dict") -> BackboneSpec | VitSpec:
    """The spec that the weights tell, see `transfer.weights.file_format.measure`."""
    fields = measure({name: tuple(tensor.shape) for name, tensor in state.items()}, source)
    try:
        return VitSpec(**fields) if "patch" in fields else BackboneSpec(**fields)
    except ValueError as error:
        raise UserError(f"{source} holds no backbone that can be converted ({error}); use another one") from error


def check(backbone: Backbone) -> None:
    """Raise one `UserError` that lists every missing, unexpected, mis-shaped, mis-typed or non-finite key."""
    wanted, held, problems = expected(backbone.spec, backbone.extras), {**backbone.state, **backbone.extras}, Problems()
    found = {name: Shape(tuple(held[name].shape), type_name(held[name])) for name in held if name in wanted}
    problems.add("missing", (name for name in wanted if name not in held))
    problems.add("unexpected", (name for name in held if name not in wanted))
    shapes = {name: (has.shape, wanted[name].shape) for name, has in found.items()}
    types = {name: (has.dtype, wanted[name].dtype) for name, has in found.items()}
    for what, pairs in (("shape", shapes), ("type", types)):
        wrong = (f"{name} is {has}, should be {needs}" for name, (has, needs) in pairs.items() if has != needs)
        problems.add(f"of the wrong {what}", wrong)
    sound = (name for name, shape in found.items() if shape == wanted[name])
    problems.add("with NaN or infinite values", (name for name in sound if not is_finite(held[name])))
    problems.raise_if_any(
        f"{backbone.source} does not hold a sound {backbone.spec.title}",
        "use a checkpoint that was written whole, of a backbone of this kind",
    )

"""Define `Backbone`, the common form of all weights, with names as in torchvision, and the check that it is complete.

Every file is read into a `Backbone` and written from one. A deep stem has the names of `pretrain/models/resnet.py`:
``stem.0``, ``.1``, ``.3``, ``.4``, ``.6``, ``.7``. A ViT has the names of `transfer.weights.vit_spec`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from pixbench.errors import UserError, an, printable
from pretrain.models.backbone_spec import BackboneSpec
from pretrain.models.named_spec import NamedSpec
from transfer.weights.expected_shapes import Shape, expected
from transfer.weights.file_format import Pixels
from transfer.weights.measure import measure
from transfer.weights.spec import Spec, spec_from
from transfer.weights.tensors import is_finite, type_name


@dataclass(frozen=True)
class Backbone:
    """Weights of one backbone, with exactly the names, shapes and types of ``build_network(spec).state_dict()``."""

    spec: Spec
    state: dict[str, Tensor] = field(repr=False)
    source: str
    """Path of the file or another description of the origin, for messages and records."""
    extras: dict[str, Tensor] = field(default_factory=dict, repr=False)
    """Feature pyramid and head that were pre-trained with the backbone, if any; see `transfer.weights.pyramid_head`."""
    pixels: Pixels = field(default_factory=Pixels)
    """How input images must be prepared."""
    last_norm: dict[str, Tensor] = field(default_factory=dict, repr=False)
    """"weight" and "bias" (D,) of the layer norm after the last block of a ViT, if the file holds it. Only frozen evaluation
    reads it: it is no part of ``state``, because ViTDet has none."""
    pretraining: dict[str, Any] | None = None
    """The pre-training run that the weights come from, as `pixbench.result_schema.Pretraining`; None if it is not known."""
    resized: bool = False
    """Whether its patches were smaller in pre-training, see `transfer.weights.larger_patches`."""

    @property
    def resnet(self) -> BackboneSpec:
        """Return ``spec`` if the backbone is a ResNet; raise `UserError` otherwise."""
        if isinstance(self.spec, BackboneSpec):
            return self.spec
        raise UserError(f"{self.source} holds {an(self.spec.title)}, but a ResNet is needed; choose another checkpoint")

    @property
    def pretrainable(self) -> BackboneSpec | NamedSpec:
        """Return ``spec`` if it is one of pre-training: a ResNet, or a backbone by name; raise `UserError` otherwise."""
        return self.spec if isinstance(self.spec, NamedSpec) else self.resnet


@dataclass(frozen=True)
class Counts:
    """Count what happened to every tensor in one operation (read, write or load). Any other case is an error."""

    converted: int
    dropped: dict[str, int] = field(default_factory=dict)
    """Tensors left out on purpose: reason -> number."""
    initialised: dict[str, int] = field(default_factory=dict)
    """Tensors that do not come from the source but are initialised by the receiver, by design: reason -> number."""
    cast: dict[str, int] = field(default_factory=dict)
    """Converted tensors whose type was changed without changing any value: types -> number."""

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as plain data for a record."""
        return asdict(self)

    def __str__(self) -> str:
        text = f"{self.converted} converted"
        tables = {"dropped on purpose": self.dropped, "initialised by design": self.initialised, "cast": self.cast}
        for verb, table in tables.items():
            if table:
                text += f", {sum(table.values())} {verb} ({', '.join(f'{n} {reason}' for reason, n in table.items())})"
        return text


class Problems:
    """Collect problems with keys, so that one error lists all of them."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}

    def add(self, problem: str, keys: Iterable[str]) -> None:
        """Add ``keys`` to the problems described by ``problem``, such as "missing"."""
        if keys := list(keys):
            self.found.setdefault(problem, []).extend(keys)

    def raise_if_any(self, what: str, advice: str, most: int | None = None) -> None:
        """Raise `UserError` if there are problems; at most ``most`` keys with each problem are listed."""
        if self.found:
            listing = "; ".join(f"{len(keys)} {problem} ({_named(keys, most)})" for problem, keys in self.found.items())
            raise UserError(f"{what}: {listing}; {advice}")


def _named(keys: list[str], most: int | None) -> str:
    shown = [printable(key[:_LONGEST]) for key in keys[:most]]
    return ", ".join(shown) + (f" and {len(keys) - len(shown)} more" if len(keys) > len(shown) else "")


_LONGEST = 200
"""Largest number of characters of a key that a message shows."""


def infer_spec(state: Mapping[str, Tensor], source: str = "the state dict") -> Spec:
    """Return the spec that follows from names and shapes of the weights, see `transfer.weights.measure`."""
    return spec_of({name: tuple(tensor.shape) for name, tensor in state.items()}, source)


def spec_of(shapes: Mapping[str, tuple[int, ...]], source: str) -> Spec:
    """Return the spec that follows from the shapes of the weights by name."""
    fields = measure(shapes, source)
    try:
        return spec_from(fields)
    except ValueError as error:
        raise UserError(
            f"{source} holds no backbone that can be converted ({error}); use another checkpoint"
        ) from error


def check(backbone: Backbone) -> None:
    """Raise one `UserError` that lists every key that is missing, unexpected, not finite or of the wrong shape or type."""
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
    variances = [name for name, shape in found.items() if name.endswith("running_var") and shape == wanted[name]]
    problems.add("with a negative variance", (name for name in variances if bool((held[name] < 0).any())))
    own = isinstance(backbone.spec, NamedSpec) and backbone.spec.family != "timm"
    problems.raise_if_any(
        f"{backbone.source} does not hold a valid {backbone.spec.title}",
        "use a complete checkpoint of this type of backbone"
        + own * ", or that module as it was when the file was written",
    )

"""Names of the feature pyramid and the (first layers of a) detector's head that some checkpoints hold with the backbone.

The canonical names are those of the modules in `models/pyramid_head_model.py` after ``fpn.`` and ``head.`` (dense) or ``box.``
(two-stage). In Detectron2, the one tower of a dense head becomes two, for classes and for boxes. Its layers are numbered: the
convolutions are 0, 3 and 6 if each has a norm (FCOS), otherwise 0, 2 and 4 (RetinaNet).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

from pretrain.models.backbone_spec import TOWER_DEPTH
from transfer.weights.naming import LEAVES

if TYPE_CHECKING:
    from torch import Tensor

BOX_DEPTH = 4
"""Number of convolutions in the box head."""
CELLS = 7
"""Cells along each side of a region."""
TOWERS = ("cls_subnet", "bbox_subnet")
BOX = "box head"
_FPN = [f"fpn.{module}" for module in "lateral3 output3 lateral4 output4 lateral5 output5 p6".split()]
_HEAD = [f"head.{module}{i}" for i in range(1, TOWER_DEPTH + 1) for module in ("conv", "norm")]
NAMES = tuple(f"{module}.{leaf}" for module in _FPN + _HEAD for leaf in ("weight", "bias"))
"""All possible names of the dense type. A checkpoint has no head, a head without norms, or a head with norms."""
_NORMED = [f"fpn.{module}{i}" for i in (2, 3, 4, 5) for module in ("lateral", "output")]
_NORMED += [f"box.conv{i + 1}" for i in range(BOX_DEPTH)]
_LEAVES = ["weight", *(f"norm.{leaf}" for leaf in LEAVES.split("|"))]
TWO_STAGE = (*(f"{m}.{leaf}" for m in _NORMED for leaf in _LEAVES), "box.fc1.weight", "box.fc1.bias")
"""All names of the two-stage type."""
BOX_HEAD = "roi_heads.box_head."
T = TypeVar("T")


def two_stage(extras: Mapping[str, object]) -> bool:
    """Whether ``extras`` are of the two-stage type."""
    return any(name.startswith("box.") or ".norm." in name for name in extras)


def is_detectron2(extras: Mapping[str, object]) -> bool:
    """Whether ``extras`` have Detectron2's names."""
    return any(name.startswith(("backbone.", BOX_HEAD)) or name.split(".")[1] in TOWERS for name in extras)


def width(extras: Mapping[str, Tensor]) -> int:
    """Return the number of channels of the pyramid."""
    return length(extras, "fpn.lateral2.norm.weight" if two_stage(extras) else "fpn.p6.bias")


def length(extras: Mapping[str, Tensor], name: str) -> int:
    """Return the length of the vector called ``name``, or 1 if there is no such vector."""
    vector = extras.get(name)
    return 1 if vector is None or vector.ndim != 1 or not len(vector) else len(vector)


def numbers(norm: bool) -> dict[str, int]:
    """Return the number of each layer in a Detectron2 tower, with or without norms: {"conv1": 0, ...}."""
    step = 3 if norm else 2
    convs = {f"conv{i + 1}": i * step for i in range(TOWER_DEPTH)}
    return convs | ({f"norm{i + 1}": i * step + 1 for i in range(TOWER_DEPTH)} if norm else {})


def places(name: str, numbered: Mapping[str, int]) -> list[str]:
    """Return Detectron2's names for ``name``. A layer that is not in ``numbered`` gets a name that no model has."""
    part, module, leaf = name.split(".", 2)
    if part == "head":
        return [f"head.{tower}.{numbered.get(module, module)}.{leaf}" for tower in TOWERS]
    if part == "box":
        return [f"{BOX_HEAD}{module}.{leaf}"]
    return [f"backbone.{'top_block.p6' if module == 'p6' else f'fpn_{module}'}.{leaf}"]


def to_detectron2(extras: Mapping[str, T]) -> dict[str, T]:
    """Rename to Detectron2's names, with layer numbers as in the detector whose head was pre-trained."""
    numbered = numbers("head.norm1.weight" in extras)
    return {place: value for name, value in extras.items() for place in places(name, numbered)}


def from_detectron2(state: Mapping[str, T]) -> dict[str, T]:
    """Rename back from Detectron2's names; other names are left out. The first of the two (equal) towers is used."""
    numbered = numbers(f"head.{TOWERS[0]}.1.weight" in state)
    table = {places(name, numbered)[0]: name for name in NAMES + TWO_STAGE}
    return {table[place]: value for place, value in state.items() if place in table}

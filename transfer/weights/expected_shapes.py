"""Names, shapes and types of all tensors of a complete backbone, pyramid and head.

They equal the state dicts of `pretrain/models/resnet.py`, `models/vit.py` and `models/pyramid_head_model.py`; tests check this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from torch import Tensor

from pretrain.models.backbone_spec import BLOCKS, GROUPS, TOWER_DEPTH, BackboneSpec
from pretrain.models.families import stage_channels
from pretrain.models.named_network import with_shapes_only
from pretrain.models.named_spec import NamedSpec
from transfer.weights import pyramid_head
from transfer.weights.naming import COUNTER
from transfer.weights.spec import Spec
from transfer.weights.tensors import type_name
from transfer.weights.vit_spec import VitSpec


class Shape(NamedTuple):
    """Shape and type of one tensor."""

    shape: tuple[int, ...]
    dtype: str = "float32"


Entries = Iterable[tuple[str, Shape]]


def expected(spec: Spec, extras: Mapping[str, Tensor] | None = None) -> dict[str, Shape]:
    """Return the shapes by name of a backbone of ``spec``, and of its pyramid and head if there are ``extras``."""
    if extras and not isinstance(spec, VitSpec):
        return _backbone(spec) | dict(
            _two_stage(spec, extras) if pyramid_head.two_stage(extras) else _dense(spec, extras)
        )
    return _backbone(spec)


@lru_cache
def _backbone(spec: Spec) -> dict[str, Shape]:
    if isinstance(spec, NamedSpec):
        return dict(_named(spec))
    return dict(_resnet(spec) if isinstance(spec, BackboneSpec) else _vit(spec))


def _weight(name: str, *shape: int, bias: bool = True) -> Entries:
    """Yield the entries of a convolution or a linear layer."""
    yield f"{name}.weight", Shape(shape)
    if bias:
        yield f"{name}.bias", Shape(shape[:1])


def _norm(name: str, channels: int) -> Entries:
    """Yield the entries of a batch norm."""
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{leaf}", Shape((channels,))
    yield f"{name}.{COUNTER}", Shape((), "int64")


def _conv_norm(conv: str, norm: str, out: int, inner: int, kernel: int) -> Entries:
    yield from _weight(conv, out, inner, kernel, kernel, bias=False)
    yield from _norm(norm, out)


def _resnet(spec: BackboneSpec) -> Entries:
    base = before = int(64 * spec.width)
    if spec.stem == "deep":
        for place, out, inner in ((0, base // 2, 3), (3, base // 2, base // 2), (6, base, base // 2)):
            yield from _conv_norm(f"stem.{place}", f"stem.{place + 1}", out, inner, 3)
    else:
        yield from _conv_norm("conv1", "bn1", base, 3, 3 if spec.stem == "3x3" else 7)
    for stage, count in enumerate(BLOCKS[spec.depth]):
        out, group = spec.channels // 2 ** (3 - stage), spec.group_channels * 2**stage
        inner = spec.groups * group
        for number in range(count):
            at = f"layer{stage + 1}.{number}."
            bottleneck = ((inner, before, 1), (inner, group, 3), (out, inner, 1))
            layers = ((out, before, 3), (out, out, 3)) if spec.basic else bottleneck
            for i, (after, held, kernel) in enumerate(layers, 1):
                yield from _conv_norm(f"{at}conv{i}", f"{at}bn{i}", after, held, kernel)
            if before != out:
                yield from _conv_norm(f"{at}downsample.0", f"{at}downsample.1", out, before, 1)
            before = out


def _vit(spec: VitSpec) -> Entries:
    width = spec.width
    yield "pos_embed", Shape((1, (spec.image // spec.patch) ** 2 + 1, width))
    yield from _weight("patch_embed.proj", width, 3, spec.patch, spec.patch)
    for number in range(spec.depth):
        at = f"blocks.{number}."
        for norm in ("norm1", "norm2"):
            yield from _weight(f"{at}{norm}", width)
        yield from _weight(f"{at}attn.qkv", 3 * width, width)
        yield from _weight(f"{at}attn.proj", width, width)
        yield from _weight(f"{at}mlp.fc1", 4 * width, width)
        yield from _weight(f"{at}mlp.fc2", width, 4 * width)


def _named(spec: NamedSpec) -> Entries:
    for name, tensor in with_shapes_only(spec).state_dict().items():
        yield name, Shape(tuple(tensor.shape), type_name(tensor))


def _dense(spec: BackboneSpec | NamedSpec, extras: Mapping[str, Tensor]) -> Entries:
    wide = pyramid_head.width(extras)
    for stage in (3, 4, 5):
        yield from _weight(f"fpn.lateral{stage}", wide, stage_channels(spec)[f"layer{stage - 1}"], 1, 1)
        yield from _weight(f"fpn.output{stage}", wide, wide, 3, 3)
    yield from _weight("fpn.p6", wide, wide, 3, 3)
    with_head = any(name.startswith("head.") for name in extras)
    for i in range(1, TOWER_DEPTH + 1) if with_head else ():
        yield from _weight(f"head.conv{i}", wide, wide, 3, 3)
        if "head.norm1.weight" in extras and wide % GROUPS == 0:
            yield from _weight(f"head.norm{i}", wide)


def _two_stage(spec: BackboneSpec | NamedSpec, extras: Mapping[str, Tensor]) -> Entries:
    wide, out = pyramid_head.width(extras), pyramid_head.length(extras, "box.fc1.bias")
    for stage in (2, 3, 4, 5):
        lateral, output = f"fpn.lateral{stage}", f"fpn.output{stage}"
        yield from _conv_norm(lateral, f"{lateral}.norm", wide, stage_channels(spec)[f"layer{stage - 1}"], 1)
        yield from _conv_norm(output, f"{output}.norm", wide, wide, 3)
    for i in range(1, pyramid_head.BOX_DEPTH + 1):
        yield from _conv_norm(f"box.conv{i}", f"box.conv{i}.norm", wide, wide, 3)
    yield from _weight("box.fc1", out, wide * pyramid_head.CELLS**2)

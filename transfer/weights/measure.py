"""Recognise the network of a backbone from the names and shapes of its weights. Needs no PyTorch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from pixbench.errors import UserError
from pretrain.models.backbone_spec import BASIC_BLOCKS, BLOCKS
from transfer.weights.vit_spec import measure_vit

_WIDEST = 4096
"""Largest size of a kernel in the stem and in the first block; 64 times the channels of a common ResNet."""

_THIRD = re.compile(r"layer[1-4]\.\d+\.(?:conv|bn)3\.")
"""Names that only bottlenecks have: a basic block has two convolutions."""


def measure(shapes: Mapping[str, tuple[int, ...]], source: str) -> dict[str, Any]:
    """Return the fields of the `BackboneSpec` or `VitSpec` that follow from canonical names and shapes.

    For a ResNet these are depth, width, stem, groups and width_per_group, and with the 3×3 stem its output stride. They follow
    from the stem, the numbers of blocks and the first block. `transfer.weights.backbone.check` compares everything else.

    Raises:
        UserError: The weights are not those of a network that this project has.
    """
    if "patch_embed.proj.weight" in shapes:
        return measure_vit(shapes, source)
    stem, base = _stem(shapes, source)
    basic = not any(map(_THIRD.match, shapes))
    fields = {"depth": _depth(shapes, basic, source), "width": base / 64, "stem": stem}
    fields |= _grouping(shapes, basic, base, source)
    return fields | ({"output_stride": 8} if stem == "3x3" else {})


def _stem(shapes: Mapping[str, tuple[int, ...]], source: str) -> tuple[str, int]:
    """Return the kind of stem and its number of channels."""
    deep = "stem.6.weight" in shapes
    name = "stem.6.weight" if deep else "conv1.weight"
    shape = shapes.get(name, ())
    if not _is_kernel(shape):
        what = f"not a 4-D kernel of sizes from 1 to {_WIDEST}, but {shape}" if shape else "missing"
        raise UserError(f"{source} holds no ResNet backbone: {name} (its stem) is {what}")
    base = shape[0]
    known = {(base / 2, 3, 3): "deep"} if deep else {(3, 7, 7): "7x7", (3, 3, 3): "3x3"}
    stem = next((kind for kernel, kind in known.items() if kernel == shape[1:]), None)
    if stem is None:
        raise UserError(f"{source} holds another stem than the ResNets that can be converted: {name} is {shape}")
    return stem, base


def _depth(shapes: Mapping[str, tuple[int, ...]], basic: bool, source: str) -> int:
    blocks = {match[0] for name in shapes if (match := re.match(r"layer[1-4]\.\d+\.", name))}
    per_stage = Counter(block[len("layer")] for block in blocks)
    counts = tuple(per_stage[stage] for stage in "1234")
    kinds = {kind: [depth for depth in BLOCKS if (depth in BASIC_BLOCKS) is kind] for kind in (True, False)}
    for depth in kinds[basic]:
        if BLOCKS[depth] == counts:
            return depth
    names = {kind: f"ResNet-{'/'.join(map(str, depths))}" for kind, depths in kinds.items()}
    raise UserError(
        f"{source} holds stages of {counts} blocks, {'basic ones' if basic else 'bottlenecks'}, so it is no {names[True]} "
        f"(basic blocks) and no {names[False]} (bottlenecks); other ResNets cannot be converted"
    )


def _grouping(shapes: Mapping[str, tuple[int, ...]], basic: bool, base: int, source: str) -> dict[str, int]:
    """Return groups and width_per_group, which follow from the first block."""
    found = [shapes.get(f"layer1.0.conv{number}.weight", ()) for number in ((1, 2) if basic else (1, 2, 3))]
    if all(map(_is_kernel, found)):
        inner, group = found[0][0], found[1][1]
        if basic and found == [(base, base, 3, 3)] * 2:
            return {"groups": 1, "width_per_group": 64}
        bottleneck = [(inner, base, 1, 1), (inner, group, 3, 3), (4 * base, inner, 1, 1)]
        if found == bottleneck and inner % group == 0 and 64 * group % base == 0:
            return {"groups": inner // group, "width_per_group": 64 * group // base}
    kind = "basic block" if basic else "bottleneck"
    raise UserError(
        f"{source} holds no {kind} that can be converted: behind a stem of {base} channels the convolutions of layer1.0 are "
        f"{', '.join(str(shape) if shape else 'missing' for shape in found)}"
    )


def _is_kernel(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and all(0 < size <= _WIDEST for size in shape)

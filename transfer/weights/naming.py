"""Namings of backbones: tables that translate parameter names in both directions. Needs no PyTorch.

A canonical name (as in torchvision) is ``module.leaf``. The module is in the stem (``conv1``; ``stem.0`` in a deep stem) or
in a block (``layer3.5.bn2``). A naming defines other names for the modules of the stem, the four stages and the modules
within a block. Block numbers and leaves (``weight``, ``running_mean``, ...) are the same in all namings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

Translator = Callable[[str], "str | None"]

COUNTER = "num_batches_tracked"
"""BatchNorm's count of training batches. No output depends on it, because BatchNorm has a fixed momentum here."""
LEAVES = f"weight|bias|running_mean|running_var|{COUNTER}"
STEM = ("conv1", "bn1")
DEEP_STEM = ("stem.0", "stem.1", "stem.3", "stem.4", "stem.6", "stem.7")
STAGES = ("layer1", "layer2", "layer3", "layer4")
BLOCK = tuple("conv1 bn1 conv2 bn2 conv3 bn3 downsample.0 downsample.1".split())


class Naming:
    """A one-to-one mapping between canonical names and those of a framework.

    ``to_framework`` and ``to_canonical`` return None for a name that is not part of a backbone.
    """

    def __init__(
        self,
        stem: dict[str, str],
        stages: dict[str, str],
        block: dict[str, str],
        bare: dict[str, str] | None = None,
        block_bare: dict[str, str] | None = None,
    ) -> None:
        tables = (stem, stages, block, bare or {}, block_bare or {})
        inverses = tuple({value: key for key, value in table.items()} for table in tables)
        if [len(t) for t in tables] != [len(t) for t in inverses]:
            raise ValueError("two modules of a framework have the same name")
        self.stem = stem
        self.stages = stages
        self.block = block
        self.bare = bare or {}
        """Names of tensors that are no leaf of a module; ``block_bare`` are those within a block."""
        self.block_bare = block_bare or {}
        self.counts = not any(name.endswith(".norm") for name in stem.values())
        """Whether its batch norms always count their batches; Detectron2's frozen ones do not."""
        self.averages = block.get("downsample.0") == "downsample.1"
        """Whether its shortcuts have a pooling layer in front (`BackboneSpec.avg_down`)."""
        self.to_framework = _translator(*tables)
        self.to_canonical = _translator(*inverses)

    def held_in(self, keys: Collection[str], prefix: str) -> bool:
        """Whether ``keys`` hold the stem of a backbone, under ``prefix``."""
        return any(f"{prefix}{name}.weight" in keys for name in self.stem.values())

    def under(self, prefix: str) -> Naming:
        """Return the same naming with ``prefix`` before each name of the framework."""
        tables = (self.stem, self.stages, self.bare)
        stem, stages, bare = ({key: prefix + name for key, name in table.items()} for table in tables)
        return Naming(stem, stages, self.block, bare, self.block_bare)


class OwnNames(Naming):
    """The naming of a `NamedSpec`: the network's own names, which stand after "net." in a canonical name.

    ``prefix`` is what stands before them in the framework.
    """

    def __init__(self, prefix: str) -> None:
        super().__init__({}, {}, {})
        self.prefix = prefix
        self.to_framework = lambda name: _moved(name, _OWN, prefix)
        self.to_canonical = lambda name: _moved(name, prefix, _OWN)

    def held_in(self, keys: Collection[str], prefix: str) -> bool:
        """Whether one of ``keys`` begins with ``prefix`` and what stands before the network's own names."""
        return any(key.startswith(prefix + self.prefix) for key in keys)

    def under(self, prefix: str) -> OwnNames:
        """Return the same naming with ``prefix`` before each name of the framework."""
        return OwnNames(prefix + self.prefix)


_OWN = "net."


def _moved(name: str, before: str, after: str) -> str | None:
    return after + name.removeprefix(before) if name.startswith(before) else None


def is_counter(name: str) -> bool:
    """Whether ``name`` is a BatchNorm counter."""
    return name.endswith(f".{COUNTER}")


def _translator(
    stem: dict[str, str],
    stages: dict[str, str],
    block: dict[str, str],
    bare: dict[str, str],
    block_bare: dict[str, str],
) -> Translator:
    in_stem, in_stage, in_block = ("|".join(map(re.escape, table)) for table in (stem, stages, block))
    pattern = re.compile(rf"(?:({in_stem})|({in_stage})\.(\d+)\.({in_block}))\.({LEAVES})")
    alone = re.compile(rf"({in_stage})\.(\d+)\.({'|'.join(map(re.escape, block_bare))})")

    def translate(name: str) -> str | None:
        if match := pattern.fullmatch(name):
            module, stage, number, inner, leaf = match.groups()
            return f"{stem[module]}.{leaf}" if module else f"{stages[stage]}.{number}.{block[inner]}.{leaf}"
        if block_bare and (match := alone.fullmatch(name)):
            return f"{stages[match[1]]}.{match[2]}.{block_bare[match[3]]}"
        return bare.get(name)

    return translate


def same(names: tuple[str, ...]) -> dict[str, str]:
    """Map each name to itself."""
    return {name: name for name in names}


def _detectron2(backbone: str, res5: str) -> Naming:
    """Return the naming of Detectron2's ResNet (`detectron2/modeling/backbone/resnet.py`): a norm is part of its convolution."""
    block = {f"conv{i}": f"conv{i}" for i in (1, 2, 3)} | {f"bn{i}": f"conv{i}.norm" for i in (1, 2, 3)}
    return Naming(
        stem={"conv1": f"{backbone}stem.conv1", "bn1": f"{backbone}stem.conv1.norm"},
        stages={f"layer{i}": f"{backbone}res{i + 1}" for i in (1, 2, 3)} | {"layer4": res5},
        block=block | {"downsample.0": "shortcut", "downsample.1": "shortcut.norm"},
    )


_AVERAGING = same(BLOCK) | {"downsample.0": "downsample.1", "downsample.1": "downsample.2"}
_TIMM_STEM = {name: f"conv1.{name[-1]}" for name in DEEP_STEM[:-1]} | {"stem.7": "bn1"}

NAMINGS: dict[str, Naming] = {
    "torchvision": Naming(same(STEM + DEEP_STEM), same(STAGES), same(BLOCK)),
    "detectron2": _detectron2("", "res5"),
    # res5 is the box head (`Res5ROIHeads`). The norm that protocols add after it (`res5.norm`) is not part of the backbone.
    "detectron2_c4": _detectron2("backbone.", "roi_heads.res5"),
    # as torchvision's with a pooling layer in front of the shortcut, so that the later numbers are larger by one
    "mmcv_averaging": Naming(same(DEEP_STEM), same(STAGES), _AVERAGING),
    # nn.Sequential of torchvision's children: conv1, bn1, relu, maxpool, layer1, ...
    "sequential": Naming({"conv1": "0", "bn1": "1"}, {f"layer{i}": str(i + 3) for i in (1, 2, 3, 4)}, same(BLOCK)),
    # `transformers/models/resnet/modeling_resnet.py`
    "huggingface": Naming(
        {"conv1": "embedder.embedder.convolution", "bn1": "embedder.embedder.normalization"},
        {f"layer{i}": f"encoder.stages.{i - 1}.layers" for i in (1, 2, 3, 4)},
        {f"conv{i}": f"layer.{i - 1}.convolution" for i in (1, 2, 3)}
        | {f"bn{i}": f"layer.{i - 1}.normalization" for i in (1, 2, 3)}
        | {"downsample.0": "shortcut.convolution", "downsample.1": "shortcut.normalization"},
    ),
    # `timm/models/resnet.py` with a deep stem, and (d) with an averaged shortcut
    "timm_c": Naming(_TIMM_STEM, same(STAGES), same(BLOCK)),
    "timm_d": Naming(_TIMM_STEM, same(STAGES), _AVERAGING),
    # networks by name: as `NamedNetwork` has them, and as the network itself
    "named": OwnNames(_OWN),
    "own": OwnNames(""),
    # a plain ViT as in timm, DINO, iBOT and MAE, without class token and last norm (as in ViTDet)
    "vit": Naming(
        same(("patch_embed.proj",)),
        same(("blocks",)),
        same(tuple("norm1 attn.qkv attn.proj norm2 mlp.fc1 mlp.fc2".split())),
        same(("pos_embed",)),
    ),
}
"""Families of names. Frameworks and checkpoints put a prefix before them."""

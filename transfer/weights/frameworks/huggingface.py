"""Networks of `transformers`: its ResNet (`transformers/models/resnet/modeling_resnet.py`), and its ViTs.

The latter are in `transfer.weights.transformers_vit`.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pretrain.models.named_spec import NamedSpec
from transfer.weights.frameworks.record import Framework, FrameworkModel, reader, stages, tensors_in
from transfer.weights.naming import NAMINGS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from transfer.weights.backbone import Backbone


def _vit() -> ModuleType:
    """Return `transfer.weights.transformers_vit`, which imports PyTorch."""
    from transfer.weights import transformers_vit

    return transformers_vit


def _settings(backbone: Backbone) -> dict[str, Any]:
    from pretrain.models.backbone_spec import BLOCKS

    spec, base = backbone.resnet, int(64 * backbone.resnet.width)
    expansion = 1 if spec.basic else 4
    return {
        "embedding_size": base,
        "hidden_sizes": [expansion * base * 2**i for i in range(4)],
        "depths": list(BLOCKS[spec.depth]),
        "layer_type": "basic" if spec.basic else "bottleneck",
        "downsample_in_bottleneck": spec.stride_in_1x1,
    }


def _lacks(backbone: Backbone) -> str | None:
    if isinstance(backbone.spec, NamedSpec):
        return _vit().lacks(backbone)
    spec = backbone.resnet
    grouped = (spec.groups, spec.width_per_group) != (1, 64)
    return f"{spec.title} (its bottlenecks have no groups and no other width)" if grouped else None


def _build(backbone: Backbone) -> FrameworkModel:
    if isinstance(backbone.spec, NamedSpec):
        return _vit().build(backbone)
    from transformers import ResNetConfig, ResNetModel

    model = ResNetModel(ResNetConfig(**_settings(backbone)))
    return FrameworkModel(model, stages("embedder", "encoder.stages.", ("0", "1", "2", "3")), model)


def _load(model: nn.Module, path: Path) -> None:
    if isinstance(model, _vit().AsWritten):
        return model.load(path)
    model.load_state_dict(tensors_in(path))


def _translate(backbone: Backbone) -> dict[str, Tensor]:
    found: dict[str, Tensor] = _vit().tensors_of(backbone)
    return found


def _config(backbone: Backbone) -> dict[str, Any]:
    return _vit().config_of(backbone) if isinstance(backbone.spec, NamedSpec) else {}


def _usage(backbone: Backbone, path: Path) -> str:
    if isinstance(backbone.spec, NamedSpec):
        return _vit().usage(backbone, path)
    given = ", ".join(f"{key}={value!r}" for key, value in _settings(backbone).items())
    lines = (f"config = transformers.ResNetConfig({given})", "model = transformers.ResNetModel(config)")
    return "\n".join([*lines, f"model.load_state_dict({reader(path)})"])


RECORDS = (
    Framework(
        name="huggingface",
        title="network of transformers",
        words=("huggingface",),
        variants={"7x7": NAMINGS["huggingface"], "named": NAMINGS["own"]},
        owns=re.compile(r"(?!classifier\.)"),
        build=_build,
        load=_load,
        usage=_usage,
        reads=("huggingface",),
        families=("huggingface",),
        suffixes=(".safetensors", ".pth", ".bin"),
        pixels=False,
        lacks=_lacks,
        translate=_translate,
        config=_config,
    ),
)

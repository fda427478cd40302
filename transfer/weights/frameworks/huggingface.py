"""The ResNet of `transformers` (`transformers/models/resnet/modeling_resnet.py`)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transfer.weights.frameworks.record import Framework, FrameworkModel, reader, stages, tensors_in
from transfer.weights.naming import NAMINGS

if TYPE_CHECKING:
    from torch import nn

    from transfer.weights.backbone import Backbone


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
    spec = backbone.resnet
    grouped = (spec.groups, spec.width_per_group) != (1, 64)
    return f"{spec.title} (its bottlenecks have no groups and no other width)" if grouped else None


def _build(backbone: Backbone) -> FrameworkModel:
    from transformers import ResNetConfig, ResNetModel

    model = ResNetModel(ResNetConfig(**_settings(backbone)))
    return FrameworkModel(model, stages("embedder", "encoder.stages.", ("0", "1", "2", "3")), model)


def _load(model: nn.Module, path: Path) -> None:
    model.load_state_dict(tensors_in(path))


def _usage(backbone: Backbone, path: Path) -> str:
    given = ", ".join(f"{key}={value!r}" for key, value in _settings(backbone).items())
    lines = (f"config = transformers.ResNetConfig({given})", "model = transformers.ResNetModel(config)")
    return "\n".join([*lines, f"model.load_state_dict({reader(path)})"])


RECORDS = (
    Framework(
        name="huggingface",
        title="Hugging Face ResNet",
        words=("huggingface",),
        variants={"7x7": NAMINGS["huggingface"]},
        owns=re.compile(r"(?!classifier\.)"),
        build=_build,
        load=_load,
        usage=_usage,
        reads=("huggingface",),
        families=("huggingface",),
        suffixes=(".safetensors", ".pth", ".bin"),
        pixels=False,
        lacks=_lacks,
    ),
)

"""Each network in `examples/backbones`: pre-trained, read with permission, evaluated frozen, and put under a segmentor's head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pixbench.errors import UserError
from pixbench.paths import CONFIGS
from pretrain.__main__ import main
from pretrain.models.named_spec import NamedSpec
from transfer.frozen.network import FrozenNetwork
from transfer.job import TransferJob
from transfer.protocols import find_protocol
from transfer.segmentation.config import resolve
from transfer.weights import load, load_into

SHAPE = {"head_dim": 8, "depths": [1, 1, 2, 1]}
NETWORKS: dict[str, dict[str, Any]] = {
    "nat:nat_mini": {"width": 16, **SHAPE},
    "uniformer:uniformer_small": {"widths": [8, 16, 24, 32], **SHAPE},
    "shunted:shunted_small": {"width": 16, **SHAPE},
}


@pytest.mark.frameworks
@pytest.mark.parametrize("name", NETWORKS)
def test_from_images_to_a_segmentor(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mmseg.models  # noqa: F401  registers the models
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    import transfer.segmentation.named_backbone  # noqa: F401  registers the backbone

    images, run, options = tmp_path / "images", tmp_path / "run", NETWORKS[name]
    images.mkdir()
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.png")
    spec = NamedSpec(f"examples.backbones.{name}", options)
    files = [word for file in ("pixpro_100ep", "mini") for word in ("--config", str(CONFIGS / f"pretrain/{file}.yaml"))]
    given = [
        "--data.root",
        str(images),
        "--out",
        str(run),
        "--epochs",
        "1",
        "--batch_size",
        "4",
        "--data.workers",
        "0",
        "--data.layout",
        "flat",
    ]
    named = ["--backbone.name", spec.name, "--backbone.options", json.dumps(options), "--data.image_size", "64"]
    assert main([*files, *given, *named]) == 0

    with pytest.raises(UserError, match="PIXBENCH_NETWORKS"):
        load(run / "checkpoint.pth")
    monkeypatch.setenv("PIXBENCH_NETWORKS", spec.family)
    backbone = load(run / "checkpoint.pth")
    assert backbone.spec == spec
    assert FrozenNetwork(backbone)(torch.zeros(1, 3, 64, 64)).shape[1:3] == (2, 2)

    job = TransferJob(find_protocol("ade20k_upernet"), data_root=tmp_path, out=tmp_path / "segmentor", scale="mini")
    config = resolve(job, spec)
    init_default_scope(config.default_scope)
    model: Any = revert_sync_batchnorm(MODELS.build(config.model))
    assert load_into(model, backbone, "mmseg").converted == len(backbone.state)

"""The Cityscapes protocol's config: equal to the public definition, and overridden without surprises."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pretrain.errors import UserError
from pretrain.models.resnet import TrunkSpec
from transfer.job import TransferJob
from transfer.protocols import find_protocol
from transfer.segmentation.config import resolve

pytestmark = pytest.mark.frameworks
PROTOCOL = find_protocol("cityscapes_fcn16s")
PUBLIC = yaml.safe_load(Path(__file__).with_name("public_segmentation.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def job(tmp_path: Path) -> TransferJob:
    return TransferJob(PROTOCOL, tmp_path / "data", tmp_path / "run", scale="mini")


def look_up(node: Any, key: str) -> Any:
    """The value at a dotted key; ``*`` gathers over a list, what is not there is None. Tuples come as lists."""
    for depth, part in enumerate(parts := key.split(".")):
        if part == "*":
            return [look_up(item, ".".join(parts[depth + 1 :])) for item in node]
        node = dict(enumerate(node)).get(int(part)) if isinstance(node, list) else node[part]
    return _listed(node)


def _listed(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _listed(value) for key, value in node.items()}
    return [_listed(item) for item in node] if isinstance(node, list | tuple) else node


def leaves(node: Any, prefix: str = "") -> set[str]:
    """Dotted keys of everything in nested dicts and lists of dicts."""
    if isinstance(node, dict) and node:
        items: Any = node.items()
    elif isinstance(node, list) and node and isinstance(node[0], dict):
        items = enumerate(node)
    else:
        return {prefix}
    return {leaf for name, value in items for leaf in leaves(value, f"{prefix}.{name}" if prefix else str(name))}


def covers(key: str, leaf: str) -> bool:
    return all(a in (b, "*") for a, b in zip(key.split("."), leaf.split("."), strict=False))


def test_values_are_those_of_the_public_definition(job: TransferJob) -> None:
    config = resolve(replace(job, scale="paper")).to_dict()
    public = {name: value for file in PUBLIC["files"].values() for name, value in file["values"].items()}
    differences = PUBLIC["differences"]
    places = {name: PUBLIC["names"].get(name, name) for name in public}
    found = {name: look_up(config, place) for name, place in places.items()}
    assert found == {name: differences[name]["ours"] if name in differences else public[name] for name in public}
    assert all(difference["ours"] != public[name] for name, difference in differences.items())
    assert set(PUBLIC["names"]) <= set(public)
    known = (*places.values(), *PUBLIC["plumbing"])
    assert [leaf for leaf in leaves(config) if not any(covers(key, leaf) for key in known)] == []


def test_trunk_has_the_plain_stem_synchronised_norm_and_output_stride_16(job: TransferJob) -> None:
    import mmseg.models  # noqa: F401
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    init_default_scope("mmseg")
    model = MODELS.build(resolve(job).model)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    assert len(norms) == 53 + 2
    assert all(isinstance(module, torch.nn.SyncBatchNorm) for module in norms)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.backbone.conv1.kernel_size == (7, 7)
    assert [block.conv2.dilation for block in model.backbone.layer4] == [(1, 1), (2, 2), (2, 2)]
    from mmengine.model import revert_sync_batchnorm

    maps = revert_sync_batchnorm(model).eval().backbone(torch.zeros(1, 3, 129, 129))
    assert [tuple(stage.shape[1:]) for stage in maps] == [(64, 33, 33), (128, 17, 17), (256, 9, 9), (512, 9, 9)]


def test_mini_overrides_exist_and_keep_their_kinds(job: TransferJob) -> None:
    config = resolve(job)
    assert config.model.backbone.stem_channels == 16
    assert config.train_dataloader.dataset.pipeline[2].scale == (257, 129)
    assert config.model.test_cfg.stride == (65, 65)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.backbone.stem_chanels", 16, "did you mean model.backbone.stem_channels"),
        ("train_cfg.max_iter", 4, "did you mean train_cfg.max_iters"),
        ("train_dataloader.dataset.pipeline.9.scale", [1, 1], "did you mean train_dataloader.dataset.pipeline.2.scale"),
        ("crop_size", [129, 129], "is not in the protocol's config"),
        ("model.decode_head", {"channels": 3}, "set them one by one, as model.decode_head.type"),
        ("train_cfg.max_iters", "many", "of another kind"),
        ("train_dataloader.persistent_workers", 0, "of another kind"),
        ("train_dataloader.dataset.data_root", "elsewhere", "set by --data-root"),
        ("randomness.seed", 3, "set by --seed"),
    ],
)
def test_wrong_overrides_are_named(job: TransferJob, key: str, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve(replace(job, overrides={key: value}))


def test_what_the_config_leaves_unset_takes_any_value(job: TransferJob) -> None:
    config = resolve(replace(job, overrides={"optim_wrapper.clip_grad": {"max_norm": 5}, "train_cfg.max_iters": 7}))
    assert config.optim_wrapper.clip_grad == {"max_norm": 5}
    assert config.train_cfg.max_iters == 7


def test_width_follows_the_trunk_but_not_at_paper_scale(job: TransferJob) -> None:
    config = resolve(job, TrunkSpec(101, 0.5))
    assert (config.model.backbone.depth, config.model.backbone.base_channels) == (101, 32)
    assert config.model.decode_head.in_channels == 1024
    with pytest.raises(UserError, match=r"--set model.backbone.stem_channels=16 .*in_channels=512"):
        resolve(replace(job, scale="paper"), TrunkSpec(50, 0.25))


def test_importing_the_runner_is_cheap() -> None:
    code = (
        "import sys, transfer.segmentation.run; print([m for m in ('torch', 'mmengine', 'mmseg') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"

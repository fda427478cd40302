"""From a protocol's config file and a job to the resolved MMSegmentation config."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

from pixbench.errors import UserError, did_you_mean
from pretrain.models.backbone_spec import BackboneSpec
from transfer.batch_scaling import KEYS
from transfer.protocols import leaves

if TYPE_CHECKING:
    from mmengine.config import Config

    from transfer.job import TransferJob
    from transfer.weights.file_format import Pixels
    from transfer.weights.vit_spec import VitSpec

LOG = "log.txt"
"""In the folder of the run: all that the framework says."""
BY_OPTION = {
    r"randomness\.seed": "--seed",
    r".*\.data_root": "--data-root",
    r"optim_wrapper\.accumulative_counts": "--accumulate",
    r"model\.backbone\.frozen_stages": "--freeze",
}
KINDS: dict[tuple[Literal["7x7", "deep"], bool], str] = {
    ("7x7", False): "ResNet",
    ("deep", False): "ResNetV1c",
    ("deep", True): "ResNetV1d",
}
"""Stem and whether shortcuts average -> MMSegmentation's class of backbone."""


def resolve(job: TransferJob, spec: BackboneSpec | VitSpec | None = None) -> Config:
    """The protocol's config with the job's overrides and the backbone of ``spec`` (None: the one that the config asks for).

    Seed and places are not part of it: all runs of one protocol resolve to the same.

    Raises `UserError` for a key that does not exist, a value of another kind, or a backbone that does not fit the protocol.
    """
    from mmengine.config import Config

    # Not formatted by yapf: mmengine prints the config at every checkpoint, and that takes longer than the checkpoint.
    path = job.protocol.config
    config = Config(Config.fromfile(path).to_dict(), filename=path, format_python_code=False)
    for key, value in job.all_overrides.items():
        if option := next((option for taken, option in BY_OPTION.items() if re.fullmatch(taken, key)), None):
            raise UserError(f"{key} cannot be overridden; it is set by {option}")
        override(config, key, value)
    spec = spec or backbone_spec(config)
    if not isinstance(spec, BackboneSpec):
        raise UserError(f"{job.weights} holds a vision transformer, but {job.protocol.name} is defined for a ResNet")
    fit_backbone(config, job, spec)
    if job.freeze == "backbone":  # by MMSegmentation itself: no gradients, BatchNorm in evaluation mode
        config.model.backbone.frozen_stages = config.model.backbone.num_stages
    if job.accumulate > 1:  # mmengine counts each part of a batch as an iteration
        config.optim_wrapper.accumulative_counts = job.accumulate
        for key, value in leaves(config.to_dict()):
            if value and any(fnmatchcase(key, pattern) for pattern in KEYS["mmseg"]["count"]):
                parts = [job.accumulate * n for n in value] if isinstance(value, list) else job.accumulate * value
                override(config, key, parts)
    return config


def fit_backbone(config: Config, job: TransferJob, spec: BackboneSpec) -> None:
    """Set stem, depth and width from ``spec``. At paper scale they are the protocol's, and another backbone is an error."""
    base, model = int(64 * spec.width), config.model
    if (spec.stem, spec.avg_down) not in KINDS:
        raise UserError(
            f"{job.weights} holds a ResNet with a {spec.stem} stem and averaging shortcuts; MMSegmentation has none"
        )
    wanted: dict[str, Any] = {
        "model.backbone.type": KINDS[spec.stem, spec.avg_down],
        "model.backbone.style": "caffe" if spec.stride_in_1x1 else "pytorch",
        "model.backbone.depth": spec.depth,
        "model.backbone.stem_channels": base,
        "model.backbone.base_channels": base,
    }
    for head in ("decode_head", "auxiliary_head"):
        if model[head]:
            stage = model[head].in_index  # C2 is 0
            channels = [4 * base << i for i in stage] if isinstance(stage, list) else 4 * base << stage
            wanted[f"model.{head}.in_channels"] = channels
    differ = {key: value for key, value in wanted.items() if look_up(config, key) != value}
    if differ and job.scale == "paper":
        raise UserError(
            f"{job.weights or 'the random start'} is a ResNet-{spec.depth} of width {spec.width:g} with a {spec.stem} stem, but "
            f"{job.protocol.name} is defined for another backbone; use --scale mini, or deviate knowingly with {_settings(differ)}"
        )
    for key, value in differ.items():
        override(config, key, value)


def check_pixels(config: Config, job: TransferJob, pixels: Pixels) -> None:
    """Raise `UserError` with the settings to give if images are not prepared as the backbone takes them."""
    wanted = {"bgr_to_rgb": pixels.order == "RGB", "mean": list(pixels.mean), "std": list(pixels.std)}
    given = config.model.data_preprocessor
    differ = {f"model.data_preprocessor.{key}": value for key, value in wanted.items() if given[key] != value}
    if differ:
        raise UserError(
            f"{job.weights} takes {pixels}, but {job.protocol.name} prepares images otherwise; give {_settings(differ)}"
        )


def synchronise_on_cpus(config: Config) -> tuple[str, ...]:
    """PyTorch's SyncBN and mmengine's wrapper want GPUs: have Detectron2's SyncBN and none, and say so."""
    for key in [key for key, value in leaves(config.model.to_dict()) if value == "SyncBN"]:
        override(config.model, key, "naiveSyncBN")
    config.model_wrapper_cfg = {"type": "MMDistributedDataParallel", "device_ids": None, "broadcast_buffers": False}
    return ("naiveSyncBN instead of SyncBN, as several CPU processes need",)


def backbone_spec(config: Config) -> BackboneSpec:
    """The backbone that ``config`` asks for."""
    backbone = config.model.backbone
    if backbone.type not in KINDS.values():
        raise UserError(
            f"model.backbone.type {backbone.type} is no backbone of ours; known: {', '.join(KINDS.values())}"
        )
    stem, avg_down = next(key for key, kind in KINDS.items() if kind == backbone.type)
    width, caffe = backbone.base_channels / 64, backbone.style == "caffe"
    return BackboneSpec(backbone.depth, width, stem=stem, stride_in_1x1=caffe, avg_down=avg_down)


def data_sets(loader: Any) -> list[Any]:
    """The data sets that a loader's config reads, one or (for training on several) more."""
    return list(loader.dataset.get("datasets", [loader.dataset]))


def override(config: Config, key: str, value: Any) -> None:
    """Set the dotted ``key`` (an element of a list by its number) that is already in ``config``.

    mmengine's own `merge_from_dict` makes a new key of a misspelt one, which then does nothing.
    """
    above, _, last = key.rpartition(".")
    try:
        node = look_up(config, above)
        place = _child_key(node, last)
        old = node[place]
    except (KeyError, IndexError, TypeError, ValueError):
        known = [name for name, _ in leaves(config.to_dict())]
        raise UserError(f"override {key!r} is not in the protocol's config{did_you_mean(key, known)}") from None
    if isinstance(old, dict):
        raise UserError(f"override {key} is a group of settings; set them one by one, as {key}.{next(iter(old), '…')}")
    if not _fits(old, value):
        raise UserError(
            f"override {key} = {value!r} is of another kind than the protocol's {old!r}; give one that fits"
        )
    node[place] = tuple(value) if isinstance(old, tuple) else value


def config_as_dict(config: Config) -> dict[str, Any]:
    """``config`` as JSON knows it (tuples become lists), before `run` fills in places and seed."""
    return json.loads(json.dumps(config.to_dict()))


def look_up(node: Any, key: str) -> Any:
    """The value at the dotted ``key``."""
    for name in key.split(".") if key else ():
        node = node[_child_key(node, name)]
    return node


def _settings(values: dict[str, Any]) -> str:
    return " ".join(f"--set {key}={json.dumps(value).replace(' ', '')}" for key, value in values.items())


def _child_key(node: Any, name: str) -> str | int:
    return int(name) if isinstance(node, list) else name


def _fits(old: Any, value: Any) -> bool:
    if isinstance(old, bool) or isinstance(value, bool):
        return old is None or isinstance(old, bool) is isinstance(value, bool)
    kinds: tuple[tuple[Any, Any], ...] = (
        (int, int),
        (float, int | float),
        (list | tuple, list | tuple),
        (str, str | None),
    )
    return all(isinstance(value, accepted) for kind, accepted in kinds if isinstance(old, kind))

"""Build the resolved MMSegmentation config from the config file of a protocol and a job."""

from __future__ import annotations

import json
import math
import re
from copy import deepcopy
from fnmatch import fnmatchcase
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pixbench.errors import UserError, an, did_you_mean
from pretrain.models.backbone_spec import BASIC_BLOCKS, BackboneSpec, width_per_group
from pretrain.models.named_spec import NamedSpec
from transfer.batch_scaling import KEYS
from transfer.protocols import leaves
from transfer.segmentation import named_config
from transfer.segmentation.classes import check_held, held, leave_out_missing, parts_with, use_classes
from transfer.weights.spec import Spec
from transfer.weights.vit_spec import VitSpec

if TYPE_CHECKING:
    from mmengine.config import Config

    from transfer.job import TransferJob
    from transfer.weights.file_format import Pixels

BY_OPTION = {
    r"randomness\.seed": "--seed",
    r".*\.(data_root|ann_file|data_prefix\.\w+|img_suffix|seg_map_suffix)": "--data-root",
    r"optim_wrapper\.accumulative_counts": "--accumulate",
    r"model\.backbone\.frozen(_stages)?": "--freeze",
}
"""Patterns of config keys that cannot be overridden -> the command-line option that sets them."""
ABOVE_0 = re.compile(
    r"train_cfg\.(max_iters|val_interval)|default_hooks\.checkpoint\.interval|auto_scale_lr\.base_batch_size|"
    r"\w+_dataloader\.batch_size|(model|\w+_dataloader)\..*\b(size|crop_size|num_queries)"
)
"""Keys of settings that must be a number above 0, or numbers above 0."""
BACKBONE_TYPES: dict[tuple[Literal["7x7", "deep", "3x3"], bool], str] = {
    ("7x7", False): "ResNet",
    ("deep", False): "ResNetV1c",
    ("deep", True): "ResNetV1d",
}
"""(stem, whether the shortcuts average) -> class name of the backbone in MMSegmentation."""
WITH_GROUPS = "ResNeXt"
"""Class name of the backbones with groups; their stem and their shortcuts are options, as in `GROUP_OPTIONS`."""
LINEAR_HEAD = "LinearHead"
"""Class name of the head whose number of channels is that of its input."""
GROUP_OPTIONS = {"groups": 1, "base_width": 4, "deep_stem": False, "avg_down": False}
"""Options that only the class `WITH_GROUPS` takes, with MMSegmentation's defaults."""


def resolve(job: TransferJob, spec: Spec | None = None) -> Config:
    """Return the protocol's config with the job's classes and overrides and the backbone of ``spec`` (None: the config's).

    Seed and paths are not set, so that all runs of one protocol resolve to the same config.

    Raises:
        UserError: a key does not exist, a value has another type, or backbone or classes do not fit the protocol.
    """
    from mmengine.config import Config

    # No formatting by yapf: mmengine prints the config at every checkpoint, and formatting it takes longer than saving.
    path = job.protocol.config
    config = Config(deepcopy(_read(path)), filename=path, format_python_code=False)
    if job.classes:
        use_classes(config, job.classes)
    before = held(config)
    for key, value in job.all_overrides.items():
        if option := next((option for taken, option in BY_OPTION.items() if re.fullmatch(taken, key)), None):
            raise UserError(f"{key} cannot be overridden; it is set by {option}")
        override(config, key, value)
        numbers = value if isinstance(value, list | tuple) else [value]
        if ABOVE_0.fullmatch(key) and any(isinstance(n, int | float) and not n > 0 for n in numbers):
            raise UserError(f"{key} is {value}, but must be above 0; correct it, or leave it out")
    check_held(config, before, job.protocol.name, job.classes)
    check_packages(config, job.protocol.name)
    if job.classes:
        leave_out_missing(config, job.data_root)
    spec = spec or backbone_spec(config)
    if isinstance(spec, VitSpec):
        raise UserError(
            f"{job.weights or job.like} holds {an(spec.title)}, but {job.protocol.name} is for a ResNet or a network by "
            "name; name it with `pixbench convert --from timm:NAME --to timm`, or choose another protocol"
        )
    if isinstance(spec, NamedSpec):
        put_named(config, spec, job)
    elif config.model.backbone.type == named_config.TYPE:
        raise UserError(
            f"{job.weights or job.like} holds {an(spec.title)}, but {job.protocol.name} is for networks by name, such as "
            f"{config.model.backbone.name}; choose another protocol"
        )
    else:
        if job.protocol.kind == "frozen":
            take_stride(config, job, spec)
        fit_backbone(config, job, spec)
        if job.freeze == "backbone":  # MMSegmentation: no gradients, BatchNorm in evaluation mode
            config.model.backbone.frozen_stages = config.model.backbone.num_stages
    if job.accumulate > 1:  # mmengine counts each part of a batch as an iteration
        config.optim_wrapper.accumulative_counts = job.accumulate
        for key, value in leaves(config.to_dict()):
            if value and any(fnmatchcase(key, pattern) for pattern in KEYS["mmseg"]["count"]):
                parts = [job.accumulate * n for n in value] if isinstance(value, list) else job.accumulate * value
                override(config, key, parts)
    return config


@cache
def _read(path: Path) -> dict[str, Any]:
    from mmengine.config import Config

    return dict(Config.fromfile(path).to_dict())


def check_packages(config: Config, protocol: str) -> None:
    """Raise `UserError` if the model of ``config`` has parts of MMDetection and it is not installed."""
    parts = (value for _, value in leaves(config.model.to_dict()) if isinstance(value, str))
    if any(part.startswith("mmdet.") for part in parts) and find_spec("mmdet") is None:
        raise UserError(
            f"{protocol} needs MMDetection, which is not installed; run scripts/install.sh, or pip install --no-deps "
            "onedl-mmdetection terminaltables"
        )


def put_named(config: Config, spec: NamedSpec, job: TransferJob) -> None:
    """Put the backbone ``spec`` into the model, and its channels into the heads.

    Heads that take several maps get those of a ViT through the neck of the config, or else MMSegmentation's `Feature2Pyramid`.

    Raises:
        UserError: The network does not fit the heads, or does not take images of the protocol's sizes.
    """
    from pretrain.models.families import is_plain

    model, channels = config.model, [*named_config.outputs(spec).values()]
    frozen = job.freeze == "backbone" or job.protocol.kind == "frozen"
    if "dcn" in model.backbone:
        raise UserError(
            f"{job.weights or job.like} holds {an(spec.title)}, but {job.protocol.name} has deformable convolutions, which are "
            "for ResNets; choose another protocol"
        )
    named_config.check_sizes(spec, tuple(model.data_preprocessor.size), model.test_cfg.mode == "whole")
    if config.optim_wrapper.get("constructor") == named_config.BY_STAGE:
        named_config.check_stages(spec)
    spec = spec.with_drop_path(model.backbone.get("options", {}).get("drop_path_rate"))
    model.backbone = named_config.as_options(spec, frozen)
    heads = [head for _, head in parts_with("in_index", model)]
    if is_plain(spec) and any(isinstance(head.in_index, list) for head in heads):
        model.neck = named_config.neck(spec, model.get("neck"))
    else:
        model.pop("neck", None)
    for head in heads:
        several = isinstance(head.in_index, list)
        head.in_channels = [channels[i] for i in head.in_index] if several else channels[head.in_index]
        if keeps_channels(head):
            head.channels = sum(head.in_channels) if several else head.in_channels


def keeps_channels(head: Any) -> bool:
    """Whether a head has as many channels as its input: it is linear."""
    return bool(head.type == LINEAR_HEAD or head.get("num_convs") == 0)


def take_stride(config: Config, job: TransferJob, spec: BackboneSpec) -> None:
    """Set strides and dilations of the stages so that the last map is that of ``spec``; the user's own settings win.

    Raises:
        UserError: MMSegmentation would dilate a backbone of basic blocks differently.
    """
    if spec.basic and spec.output_stride < spec.natural_stride:
        raise UserError(
            f"{job.weights or job.like} holds {an(spec.title)} of output stride {spec.output_stride}, but MMSegmentation dilates "
            "only one of the two convolutions of a basic block; its map would be another one"
        )
    strides, dilations = [1], [1]
    for stage in range(3):
        dilates = 4 << stage >= spec.output_stride
        strides.append(1 if dilates else 2)
        dilations.append(dilations[-1] * (2 if dilates else 1))
    for name, value in (("strides", strides), ("dilations", dilations)):
        if (key := f"model.backbone.{name}") not in job.overrides:
            override(config, key, value)


def stride_of(config: Config) -> int:
    """Return the side in pixels of a cell of the last map of the backbone of ``config``."""
    if config.model.backbone.type == named_config.TYPE:
        return named_config.stride(named_config.as_spec(config.model.backbone))
    return 4 * math.prod(config.model.backbone.strides)


def fit_backbone(config: Config, job: TransferJob, spec: BackboneSpec) -> None:
    """Set the backbone and the channels of the heads from ``spec``; raise UserError if that changes them at paper scale."""
    what, model = f"{job.weights or job.like or 'model.backbone'} holds {an(spec.title)}", config.model
    wanted = {f"model.backbone.{name}": value for name, value in _backbone_options(spec, what).items()}
    if spec.basic and "dcn" in model.backbone:
        raise UserError(
            f"{what}, but {job.protocol.name} has deformable convolutions, which MMSegmentation has in bottlenecks only; choose "
            "another protocol"
        )
    for place, head in parts_with("in_index", model):
        stage, c2 = head.in_index, spec.channels // 8  # stage 0 is C2
        channels = [c2 << i for i in stage] if isinstance(stage, list) else c2 << stage
        wanted[f"{place}.in_channels"] = channels
        if keeps_channels(head):
            wanted[f"{place}.channels"] = sum(channels) if isinstance(channels, list) else channels
    now = {f"model.backbone.{name}": value for name, value in GROUP_OPTIONS.items()} | dict(leaves(config.to_dict()))
    differ = {key: value for key, value in wanted.items() if now[key] != value}
    if differ and job.scale == "paper":
        raise UserError(
            f"{what}, but {job.protocol.name} is defined for another backbone; use --scale mini, or deviate from the protocol "
            f"with {_settings(differ)}"
        )
    for key, value in differ.items():
        override(config, key, value)


def _backbone_options(spec: BackboneSpec, what: str) -> dict[str, Any]:
    """Return the options of MMSegmentation's backbone for ``spec``; the type comes first, because others depend on it.

    Raises:
        UserError: MMSegmentation has no such backbone.
    """
    if (spec.stem, spec.avg_down) not in BACKBONE_TYPES:
        raise UserError(
            f"{what}, but MMSegmentation has no ResNet of variant {spec.variant}; choose another checkpoint"
        )
    if spec.groups == 1 and spec.width_per_group != 64:
        raise UserError(
            f"{what}, but MMSegmentation has no wide bottlenecks (ResNeXt ignores base_width if there is one group); choose "
            "another checkpoint"
        )
    base, with_groups = int(64 * spec.width), spec.groups > 1
    options = {
        "type": WITH_GROUPS if with_groups else BACKBONE_TYPES[spec.stem, spec.avg_down],
        "style": "caffe" if spec.stride_in_1x1 else "pytorch",
        "depth": spec.depth,
        "stem_channels": base,
        "base_channels": base,
    }
    if with_groups:
        options |= {"groups": spec.groups, "base_width": spec.group_channels}
        options |= {"deep_stem": spec.stem == "deep", "avg_down": spec.avg_down}
    return options


def check_pixels(config: Config, job: TransferJob, pixels: Pixels) -> None:
    """Raise `UserError` with the settings to add if the config does not prepare images as the backbone expects."""
    wanted = {"bgr_to_rgb": pixels.order == "RGB", "mean": list(pixels.mean), "std": list(pixels.std)}
    given = config.model.data_preprocessor
    differ = {f"model.data_preprocessor.{key}": value for key, value in wanted.items() if given[key] != value}
    if differ:
        raise UserError(
            f"{job.weights or job.like} expects {pixels}, but {job.protocol.name} prepares images differently; deviate from the "
            f"protocol with {_settings(differ)}"
        )


def synchronise_on_cpus(config: Config) -> tuple[str, ...]:
    """Use Detectron2's SyncBN and a wrapper without device ids, because PyTorch's and mmengine's need GPUs.

    Returns a sentence that says so.
    """
    for key in [key for key, value in leaves(config.model.to_dict()) if value == "SyncBN"]:
        override(config.model, key, "naiveSyncBN")
    config.model_wrapper_cfg = {"type": "MMDistributedDataParallel", "device_ids": None, "broadcast_buffers": False}
    return ("naiveSyncBN instead of SyncBN, as several CPU processes need",)


def train_on_cpus(config: Config) -> tuple[str, ...]:
    """Train without half precision, for which mmengine needs a GPU. Returns a sentence that says so, if there was any."""
    if config.optim_wrapper.type != "AmpOptimWrapper":
        return ()
    config.optim_wrapper.type = "OptimWrapper"
    config.optim_wrapper.pop("loss_scale")
    return ("float32 instead of half precision, as on every CPU",)


def backbone_spec(config: Config) -> BackboneSpec | NamedSpec:
    """Return the spec of the backbone that ``config`` builds.

    Raises:
        UserError: it is none that this project has.
    """
    if config.model.backbone.type == named_config.TYPE:
        return named_config.as_spec(config.model.backbone)
    backbone = {**GROUP_OPTIONS, **config.model.backbone}
    types, base = {name: key for key, name in BACKBONE_TYPES.items()}, backbone["base_channels"]
    types[WITH_GROUPS] = "deep" if backbone["deep_stem"] else "7x7", backbone["avg_down"]
    if backbone["type"] not in types:
        raise UserError(f"model.backbone.type {backbone['type']} is not supported; choose one of {', '.join(types)}")
    stem, avg_down = types[backbone["type"]]
    groups = backbone["groups"] if backbone["type"] == WITH_GROUPS else 1
    try:
        return BackboneSpec(
            backbone["depth"],
            base / 64,
            stem=stem,
            stride_in_1x1=backbone["style"] == "caffe" and backbone["depth"] not in BASIC_BLOCKS,
            avg_down=avg_down,
            groups=groups,
            width_per_group=64 if groups == 1 else width_per_group(backbone["base_width"], base),
        )
    except ValueError as error:
        raise UserError(f"model.backbone: {error}") from error


def override(config: Config, key: str, value: Any) -> None:
    """Set the dotted ``key``, which must exist in ``config``; elements of lists are named by number.

    mmengine's own `merge_from_dict` would add a misspelt key, which then has no effect.
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
        raise UserError(
            f"override {key} is a group of settings; set them one by one, for example {key}.{next(iter(old), '…')}"
        )
    if not _fits(old, value):
        raise UserError(
            f"override {key} = {value!r} has another type than the protocol's {old!r}; give a value of that type"
        )
    node[place] = tuple(value) if isinstance(old, tuple) else value
    if key == "model.backbone.type":
        for name, default in GROUP_OPTIONS.items():
            if value == WITH_GROUPS:
                node.setdefault(name, default)
            else:
                node.pop(name, None)


def config_as_dict(config: Config) -> dict[str, Any]:
    """Return ``config`` as JSON data (tuples become lists); call it before `run` sets paths and seed."""
    return json.loads(json.dumps(config.to_dict()))


def look_up(node: Any, key: str) -> Any:
    """Return the value at the dotted ``key``."""
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
    rules: tuple[tuple[Any, Any], ...] = (
        (int, int),
        (float, int | float),
        (list | tuple, list | tuple),
        (str, str | None),
    )
    return all(isinstance(value, accepted) for type_, accepted in rules if isinstance(old, type_))

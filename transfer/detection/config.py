"""Build Detectron2's config from the YAML file of a protocol and the overrides of a job."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import yaml
from detectron2.config import CfgNode, get_cfg

from pixbench.errors import UserError, did_you_mean
from pretrain.models.backbone_spec import BASIC_BLOCKS, BackboneSpec, width_per_group
from pretrain.models.named_spec import NamedSpec
from transfer.detection import adamw, vitdet
from transfer.detection.data_settings import fit_classes, number_of_classes
from transfer.detection.named_backbone import BUILDER, named_options, named_spec
from transfer.detection.named_vitdet import of_plain, plain_options
from transfer.job import TransferJob
from transfer.protocols import Protocol, leaves
from transfer.weights.backbone import Backbone
from transfer.weights.file_format import Pixels
from transfer.weights.larger_patches import PATCH, RESIZING, resized
from transfer.weights.spec import Spec
from transfer.weights.vit_spec import VitSpec

_BY_OPTION = {"OUTPUT_DIR": "--out", "SEED": "--seed", "MODEL.WEIGHTS": "--weights"}
_FIXED = {
    "DATASETS.TRAIN": "the protocol says what it trains on; use --data-root and --classes for data of your own",
    "DATASETS.TEST": "the protocol says what it is tested on; use --data-root and --classes for data of your own",
    **dict.fromkeys(("MODEL.MASK_ON", "MODEL.KEYPOINT_ON", "MODEL.META_ARCHITECTURE"), "choose another protocol"),
    **dict.fromkeys(("MODEL.LOAD_PROPOSALS", "TEST.AUG.ENABLED", "TEST.EXPECTED_RESULTS"), "PixBench does not use it"),
}
"""Settings that cannot be overridden -> why not, or what to do."""
_ABOVE_0 = (
    *(
        "SOLVER.IMS_PER_BATCH",
        "SOLVER.MAX_ITER",
        "SOLVER.CHECKPOINT_PERIOD",
        "TEST.DETECTIONS_PER_IMAGE",
    ),
    *("INPUT.MAX_SIZE_TEST", "INPUT.MAX_SIZE_TRAIN", "INPUT.MIN_SIZE_TRAIN"),
)
"""Settings that must be a number above 0, or numbers above 0."""


def build_config(job: TransferJob, backbone: Backbone | None) -> CfgNode:
    """Return the resolved config of ``job``, with the options of ``backbone`` (None: those of the config).

    Raises:
        UserError: a key does not exist, a value has the wrong type, or the backbone does not fit the protocol.
    """
    cfg = read_config(job.protocol)
    published = number_of_classes(cfg)
    for key, value in job.all_overrides.items():
        _override(cfg, key, value, job.protocol)
    fit_classes(cfg, job, published)
    if backbone is not None:
        _fit_backbone(cfg, job, fitted(cfg, backbone).spec)
        _check_pixels(cfg, job, backbone.pixels)
    elif not isinstance(built := backbone_spec(cfg), NamedSpec):
        _checked(cfg, job, built)
    cfg.OUTPUT_DIR, cfg.SEED = str(job.out), job.seed
    return cfg


def read_config(protocol: Protocol) -> CfgNode:
    """Return the published config from the file of ``protocol``."""
    of_vitdet = protocol.weights_framework == vitdet.FRAMEWORK
    return _read(str(protocol.config), of_vitdet, bool(protocol.networks)).clone()


@cache
def _read(path: str, of_vitdet: bool, of_named: bool) -> CfgNode:
    cfg = get_cfg()
    if of_vitdet:
        cfg.VITDET = CfgNode(new_allowed=True)
    elif of_named:
        cfg.MODEL.NAMED, cfg[adamw.SECTION] = CfgNode(new_allowed=True), CfgNode(new_allowed=True)
    cfg.merge_from_file(path)
    return cfg


def backbone_spec(cfg: CfgNode) -> Spec:
    """Return the spec of the backbone that ``cfg`` builds.

    Raises:
        UserError: it is none that this project has.
    """
    if "VITDET" in cfg:
        return vitdet.backbone_spec(cfg)
    if cfg.MODEL.BACKBONE.NAME == BUILDER:
        return named_spec(cfg)
    resnet = cfg.MODEL.RESNETS
    base, basic = resnet.STEM_OUT_CHANNELS, resnet.DEPTH in BASIC_BLOCKS
    res2 = base if basic else 4 * base
    if res2 != resnet.RES2_OUT_CHANNELS:
        raise UserError(
            f"MODEL.RESNETS: RES2_OUT_CHANNELS must be {'equal to' if basic else 'four times'} STEM_OUT_CHANNELS at DEPTH "
            f"{resnet.DEPTH}; set both, and WIDTH_PER_GROUP"
        )
    try:
        return BackboneSpec(
            resnet.DEPTH,
            base / 64,
            stride_in_1x1=resnet.STRIDE_IN_1X1 and not basic,  # Detectron2 reads it for bottlenecks only
            groups=resnet.NUM_GROUPS,
            width_per_group=64 if basic else width_per_group(resnet.WIDTH_PER_GROUP, base),
        )
    except ValueError as error:
        raise UserError(f"MODEL.RESNETS: {error}") from error


def fitted(cfg: CfgNode, backbone: Backbone) -> Backbone:
    """Return ``backbone`` as the model of ``cfg`` takes it: ViTDet needs patches of 16 pixels."""
    return resized(backbone) if "VITDET" in cfg else backbone


def departures(cfg: CfgNode, backbone: Backbone | None) -> tuple[str, ...]:
    """Return a sentence for each way in which the model of ``cfg`` is not the published one because of ``backbone``."""
    if "VITDET" not in cfg:
        return ()
    spec, changed = backbone_spec(cfg), backbone is not None and fitted(cfg, backbone).resized
    return (*(of_plain(spec) if isinstance(spec, NamedSpec) else ()), *((RESIZING,) if changed else ()))


def fit_cpus(cfg: CfgNode, processes: int) -> tuple[str, ...]:
    """Replace the settings that CPUs do not support, and return one sentence for each.

    These are half precision and, with several processes, PyTorch's SyncBN.
    """
    changes: tuple[str, ...] = ()
    if cfg.SOLVER.AMP.ENABLED:
        cfg.SOLVER.AMP.ENABLED, changes = False, ("float32 instead of half precision, as on every CPU",)
    keys = [key for key, value in leaves(cfg) if value == "SyncBN" and processes > 1]
    cfg.merge_from_list([word for key in keys for word in (key, "naiveSyncBN")])
    return (*changes, "naiveSyncBN instead of SyncBN, as several CPU processes need") if keys else changes


def config_as_dict(cfg: CfgNode) -> dict[str, Any]:
    """Return the config as plain data without output folder, seed and device: they differ between runs of a protocol."""
    data: dict[str, Any] = yaml.safe_load(cfg.dump())
    for key in ("OUTPUT_DIR", "SEED"):
        del data[key]
    del data["MODEL"]["DEVICE"]
    return data


def _fit_backbone(cfg: CfgNode, job: TransferJob, spec: Spec) -> None:
    """Set the backbone options from ``spec``; raise UserError if that changes them at paper scale."""
    if isinstance(spec, NamedSpec):
        if "VITDET" in cfg:
            plain_options(cfg, spec, job.overrides)
        else:
            named_options(cfg, spec)
        return
    node, wanted = _backbone_options(_checked(cfg, job, spec))
    settings, now = {f"{node}.{key}": value for key, value in wanted.items()}, dict(leaves(cfg))
    differ = {key: value for key, value in settings.items() if now[key] != value}
    if differ and job.scale == "paper":
        raise UserError(
            f"{job.weights} holds a {spec.title}, but {job.protocol.name} is defined for another backbone; "
            f"use --scale mini, or deviate from the protocol with {_settings(differ)}"
        )
    for key, value in differ.items():
        cfg.merge_from_list([key, value])


def _checked(cfg: CfgNode, job: TransferJob, spec: BackboneSpec | VitSpec) -> BackboneSpec | VitSpec:
    """Return ``spec``; raise `UserError` if Detectron2 cannot build it in the detector of the protocol."""
    what = f"{job.weights or 'MODEL.RESNETS'} holds a {spec.title}"
    if ("VITDET" in cfg) is isinstance(spec, BackboneSpec) or cfg.MODEL.BACKBONE.NAME == BUILDER:
        raise UserError(
            f"{what}, which {job.protocol.name} cannot use: it is for {backbone_spec(cfg).title}; choose another protocol"
        )
    if isinstance(spec, VitSpec):
        if spec.patch != PATCH:
            raise UserError(f"{what}, but ViTDet's heads need patches of {PATCH} pixels; use a backbone that has them")
        return spec
    if spec.variant != "7x7":
        raise UserError(f"{what}, a ResNet of variant {spec.variant}; Detectron2 has only the 7x7 stem")
    if spec.basic and job.protocol.weights_framework == "detectron2_c4":
        raise UserError(
            f"{what}, which {job.protocol.name} cannot use: the box head of a C4 detector, res5, has bottlenecks in "
            "Detectron2; choose a protocol with a feature pyramid"
        )
    if spec.basic and spec.width != 1:
        raise UserError(
            f"{what}, but Detectron2 builds ResNet-18 and ResNet-34 only with 64 channels in the stem; use a backbone of "
            "width 1"
        )
    return spec


def _backbone_options(spec: BackboneSpec | VitSpec) -> tuple[str, dict[str, Any]]:
    """Return the config node that describes the backbone, and the values that it needs there for ``spec``."""
    if isinstance(spec, VitSpec):
        return "VITDET.MODEL.backbone.net", {name: getattr(spec, field) for name, field in vitdet.FIELDS.items()}
    return "MODEL.RESNETS", {
        "DEPTH": spec.depth,
        "STEM_OUT_CHANNELS": int(64 * spec.width),
        "RES2_OUT_CHANNELS": spec.channels // 8,
        "NUM_GROUPS": spec.groups,
        "WIDTH_PER_GROUP": spec.group_channels,
        "STRIDE_IN_1X1": spec.stride_in_1x1,
    }


def _check_pixels(cfg: CfgNode, job: TransferJob, pixels: Pixels) -> None:
    """Raise `UserError` if the config does not prepare images in the way that the backbone was trained with."""
    wanted = {"INPUT.FORMAT": pixels.order, "MODEL.PIXEL_MEAN": [*pixels.mean], "MODEL.PIXEL_STD": [*pixels.std]}
    differ = {key: value for key, value in wanted.items() if dict(leaves(cfg))[key] != value}
    if differ:
        raise UserError(
            f"{job.weights} expects {pixels}, but {job.protocol.name} prepares images differently; deviate from the "
            f"protocol with {_settings(differ)}"
        )


def _settings(overrides: dict[str, Any]) -> str:
    return " ".join(f"--set '{key}={json.dumps(value)}'" for key, value in overrides.items())


def _override(cfg: CfgNode, key: str, value: Any, protocol: Protocol) -> None:
    known = dict(leaves(cfg))
    if key in _BY_OPTION:
        raise UserError(f"{key} cannot be overridden; it is set by {_BY_OPTION[key]}")
    if key in _FIXED and known.get(key) != (tuple(value) if isinstance(value, list) else value):
        raise UserError(f"{key} cannot be overridden; {_FIXED[key]}")
    if key in _ABOVE_0 and not _above_0(value):
        raise UserError(f"{key} cannot be {value!r}; it must be above 0 (protocol {protocol.name})")
    if key not in known:
        raise UserError(f"Detectron2 has no setting {key!r} (protocol {protocol.name}){did_you_mean(key, known)}")
    if isinstance(known[key], float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)  # 1 instead of 1.0 is not a mistake, but yacs rejects it
    try:
        cfg.merge_from_list([key, value])
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{key} cannot be {value!r}: it must be of the type of its default, {known[key]!r} (protocol {protocol.name})"
        ) from error


def _above_0(value: Any) -> bool:
    """Return whether the number, or each number of the list, is above 0; yacs judges values of other types."""
    items = value if isinstance(value, list | tuple) else [value]
    return bool(items) and all(item > 0 for item in items if isinstance(item, int | float))

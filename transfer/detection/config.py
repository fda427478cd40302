"""From a protocol's YAML file and a job's overrides to Detectron2's config."""

from __future__ import annotations

import json
from typing import Any

import yaml
from detectron2.config import CfgNode, get_cfg

from pixbench.errors import UserError, did_you_mean
from pretrain.models.backbone_spec import BackboneSpec
from transfer.detection import vitdet
from transfer.job import TransferJob
from transfer.protocols import Protocol, leaves
from transfer.weights.backbone import Backbone
from transfer.weights.file_format import Pixels
from transfer.weights.vit_spec import VitSpec

_BY_OPTION = {"OUTPUT_DIR": "--out", "SEED": "--seed", "MODEL.WEIGHTS": "--weights"}


def build_config(job: TransferJob, backbone: Backbone | None) -> CfgNode:
    """The resolved config of a job that starts from ``backbone`` (None: as wide as the config says).

    Raises `UserError` for a key that does not exist, a value of the wrong type, or a backbone that does not fit the protocol.
    """
    cfg = read_config(job.protocol)
    for key, value in job.all_overrides.items():
        _override(cfg, key, value, job.protocol)
    if backbone is not None:
        _fit_backbone(cfg, job, backbone.spec)
        _check_pixels(cfg, job, backbone.pixels)
    if cfg.MODEL.RESNETS.STEM_OUT_CHANNELS * 4 != cfg.MODEL.RESNETS.RES2_OUT_CHANNELS:
        raise UserError(
            "MODEL.RESNETS: RES2_OUT_CHANNELS must be four times STEM_OUT_CHANNELS; set both, and WIDTH_PER_GROUP"
        )
    cfg.OUTPUT_DIR, cfg.SEED = str(job.out), job.seed
    return cfg


def read_config(protocol: Protocol) -> CfgNode:
    """The published config as it stands in the protocol's file."""
    cfg = get_cfg()
    if protocol.weights_framework == vitdet.FRAMEWORK:
        cfg.VITDET = CfgNode(new_allowed=True)
    cfg.merge_from_file(str(protocol.config))
    return cfg


def backbone_spec(cfg: CfgNode) -> BackboneSpec | VitSpec:
    """What backbone a config builds."""
    if "VITDET" in cfg:
        return vitdet.backbone_spec(cfg)
    resnet = cfg.MODEL.RESNETS
    return BackboneSpec(resnet.DEPTH, resnet.STEM_OUT_CHANNELS / 64, stride_in_1x1=resnet.STRIDE_IN_1X1)


def fit_cpus(cfg: CfgNode, processes: int) -> tuple[str, ...]:
    """Replace what CPUs cannot do, and say so: half precision, and among several processes PyTorch's SyncBN."""
    said: tuple[str, ...] = ()
    if cfg.SOLVER.AMP.ENABLED:
        cfg.SOLVER.AMP.ENABLED, said = False, ("float32 instead of half precision, as on every CPU",)
    keys = [key for key, value in leaves(cfg) if value == "SyncBN" and processes > 1]
    cfg.merge_from_list([word for key in keys for word in (key, "naiveSyncBN")])
    return (*said, "naiveSyncBN instead of SyncBN, as several CPU processes need") if keys else said


def config_as_dict(cfg: CfgNode) -> dict[str, Any]:
    """The config as plain data, without what differs from run to run of one protocol: place, seed and device."""
    data: dict[str, Any] = yaml.safe_load(cfg.dump())
    for key in ("OUTPUT_DIR", "SEED"):
        del data[key]
    del data["MODEL"]["DEVICE"]
    return data


def _fit_backbone(cfg: CfgNode, job: TransferJob, spec: BackboneSpec | VitSpec) -> None:
    """Set the options of the backbone from ``spec``. At paper scale they are the protocol's, and another backbone is an error."""
    node, wanted = _backbone_options(cfg, job, spec)
    settings, now = {f"{node}.{key}": value for key, value in wanted.items()}, dict(leaves(cfg))
    differ = {key: value for key, value in settings.items() if now[key] != value}
    if differ and job.scale == "paper":
        raise UserError(
            f"{job.weights} holds a {spec.title}, but {job.protocol.name} is defined for another backbone; use --scale mini, "
            f"or deviate knowingly with {_settings(differ)}"
        )
    for key, value in differ.items():
        cfg.merge_from_list([key, value])


def _backbone_options(cfg: CfgNode, job: TransferJob, spec: BackboneSpec | VitSpec) -> tuple[str, dict[str, Any]]:
    """Where a config says what its backbone is, and what it must say there for one of ``spec``."""
    if type(spec) is not type(backbone_spec(cfg)):
        raise UserError(
            f"{job.weights} holds a {spec.title}, which {job.protocol.name} cannot take: it is for {backbone_spec(cfg).title}"
        )
    if isinstance(spec, VitSpec):
        return "VITDET.MODEL.backbone.net", {name: getattr(spec, field) for name, field in vitdet.FIELDS.items()}
    if spec.variant != "7x7":
        raise UserError(f"{job.weights} holds a ResNet of kind {spec.variant}; Detectron2 has the 7x7 stem only")
    base = int(64 * spec.width)
    sizes = {"STEM_OUT_CHANNELS": base, "RES2_OUT_CHANNELS": 4 * base, "WIDTH_PER_GROUP": base}
    return "MODEL.RESNETS", {"DEPTH": spec.depth, **sizes, "STRIDE_IN_1X1": spec.stride_in_1x1}


def _check_pixels(cfg: CfgNode, job: TransferJob, pixels: Pixels) -> None:
    """Raise `UserError` unless images reach the backbone as it was trained on them."""
    wanted = {"INPUT.FORMAT": pixels.order, "MODEL.PIXEL_MEAN": [*pixels.mean], "MODEL.PIXEL_STD": [*pixels.std]}
    differ = {key: value for key, value in wanted.items() if dict(leaves(cfg))[key] != value}
    if differ:
        raise UserError(
            f"{job.weights} takes {pixels}, but {job.protocol.name} prepares images otherwise; deviate knowingly with "
            f"{_settings(differ)}"
        )


def _settings(overrides: dict[str, Any]) -> str:
    return " ".join(f"--set '{key}={json.dumps(value)}'" for key, value in overrides.items())


def _override(cfg: CfgNode, key: str, value: Any, protocol: Protocol) -> None:
    known = dict(leaves(cfg))
    if key in _BY_OPTION:
        raise UserError(f"{key} cannot be overridden; it is set by {_BY_OPTION[key]}")
    if key not in known:
        raise UserError(f"Detectron2 has no setting {key!r} (protocol {protocol.name}){did_you_mean(key, known)}")
    if isinstance(known[key], float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)  # 1 for 1.0 is no mistake, but yacs insists
    try:
        cfg.merge_from_list([key, value])
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{key} cannot be {value!r}: it must be of the type of its default, {known[key]!r} (protocol {protocol.name})"
        ) from error

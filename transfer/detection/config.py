"""From a protocol's YAML file and a job's overrides to Detectron2's config."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from typing import Any

import yaml
from detectron2.config import CfgNode, get_cfg

from pretrain.errors import UserError
from pretrain.models.spec import TrunkSpec
from transfer.job import TransferJob
from transfer.protocols import Protocol
from transfer.weights.format import Pixels
from transfer.weights.trunk import Trunk
from transfer.weights.vit import VitSpec

_BY_OPTION = {"OUTPUT_DIR": "--out", "SEED": "--seed", "MODEL.WEIGHTS": "--weights"}


def build_config(job: TransferJob, trunk: Trunk | None) -> CfgNode:
    """The resolved config of a job that starts from ``trunk`` (None: as wide as the config says).

    Raises `UserError` for a key that does not exist, a value of the wrong type, or a trunk that does not fit the protocol.
    """
    cfg = read_config(job.protocol)
    for key, value in job.all_overrides.items():
        _override(cfg, key, value, job.protocol)
    if trunk is not None:
        _fit_trunk(cfg, job, trunk.spec)
        _check_pixels(cfg, job, trunk.pixels)
    if cfg.MODEL.RESNETS.STEM_OUT_CHANNELS * 4 != cfg.MODEL.RESNETS.RES2_OUT_CHANNELS:
        raise UserError(
            "MODEL.RESNETS: RES2_OUT_CHANNELS must be four times STEM_OUT_CHANNELS; set both, and WIDTH_PER_GROUP"
        )
    cfg.OUTPUT_DIR, cfg.SEED = str(job.out), job.seed
    return cfg


def read_config(protocol: Protocol) -> CfgNode:
    """The published config as it stands in the protocol's file."""
    cfg = get_cfg()
    cfg.merge_from_file(str(protocol.config))
    return cfg


def trunk_spec(cfg: CfgNode) -> TrunkSpec:
    """What trunk a config builds."""
    resnet = cfg.MODEL.RESNETS
    return TrunkSpec(resnet.DEPTH, resnet.STEM_OUT_CHANNELS / 64, stride_in_1x1=resnet.STRIDE_IN_1X1)


def synchronise_on_cpus(cfg: CfgNode) -> tuple[str, ...]:
    """PyTorch's SyncBN refuses CPUs: put Detectron2's own in its place, and say so."""
    keys = [key for key, value in _leaves(cfg) if value == "SyncBN"]
    cfg.merge_from_list([word for key in keys for word in (key, "naiveSyncBN")])
    return ("naiveSyncBN instead of SyncBN, as several CPU processes need",) if keys else ()


def plain(cfg: CfgNode) -> dict[str, Any]:
    """The config as plain data, without what differs from run to run of one protocol: place, seed and device."""
    data: dict[str, Any] = yaml.safe_load(cfg.dump())
    for key in ("OUTPUT_DIR", "SEED"):
        del data[key]
    del data["MODEL"]["DEVICE"]
    return data


def _fit_trunk(cfg: CfgNode, job: TransferJob, spec: TrunkSpec | VitSpec) -> None:
    """Set the options of the trunk from ``spec``. At paper scale they are the protocol's, and another trunk is an error."""
    if not isinstance(spec, TrunkSpec):
        raise UserError(f"{job.weights} holds a ViT, but {job.protocol.name} is for a ResNet; take coco_vitdet")
    if spec.stem != "7x7":
        raise UserError(
            f"{job.weights} has a deep stem; Detectron2's ResNet has none, so it cannot be fine-tuned there"
        )
    base = int(64 * spec.width)
    wanted = {"DEPTH": spec.depth, "STEM_OUT_CHANNELS": base, "RES2_OUT_CHANNELS": 4 * base, "WIDTH_PER_GROUP": base}
    wanted["STRIDE_IN_1X1"] = spec.stride_in_1x1
    differ = {f"MODEL.RESNETS.{key}": value for key, value in wanted.items() if cfg.MODEL.RESNETS[key] != value}
    if differ and job.scale == "paper":
        raise UserError(
            f"{job.weights} holds a ResNet-{spec.depth} of width {spec.width:g}"
            f"{' with strides in the 1×1' if spec.stride_in_1x1 else ''}, but {job.protocol.name} is defined for another "
            f"trunk; use --scale mini, or deviate knowingly with {_settings(differ)}"
        )
    for key, value in wanted.items():
        cfg.MODEL.RESNETS[key] = value


def _check_pixels(cfg: CfgNode, job: TransferJob, pixels: Pixels) -> None:
    """Raise `UserError` unless images reach the trunk as it was trained on them."""
    wanted = {"INPUT.FORMAT": pixels.order, "MODEL.PIXEL_MEAN": [*pixels.mean], "MODEL.PIXEL_STD": [*pixels.std]}
    differ = {key: value for key, value in wanted.items() if dict(_leaves(cfg))[key] != value}
    if differ:
        raise UserError(
            f"{job.weights} takes {pixels}, but {job.protocol.name} prepares images otherwise; deviate knowingly with "
            f"{_settings(differ)}"
        )


def _settings(overrides: dict[str, Any]) -> str:
    return " ".join(f"--set '{key}={json.dumps(value)}'" for key, value in overrides.items())


def _override(cfg: CfgNode, key: str, value: Any, protocol: Protocol) -> None:
    known = dict(_leaves(cfg))
    if key in _BY_OPTION:
        raise UserError(f"{key} cannot be overridden; it is set by {_BY_OPTION[key]}")
    if key not in known:
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(f"Detectron2 has no setting {key!r} (protocol {protocol.name}){hint}")
    if isinstance(known[key], float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)  # 1 for 1.0 is no mistake, but yacs insists
    try:
        cfg.merge_from_list([key, value])
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{key} cannot be {value!r}: it must be of the type of its default, {known[key]!r} (protocol {protocol.name})"
        ) from error


def _leaves(cfg: CfgNode, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in cfg.items():
        if isinstance(value, CfgNode):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value

"""From a protocol's YAML file and a job's overrides to Detectron2's config."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

import yaml
from detectron2.config import CfgNode, get_cfg

from pretrain.errors import UserError
from pretrain.models.resnet import TrunkSpec
from transfer.job import TransferJob
from transfer.protocols import Protocol

_BY_OPTION = {"OUTPUT_DIR": "--out", "SEED": "--seed", "MODEL.WEIGHTS": "--weights"}


def build_config(job: TransferJob, spec: TrunkSpec | None) -> CfgNode:
    """The resolved config of a job whose trunk is of ``spec`` (None: as wide as the config says).

    Raises `UserError` for a key that does not exist, a value of the wrong type, or a trunk that does not fit the protocol.
    """
    cfg = read_config(job.protocol)
    for key, value in job.all_overrides.items():
        _override(cfg, key, value, job.protocol)
    if spec is not None:
        _fit_trunk(cfg, job, spec)
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
    return TrunkSpec(cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.STEM_OUT_CHANNELS / 64)


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


def _fit_trunk(cfg: CfgNode, job: TransferJob, spec: TrunkSpec) -> None:
    """Set the width options from ``spec``. At paper scale they are the protocol's, and another trunk is an error."""
    base = int(64 * spec.width)
    wanted = {"DEPTH": spec.depth, "STEM_OUT_CHANNELS": base, "RES2_OUT_CHANNELS": 4 * base, "WIDTH_PER_GROUP": base}
    differ = {f"MODEL.RESNETS.{key}": value for key, value in wanted.items() if cfg.MODEL.RESNETS[key] != value}
    if differ and job.scale == "paper":
        settings = " ".join(f"--set {key}={value}" for key, value in differ.items())
        raise UserError(
            f"{job.weights} holds a ResNet-{spec.depth} of width {spec.width:g}, but {job.protocol.name} is defined for "
            f"another trunk; use --scale mini, or deviate knowingly with {settings}"
        )
    for key, value in wanted.items():
        cfg.MODEL.RESNETS[key] = value


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

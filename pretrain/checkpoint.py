"""Checkpoints of a run: plain containers and tensors, written whole or not at all.

Content: "format", "version", "config" (nested plain dict), "method" (its name), "backbone" (its spec), "exports" (sub-modules
that conversion takes), "left_behind" (those that it leaves out), "model" (the method's state, the backbone under "backbone."),
"optimizer", "scaler", "step" and "epoch" (both count what is done), "seconds" of training, "images" (fingerprint of the source)
and "finished".
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from pixbench.checkpoints import write_checkpoint
from pixbench.errors import UserError
from pixbench.file_versions import CHECKPOINT_FORMAT, CHECKPOINT_VERSION
from pixbench.files import atomic_path
from pretrain.config import flatten, from_dict

LATEST = "checkpoint.pth"
FREE = set("out data.root data.workers data.cache log_every checkpoint_every checkpoint_every_steps keep_every".split())
"""Settings that may change between a run and its continuation, since no number depends on them."""


def save(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` to ``path``; if that fails, what was there stays there.

    Raises UserError if it cannot be written, or if a weight is not finite.
    """
    bad = [name for name, value in content["model"].items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        kept = f"; the last good one is {path}" if path.exists() else ""
        raise UserError(
            f"{bad[0]} is not finite after step {content['step']}, no checkpoint written{kept}; lower the rate"
        )
    write_checkpoint(path, {"format": CHECKPOINT_FORMAT, "version": CHECKPOINT_VERSION, **content})


def keep(path: Path, name: str) -> None:
    """Give the checkpoint at ``path`` a second name beside it, under which it outlives the next `save`."""
    with atomic_path(path.with_name(name)) as part:
        try:
            os.link(path, part)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, part)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU. Raises UserError if it is truncated or not one of this project."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises half a dozen types on broken files
        raise UserError(
            f"checkpoint {path} cannot be read, it may be truncated; delete it to start anew, "
            "or put a kept checkpoint_ep*.pth in its place"
        ) from error
    if not isinstance(content, dict) or content.get("format") != CHECKPOINT_FORMAT:
        raise UserError(f"{path} is not a pre-training checkpoint of this project; choose another --out")
    if content.get("version") == 1:
        content = _from_version_1(content)
    if content.get("version") != CHECKPOINT_VERSION:
        raise UserError(
            f"{path} has checkpoint version {content.get('version')}, this PixBench reads 1 to {CHECKPOINT_VERSION}"
        )
    return content


def _from_version_1(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a checkpoint of version 1 under the names of version 2."""
    names = {"target.trunk.": "momentum_encoder.backbone.", "target.": "momentum_encoder.", "trunk.": "backbone."}

    def renamed(name: str) -> str:
        return next((new + name.removeprefix(old) for old, new in names.items() if name.startswith(old)), name)

    config = dict(content["config"])
    config["backbone"] = config.pop("trunk")
    if config["schedule"]["name"] == "step":
        config["schedule"] = config["schedule"] | {"name": "multistep"}
    model = {renamed(name): value for name, value in content["model"].items()}
    return {**content, "version": 2, "config": config, "model": model, "backbone": content["trunk"]}


def check_same_run(content: dict[str, Any], config: dict[str, Any], images: str, path: Path) -> None:
    """UserError naming what differs unless a run of ``config`` on ``images`` may go on from this checkpoint."""
    before, now = flatten(from_dict(content["config"]).as_dict()), flatten(config)  # settings of later: their defaults
    differing = sorted(key for key in before.keys() | now.keys() if key not in FREE and before.get(key) != now.get(key))
    if differing:
        listed = ", ".join(f"{key} (there {before.get(key)}, here {now.get(key)})" for key in differing)
        raise UserError(f"{path} is of a run with other settings: {listed}; choose another --out, or the same settings")
    if content["images"] != images:
        raise UserError(f"{path} is of a run on other images than those in data.root; choose another --out")


def remove_leftovers(folder: Path) -> None:
    """Delete the half-written checkpoints of processes that were killed while writing."""
    for part in folder.glob(".checkpoint*.part.pth"):
        part.unlink(missing_ok=True)

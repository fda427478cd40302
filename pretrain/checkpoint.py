"""Write and read the checkpoints of a run: plain containers and tensors, written completely or not at all.

Content: "format", "version", "config" (nested plain dict), "method" (its name), "backbone" (its spec), "exports" (submodules
that a conversion takes), "left_behind" (submodules that it leaves out), "model" (state of the method; the backbone's keys
start with "backbone."), "optimizer", "scaler", "step" and "epoch" (the numbers of finished steps and epochs), "seconds" of
training, "bad_steps" (how many steps were skipped, see `pretrain.bad_steps`), "processes" (how many there were), "images"
(fingerprint of the source), "skipped" (index of each broken image met so far, and what is wrong with it), "initial" (source
and digest of the weights that the run started from, or None), "teacher" (source, digest and settings of the network
that it distils from, or None; its weights are in "model"), "lengthened" (step, epochs before and epochs now, each time the run
got more epochs), "precisions" (step, precision before and precision now, each time it changed) and "finished".
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from pixbench.checkpoints import damage, write_checkpoint
from pixbench.errors import UserError
from pixbench.file_versions import CHECKPOINT_FORMAT, CHECKPOINT_VERSION, EARLIER_FOLDER
from pixbench.files import atomic_path
from pretrain.config import flatten, from_dict

MAY_CHANGE = {
    *(
        "out",
        "data.root",
        "data.folder",
        "data.mixture",
        "data.workers",
        "data.cache",
        "data.on_error",
        "data.max_skipped",
    ),
    *("activation_checkpointing", "max_bad_steps", "process_timeout"),
    *("log_every", "log.views_every", "log.knn_every", "log.trackers", "profile"),
    *("checkpoint_every", "checkpoint_every_steps", "keep_every", "keep_last"),
}
"""Settings that may change when a run is continued, because no result depends on them."""


class DamagedError(UserError):
    """A checkpoint does not hold what was written."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"checkpoint {path} cannot be read, it may be truncated ({reason}); delete it to start from the beginning, or "
            "replace it with a kept checkpoint_ep*.pth"
        )
        self.reason = reason


def save(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` to ``path``. If this fails, the previous file is kept.

    Raises:
        UserError: The file cannot be written, or a weight is not finite.
    """
    bad = [name for name, value in content["model"].items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        kept = f"; the last good checkpoint is {path}" if path.exists() else ""
        raise UserError(
            f"model tensor {bad[0]} is not finite after step {content['step']}, so no checkpoint was written{kept}; "
            "lower optimizer.base_lr and choose another --out"
        )
    write_checkpoint(path, {"format": CHECKPOINT_FORMAT, "version": CHECKPOINT_VERSION, **content})


def keep(path: Path, copy: Path) -> None:
    """Give the checkpoint at ``path`` the second path ``copy``, so that the next `save` does not replace it."""
    with atomic_path(copy) as part:
        try:
            os.link(path, part)
        except OSError:  # the file system has no hard links
            shutil.copyfile(path, part)


def load(path: Path, verify: bool = False) -> dict[str, Any]:
    """Read a checkpoint onto the CPU. With ``verify``, compare the checksums first, which reads the file once more.

    Raises:
        DamagedError: The file is truncated, or its checksums are wrong.
        UserError: It is not a checkpoint of this project, or has an unknown version.
    """
    if verify and (reason := damage(path)):
        raise DamagedError(path, reason)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types of errors for broken files
        raise DamagedError(path, str(error).partition("\n")[0][:120]) from error
    if not isinstance(content, dict) or content.get("format") != CHECKPOINT_FORMAT:
        raise UserError(f"{path} is not a pre-training checkpoint of this project; choose another --out")
    if content.get("version") == 1:
        try:
            content = _from_version_1(content)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is damaged ({error!r}); delete it, then start again") from error
    if content.get("version") != CHECKPOINT_VERSION:
        raise UserError(
            f"{path} has checkpoint version {content.get('version')}, but this PixBench reads versions 1 to "
            f"{CHECKPOINT_VERSION}; update PixBench or choose another --out"
        )
    return content


def _from_version_1(content: dict[str, Any]) -> dict[str, Any]:
    """Convert the content of a checkpoint of version 1 to the names of version 2."""
    names = {"target.trunk.": "momentum_encoder.backbone.", "target.": "momentum_encoder.", "trunk.": "backbone."}

    def renamed(name: str) -> str:
        return next((new + name.removeprefix(old) for old, new in names.items() if name.startswith(old)), name)

    config = dict(content["config"])
    config["backbone"] = config.pop("trunk")
    if config["schedule"]["name"] == "step":
        config["schedule"] = config["schedule"] | {"name": "multistep"}
    model = {renamed(name): value for name, value in content["model"].items()}
    return {**content, "version": 2, "config": config, "model": model, "backbone": content["trunk"]}


def check_same_run(
    content: dict[str, Any], config: dict[str, Any], images: str, path: Path, initial: dict[str, str] | None = None
) -> None:
    """Check that a run of ``config`` on ``images`` may continue from this checkpoint. It may have more epochs than before.

    ``initial`` is the record of the weights to start from; None if they were not read again.

    Raises:
        UserError: The settings, the images or the weights differ. The message names the differences.
    """
    before, now = flatten(from_dict(content["config"]).as_dict()), flatten(config)  # newer settings get their defaults
    if "backend" not in content["config"]["data"]:  # written before there was a choice
        before["data.backend"] = "pil"
    may_change, began = MAY_CHANGE, content.get("initial")
    if initial and began:
        if initial["sha256"] != began["sha256"]:
            raise UserError(
                f"{path} belongs to a run from other weights: {began['source']} with sha256 {began['sha256'][:12]}, but now "
                f"{initial['source']} has {initial['sha256'][:12]}; use the same weights or choose another --out"
            )
        may_change = MAY_CHANGE | {"init_from"}
    if before.get("data.pixel_range") is None:  # no image has needed a range so far
        may_change = may_change | {"data.pixel_range"}
    differing = sorted(
        key for key in before.keys() | now.keys() if key not in may_change and before.get(key) != now.get(key)
    )
    if differing == ["epochs"] and now["epochs"] > before["epochs"]:
        differing = []
    if differing == ["precision"] and before["precision"] == "fp16":  # it may be what makes steps not finite
        differing = []
    if differing:
        listed = ", ".join(f"{key} (checkpoint: {before.get(key)}, now: {now.get(key)})" for key in differing)
        fewer = "; a run may get more epochs, but not fewer" if now["epochs"] < before["epochs"] else ""
        raise UserError(
            f"{path} belongs to a run with other settings: {listed}{fewer}; use the same settings or choose another --out"
        )
    if content["images"] != images:
        raise UserError(f"{path} belongs to a run on other images than those in data.root; choose another --out")


def remove_leftovers(folder: Path) -> None:
    """Delete the incomplete files of processes that were killed while they wrote them (`pixbench.files.atomic_path`)."""
    for pattern in (".*.part.*", f"{EARLIER_FOLDER}/.*.part.*"):
        for part in folder.glob(pattern):
            part.unlink(missing_ok=True)

"""What a run keeps when it is continued: its list of images, the range of their pixel values, its place in the schedule."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from pixbench.distributed import same_in_all_processes, world_size
from pixbench.errors import UserError, printable
from pixbench.file_versions import CHECKPOINT_FILE, IMAGE_LIST
from pixbench.shared_memory import shared_by_machine
from pretrain.data.image_list import is_list_of, kept_to_list
from pretrain.data.index import Index
from pretrain.data.pixel_range import find_range
from pretrain.data.sources import Layout, Source, is_index, open_source
from pretrain.data.sources.mixture import joined
from pretrain.schedule import LRSchedule
from pretrain.settings import DataConfig, RunConfig


def list_images(config: RunConfig, content: dict[str, Any] | None) -> tuple[RunConfig, Source, list[str]]:
    """List the images of a run, or take them from its list if there is a checkpoint with ``content``.

    Returns:
        The settings with the layout, the backend and the range of pixel values in use, the images, and sentences for the user.

    Raises:
        UserError: There are no images, or too many of the run's images are missing.
    """
    data, path = config.data, Path(config.out) / IMAGE_LIST
    notes: list[str] = []
    found = _found(data, content is not None)
    source = found.thinned(data.limit)
    if content is not None and path.exists():
        images = content["images"]
        if source.fingerprint() == images and not is_list_of(path, source.index.lines):
            notes.append(f"{path} was damaged; it is written again, since the images are those of the checkpoint")
        if source.fingerprint() != images:
            source, notes = kept_to_list(found, path, data.limit)
        if source.fingerprint() != images:
            raise UserError(
                f"{path} is not the list of the images of {path.with_name(CHECKPOINT_FILE)}; put back the one that was written "
                "at the start of the run, or choose another --out"
            )
    if empty := source.index.empty:
        names = ", ".join(printable(name) for name in empty[:5])
        notes.append(f"{len(empty)} class folder(s) without images ({names}): no image has their labels")
    notes += [f"warning: {note}" for note in source.index.notes]
    pixel_range = data.pixel_range
    if pixel_range is None and content is not None:
        pixel_range = content["config"]["data"].get("pixel_range")
    elif pixel_range is None and (wide := find_range(source)):
        pixel_range = wide.low, wide.high
        notes.append(str(wide))
    if pixel_range is not None:
        pixel_range = (float(pixel_range[0]), float(pixel_range[1]))
    source = replace(source, pixel_range=pixel_range)
    taken = hashlib.sha256(f"{source.fingerprint()} {sorted(source.stand_ins.items())}".encode()).hexdigest()
    if not same_in_all_processes(taken):
        raise UserError(
            f"the processes find different images below data.root {data.root}; give all machines the same files"
        )
    if data.backend == "auto":  # before there was a choice, it was pil
        data = replace(data, backend="opencv" if content is None else content["config"]["data"].get("backend", "pil"))
    if not data.mixture:
        data = replace(data, layout=cast(Layout, source.index.layout))
    return replace(config, data=replace(data, pixel_range=pixel_range)), source, notes


def _found(data: DataConfig, begun: bool) -> Source:
    """List all images that are there now: once on each machine, for all of its processes. A prepared index is shared as it is."""
    if world_size() == 1 or (is_index(data.root) and not data.mixture):
        return Source(_list(data, begun))
    return Source(
        shared_by_machine(
            "pixbench-index", lambda stream: _list(data, begun).write(stream), lambda path, _: Index.read(path)
        )
    )


def _list(data: DataConfig, begun: bool) -> Index:
    """List the images. ``begun`` as in `open_source`."""
    if not (data.root or data.mixture):
        raise UserError("data.root is not set; give the folder that holds the images, for example --data.root DIR")
    if not data.mixture:
        return open_source(data.root, data.layout, data.folder, begun=begun).index
    roots = [open_source(root.root, root.layout, root.folder, begun=begun).index for root in data.mixture]
    return joined(roots, [root.weight for root in data.mixture])


def lengthening(schedule: LRSchedule, step: int, before: int, now: int) -> str:
    """Describe how a run of ``before`` epochs goes on after ``step`` steps with ``now`` epochs and ``schedule``."""
    old = LRSchedule(schedule.config, schedule.peak_lr, schedule.steps_per_epoch, before)
    return (
        f"going on after epoch {step / schedule.steps_per_epoch:.4g} of now {now} (before: {before}): {schedule.config.name} "
        f"schedule over {now} epochs; learning rate {schedule.lr(step):.3g} at this step, it was {old.lr(max(step - 1, 0)):.3g}"
    )

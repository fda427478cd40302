"""What a run keeps when it is continued: its list of images, the range of their pixel values, its place in the schedule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pixbench.distributed import same_in_all_processes
from pixbench.errors import UserError, printable
from pixbench.file_versions import CHECKPOINT_FILE, IMAGE_LIST
from pretrain.config import RunConfig
from pretrain.data.image_list import kept_to_list
from pretrain.data.pixels import find_range
from pretrain.data.sources import Source, open_source
from pretrain.schedule import LRSchedule


def list_images(config: RunConfig, content: dict[str, Any] | None) -> tuple[RunConfig, Source, list[str]]:
    """List the images of a run, or take them from its list if there is a checkpoint with ``content``.

    Returns:
        The settings with the range of pixel values in use, the images, and sentences for the user.

    Raises:
        UserError: There are no images, or too many of the run's images are missing.
    """
    data, path = config.data, Path(config.out) / IMAGE_LIST
    notes: list[str] = []
    found = open_source(data.root, data.layout)
    if content is not None and path.exists():
        source, notes = kept_to_list(found, path, data.limit)
        if source.fingerprint() != content["images"]:
            raise UserError(
                f"{path} is not the list of the images of {path.with_name(CHECKPOINT_FILE)}; put back the one that was written "
                "at the start of the run, or choose another --out"
            )
    else:
        source = found.thinned(data.limit)
    if source.empty:
        names = ", ".join(printable(name) for name in source.empty[:5])
        notes.append(f"{len(source.empty)} class folder(s) without images ({names}): no image has their labels")
    pixel_range = data.pixel_range
    if pixel_range is None and content is not None:
        pixel_range = content["config"]["data"].get("pixel_range")
    elif pixel_range is None and (wide := find_range(source.root, source.names)):
        pixel_range = wide.low, wide.high
        notes.append(str(wide))
    if pixel_range is not None:
        pixel_range = (float(pixel_range[0]), float(pixel_range[1]))
    source = replace(source, pixel_range=pixel_range)
    taken = replace(
        source, labels=[source.present(index) for index in range(len(source))]
    )  # the digest shows stand-ins too
    if not same_in_all_processes(taken.fingerprint()):
        raise UserError(
            f"the processes find different images below data.root {data.root}; give all machines the same files"
        )
    return replace(config, data=replace(data, pixel_range=pixel_range)), source, notes


def lengthening(schedule: LRSchedule, step: int, before: int, now: int) -> str:
    """Describe how a run of ``before`` epochs goes on after ``step`` steps with ``now`` epochs and ``schedule``."""
    old = LRSchedule(schedule.config, schedule.peak_lr, schedule.steps_per_epoch, before)
    return (
        f"going on after epoch {step / schedule.steps_per_epoch:.4g} of now {now} (before: {before}): {schedule.config.name} "
        f"schedule over {now} epochs; learning rate {schedule.lr(step):.3g} at this step, it was {old.lr(max(step - 1, 0)):.3g}"
    )

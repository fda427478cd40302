"""The classes in MMSegmentation's config: a user's own, and the settings that must fit the label maps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixbench.errors import UserError
from transfer.datasets.mask_numbers import check_room
from transfer.protocols import leaves

if TYPE_CHECKING:
    from mmengine.config import Config

    from transfer.datasets.classes import Classes

METRICS = ("mIoU", "mDice", "mFscore")
"""What MMSegmentation's IoUMetric can compute."""
FIXED = {
    r"model\.([\w.]+\.)?num_classes": "",  # as `_reason` says
    r".*\.reduce_zero_label": "the label maps of {protocol} are read with {old}: it decides what 0 stands for",
    r"model\.data_preprocessor\.seg_pad_val": "only {old} is ignored, so that padding would be learned as a class",
    r"\w+_dataloader\.dataset\.(datasets\.\d+\.)?type": "the files of {protocol} are laid out as for {old}",
    r".*\.metainfo\.\w+": "the classes are set by --classes",
}
"""Patterns of config keys that must fit the label maps -> why another value does not."""


def data_sets(loader: Any) -> list[Any]:
    """Return the data sets in the config of a loader: one, or several that are trained on together."""
    return list(loader.dataset.get("datasets", [loader.dataset]))


def parts_with(name: str, node: Any, place: str = "model") -> Iterator[tuple[str, Any]]:
    """Yield the key and the config of each part of a model, at any depth, that has the setting ``name``."""
    children = dict(enumerate(node)) if isinstance(node, list) else node
    if not isinstance(children, dict):
        return
    if name in children:
        yield place, node
    for key, child in children.items():
        yield from parts_with(name, child, f"{place}.{key}")


def use_classes(config: Config, classes: Classes) -> None:
    """Set a user's own ``classes`` in heads and data sets of ``config``.

    Raises:
        UserError: there are too few or too many of them.
    """
    if len(classes) < 2:
        raise UserError(
            f"{classes.source} has {classes.brief}, but MMSegmentation learns to tell classes apart and needs two (with one, its "
            "loss is always 0); name the class of the other pixels too, for example background"
        )
    check_room(classes)
    for _, head in parts_with("num_classes", config.model):
        head.num_classes = len(classes)
        if "loss_cls" in head:  # of queries, with a weight for each class and one for queries that find nothing
            known, nothing = head.loss_cls.class_weight[0], head.loss_cls.class_weight[-1]
            head.loss_cls.class_weight = [known] * len(classes) + [nothing]
    palette = [[37 * i % 256, 91 * i % 256, 151 * i % 256] for i in range(len(classes))]  # all differ: 37 is odd
    for data in (*data_sets(config.train_dataloader), *data_sets(config.val_dataloader)):
        data.metainfo = {"classes": classes.names, "palette": palette}


def leave_out_missing(config: Config, data_root: Path) -> None:
    """Leave out training sets whose list of images is missing: a user's own data has no additional images of SBD."""
    if sets := config.train_dataloader.dataset.get("datasets"):
        there = [data for data in sets if (data_root / Path(data.data_root).name / data.get("ann_file", "")).exists()]
        config.train_dataloader.dataset.datasets = there or sets[:1]


def held(config: Config) -> dict[str, Any]:
    """Return the settings of ``config`` that must fit the label maps."""
    return {key: value for key, value in leaves(config.to_dict()) if any(re.fullmatch(name, key) for name in FIXED)}


def check_held(config: Config, before: dict[str, Any], protocol: str, classes: Classes | None) -> None:
    """Refuse overrides that do not fit the label maps.

    Args:
        config: the config with all overrides.
        before: what `held` returned without them.
        protocol: name of the protocol.
        classes: the user's own, if any.

    Raises:
        UserError: a setting of ``before`` has another value in ``config``, or mIoU would not be measured.
    """
    after = dict(leaves(config.to_dict()))
    for key, old in before.items():
        if (value := after.get(key)) != old:
            raise UserError(f"{key} is {value}, but {_reason(key, old, protocol, classes)}")
    metrics = config.val_evaluator.iou_metrics
    if "mIoU" not in metrics or not all(metric in METRICS for metric in metrics):
        raise UserError(
            f"val_evaluator.iou_metrics is {list(metrics)}, but {protocol} reports mIoU; keep it, and add no other than "
            f"{METRICS[1]} and {METRICS[2]}"
        )


def _reason(key: str, old: Any, protocol: str, classes: Classes | None) -> str:
    if key.endswith("num_classes"):
        if classes:
            return f"{classes.source} has {old} classes; leave it out"
        return f"the label maps have {old} classes; leave it out, or run on classes of your own with --classes FILE"
    why = next(reason for name, reason in FIXED.items() if re.fullmatch(name, key))
    return f"{why.format(protocol=protocol, old=old)}; leave it out"

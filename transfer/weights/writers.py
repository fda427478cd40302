"""From a `Trunk` to a file of a framework. Same trunk, same bytes."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pretrain.errors import UserError
from pretrain.files import atomic_path
from transfer.weights.layouts import LAYOUTS, find_layout, to_target
from transfer.weights.trunk import COUNTER, Counts, Trunk, check, is_counter

AUTHOR = "PixBench"


def save(trunk: Trunk, path: str | PathLike[str], layout: str) -> Counts:
    """Write ``trunk`` to ``path`` for the framework of ``layout``; a file there is replaced whole or not at all."""
    check_target(trunk, path, layout)
    with atomic_path(path) as part:
        return write(trunk, part, layout)


def check_target(trunk: Trunk, path: str | PathLike[str], layout: str) -> None:
    """Raise `UserError` if the framework could not build this trunk, or would not read a file of this name."""
    suffixes = find_layout(layout).suffixes
    if Path(path).suffix not in suffixes:
        raise UserError(f"{path}: {LAYOUTS[layout].title} files end in {' or '.join(suffixes)}; name it so")
    if layout == "torchvision" and trunk.spec.width != 1:
        raise UserError(
            f"torchvision has no ResNet of width {trunk.spec.width:g}, its stem is fixed at 64 channels; "
            "write this trunk for detectron2 or mmseg"
        )


def write(trunk: Trunk, path: Path, layout: str) -> Counts:
    """`save` without the rename, onto a path of the caller's."""
    check(trunk)
    state = to_target(trunk, layout)
    _WRITERS[layout](trunk, state, path)
    rules = LAYOUTS[layout]
    left_out = {COUNTER: 0 if rules.counters else sum(map(is_counter, trunk.state))}
    left_out["of pyramid and head"] = 0 if rules.neck else len(trunk.extras)
    return Counts(len(state), {reason: number for reason, number in left_out.items() if number})


def _detectron2(trunk: Trunk, state: dict[str, Tensor], path: Path) -> None:
    """Model zoo format of `detectron2/checkpoint/detection_checkpoint.py`, names as they are; other keys are ignored."""
    arrays = {name: tensor.contiguous().numpy() for name, tensor in state.items()}
    content = {"model": arrays, "__author__": AUTHOR, "matching_heuristics": False, "pixbench": _about(trunk)}
    with path.open("wb") as stream:
        pickle.dump(content, stream, protocol=4)


def _mmseg(trunk: Trunk, state: dict[str, Tensor], path: Path) -> None:
    """Format of `mmengine/runner/checkpoint.py`."""
    _torch({"state_dict": state, "meta": {"author": AUTHOR, "pixbench": _about(trunk)}}, path)


def _torchvision(trunk: Trunk, state: dict[str, Tensor], path: Path) -> None:
    """A plain state dict, as torchvision publishes them."""
    _torch(state, path)


_WRITERS: dict[str, Callable[[Trunk, dict[str, Tensor], Path], None]] = {
    "detectron2_c4": _detectron2,
    "detectron2_fpn": _detectron2,
    "mmseg": _mmseg,
    "torchvision": _torchvision,
}


def _about(trunk: Trunk) -> dict[str, Any]:
    return {"trunk": trunk.spec.as_dict()}


def _torch(content: Any, path: Path) -> None:
    """Through memory: given a path, torch.save writes the temporary name into the archive; given a file on a full disk, it
    hides the reason."""
    archive = io.BytesIO()
    torch.save(content, archive)
    path.write_bytes(archive.getbuffer())

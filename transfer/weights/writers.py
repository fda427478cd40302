"""From a `Trunk` to a file of a framework, without PyTorch. Same trunk, same bytes."""

from __future__ import annotations

import json
import os
import pickle
import re
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from pixbench.errors import UserError
from pixbench.files import atomic_path
from transfer.weights.containers import ABOUT, torch_writer
from transfer.weights.containers.arrays import fingerprint, in_order
from transfer.weights.layouts import LAYOUTS, express, find_layout, to_target
from transfer.weights.names import COUNTER, is_counter
from transfer.weights.trunk import Counts, Trunk, check

AUTHOR = "PixBench"


def save(trunk: Trunk, path: str | PathLike[str], layout: str) -> Counts:
    """Write ``trunk`` to ``path`` for the framework of ``layout``; a file there is replaced whole or not at all."""
    check_target(trunk, path, layout)
    check(trunk)
    with atomic_path(path) as part:
        return write(trunk, part, layout)


def check_target(trunk: Trunk, path: str | PathLike[str], layout: str) -> None:
    """Raise `UserError` if the framework could not build this trunk, or would not read a file of this name."""
    suffixes = find_layout(layout).suffixes
    if Path(path).suffix not in suffixes:
        raise UserError(f"{path}: {LAYOUTS[layout].title} files end in {' or '.join(suffixes)}; name it so")
    express(trunk, layout)


def write(trunk: Trunk, path: Path, layout: str) -> Counts:
    """`save` without the rename and without checks, onto a path of the caller's."""
    trunk = express(trunk, layout)
    rules = LAYOUTS[layout]
    state = {name: in_order(np.asarray(values)) for name, values in to_target(trunk, layout).items()}
    about = {"trunk": trunk.spec.as_dict(), "pixels": vars(trunk.pixels)}
    if path.suffix == ".safetensors":
        _safetensors(state, about, path)
    elif path.suffix == ".pkl":
        _detectron2(state, about, path)
    else:
        mm = layout in ("mmseg", "mmpretrain")
        # a plain state dict as torchvision, timm and `transformers` have it, or that of `mmengine/runner/checkpoint.py`
        torch_writer.write_zip({"state_dict": state, "meta": {"author": AUTHOR}, ABOUT: about} if mm else state, path)
    held = [*trunk.state, *(trunk.extras if rules.neck else ())]
    left_out = {COUNTER: 0 if rules.counters else sum(map(is_counter, held))}
    left_out["of pyramid and head"] = 0 if rules.neck else len(trunk.extras)
    return Counts(len(state), {reason: number for reason, number in left_out.items() if number})


def _detectron2(state: dict[str, np.ndarray], about: dict[str, Any], path: Path) -> None:
    """Model zoo format of `detectron2/checkpoint/detection_checkpoint.py`, names as they are; other keys are ignored.

    A pickle has no checksums, hence the fingerprint.
    """
    about = about | {"sha256": fingerprint(state, about)}
    content = {"model": state, "__author__": AUTHOR, "matching_heuristics": False, ABOUT: about}
    with path.open("wb") as stream:
        pickle.dump(content, stream, protocol=4)


def _safetensors(state: dict[str, np.ndarray], about: dict[str, Any], path: Path) -> None:
    """The names alone, as `transformers` and timm read them; the rest is in the metadata. No checksums here either."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    about = about | {"sha256": fingerprint(state, about)}
    try:
        save_file(state, path, {"format": "pt", ABOUT: json.dumps(about)})
    except SafetensorError as error:
        if number := re.search(r"os error (\d+)", str(error)):  # a full disk, say
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        raise

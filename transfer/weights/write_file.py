"""Write a `Backbone` to a file of a framework. The same backbone always gives the same bytes."""

from __future__ import annotations

import json
import os
import pickle
import re
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixbench.errors import UserError
from pixbench.file_versions import WEIGHTS_KEY
from pixbench.files import atomic_path, write_text
from transfer.weights.backbone import Backbone, Counts, check
from transfer.weights.frameworks import express, find_framework, to_framework
from transfer.weights.naming import COUNTER, is_counter
from transfer.weights.tensors import alone, fingerprint, in_order

AUTHOR = "PixBench"
CONFIG = "config.json"


def save(backbone: Backbone, path: str | PathLike[str], framework: str) -> Counts:
    """Write ``backbone`` to ``path`` for ``framework``. An existing file is replaced completely or, on an error, not at all."""
    check_suffix(path, framework)
    backbone = express(backbone, framework)
    check_suffix(path, framework, backbone)
    check(backbone)
    with atomic_path(path) as part:
        counts = write(backbone, part, framework)
    write_config(backbone, path, framework)
    return counts


def write_config(backbone: Backbone, path: str | PathLike[str], framework: str) -> None:
    """Write the config.json that the framework reads beside ``path``, if it reads one."""
    if config := _config(backbone, framework):
        write_text(Path(path).with_name(CONFIG), _text(config))


def _text(config: dict[str, Any]) -> str:
    return json.dumps(config, indent=2) + "\n"


def _config(backbone: Backbone, framework: str) -> dict[str, Any]:
    rules = find_framework(framework)
    return rules.config(backbone) if rules.config else {}


def check_suffix(path: str | PathLike[str], framework: str, backbone: Backbone | None = None) -> None:
    """Raise `UserError` if the framework does not read files with this suffix, or such a file cannot say where strides are."""
    rules = find_framework(framework)
    if Path(path).suffix not in rules.suffixes:
        raise UserError(f"{path}: {rules.title} files end in {' or '.join(rules.suffixes)}; choose such a name")
    plain = rules.container is None and Path(path).suffix not in (".safetensors", ".pkl")
    if backbone and plain and getattr(backbone.spec, "stride_in_1x1", False):
        raise UserError(
            f"{path}: a file of the weights alone cannot say that strides are in the 1×1 convolutions; choose a name that ends "
            "in .safetensors, which can"
        )
    if backbone and (config := _config(backbone, framework)):
        if Path(path).name != "model.safetensors":
            raise UserError(
                f"{path}: transformers reads a config.json beside the weights, and these as model.safetensors; give the output "
                "this name, in a folder of its own"
            )
        beside = Path(path).with_name(CONFIG)
        if beside.exists() and beside.read_text(encoding="utf-8", errors="replace") != _text(config):
            raise UserError(f"{beside} exists and describes something else; choose a folder of its own for the output")


def write(backbone: Backbone, path: Path, framework: str) -> Counts:
    """Write a backbone that is already in the form of the framework (`express`), directly to ``path`` and without checks."""
    rules = find_framework(framework)
    taken: set[int] = set()
    state = {name: alone(in_order(tensor), taken) for name, tensor in to_framework(backbone, framework).items()}
    about: dict[str, Any] = {"backbone": backbone.spec.as_dict(), "pixels": vars(backbone.pixels)}
    about |= {"pretraining": backbone.pretraining} if backbone.pretraining else {}
    about |= {"resized": True} if backbone.resized else {}
    if path.suffix == ".safetensors":
        _safetensors(state, about, path)
    elif path.suffix == ".pkl":
        _pickle(state, about, path)
    else:
        notes = {"meta": {"author": AUTHOR}, WEIGHTS_KEY: about}
        with path.open("wb") as stream:  # a path would become part of the file
            torch.save({rules.container: state, **notes} if rules.container else state, stream)
    held = [*backbone.state, *(backbone.extras if rules.pyramid_head else ())]
    left_out = {COUNTER: 0 if rules.counters else sum(map(is_counter, held))}
    left_out["pyramid and head"] = 0 if rules.pyramid_head else len(backbone.extras)
    return Counts(len(state), {reason: number for reason, number in left_out.items() if number})


def _pickle(state: dict[str, Tensor], about: dict[str, Any], path: Path) -> None:
    """Write the model zoo format of `detectron2/checkpoint/detection_checkpoint.py`, which ignores our other keys.

    Detectron2 uses the names as they are. A pickle has no checksums, so a fingerprint is added.
    """
    about = about | {"sha256": fingerprint(state, about)}
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    content = {"model": arrays, "__author__": AUTHOR, "matching_heuristics": False, WEIGHTS_KEY: about}
    with path.open("wb") as stream:
        pickle.dump(content, stream, protocol=4)


def _safetensors(state: dict[str, Tensor], about: dict[str, Any], path: Path) -> None:
    """Write the tensors as `transformers` and timm read them, and the rest, with a fingerprint, as metadata."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    about = about | {"sha256": fingerprint(state, about)}
    path.touch()
    mode = path.stat().st_mode  # as of any new file; safetensors makes one that only its owner can read
    try:
        save_file(state, path, {"format": "pt", WEIGHTS_KEY: json.dumps(about)})
    except SafetensorError as error:
        if number := re.search(r"os error (\d+)", str(error)):  # for example a full disk
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        raise
    path.chmod(mode)

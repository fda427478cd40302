"""Checkpoints on this machine: files, shards with their index, and folders."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from pixbench.errors import UserError
from pixbench.file_versions import CHECKPOINT_FILE
from transfer.weights.file_format import Pixels
from transfer.weights.sources.record import Source

INDEX = (".safetensors.index.json", ".bin.index.json")
WEIGHTS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".pkl", ".pth.tar")
PREFERRED = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Names that Hugging Face's libraries give to the weights of a model, in the order in which they look for them."""
DECLARATIONS = ("config.json", "preprocessor_config.json")
"""Files of Hugging Face that describe the network and its images."""
_BESIDE = re.compile(r"(optimizer|scheduler|scaler|sampler|training_args|rng_state|random_states)\w*\.\w+")
"""What trainers of Hugging Face write beside the weights, with the same endings."""
_SHARD = re.compile(r".+-\d{5}-of-(?!00001\.)\d{5}\.\w+")
_KEPT = re.compile(re.escape(Path(CHECKPOINT_FILE).stem) + r"_ep\d+\.pth")
"""Earlier checkpoints of a pre-training run."""
_DEEPSPEED = "_model_states.pt"
_LARGEST_JSON = 1 << 28


def exists(path: Path) -> bool:
    """Whether there is something at ``path``; False for a text that is no path."""
    try:
        return path.exists()
    except PermissionError:
        raise
    except (OSError, ValueError):  # longer than a path may be, or with a null byte
        return False


def from_file(name: str, file: Path) -> Source:
    """Return the source that ``name`` gives: one file, or the shards that it names."""
    # config.json describes the file beside it only if the file has the name that goes with it.
    beside = declared_in(file.parent) if file.name in PREFERRED else {}
    if not file.name.endswith(INDEX):
        return Source(name, (file,), **beside)
    index = read_index(file)
    shards = sorted(set(index.values()))
    if missing := [shard for shard in shards if not (file.parent / shard).is_file()]:
        raise UserError(
            f"{file} names the shard {missing[0]}, which is not beside it ({len(missing)} of {len(shards)} are missing); "
            "put all shards into the folder of the index"
        )
    return Source(name, tuple(file.parent / shard for shard in shards), index, **beside)


def in_folder(name: str, folder: Path) -> Source:
    """Return the one checkpoint in a folder; refuse a folder with several."""
    names = {entry.name for entry in folder.iterdir() if entry.is_file()}
    if not names.intersection(PREFERRED):
        if states := _deepspeed_states(folder, names):
            return Source(name, (states,))
        if ".metadata" in names:
            raise UserError(
                f"{folder} is a distributed checkpoint of PyTorch, whose tensors are cut over many files; convert it with "
                "torch.distributed.checkpoint.format_utils.dcp_to_torch_save(FOLDER, FILE) and name FILE"
            )
    return from_file(name, folder / choose(names, str(folder), f"{folder}{os.sep}"))


def _deepspeed_states(folder: Path, names: Collection[str]) -> Path | None:
    """Return the weights in a folder that DeepSpeed wrote, or None if it is no such folder.

    DeepSpeed writes one sub-folder for each checkpoint and its name into the file "latest". Lightning calls it "checkpoint".
    """
    inner = folder
    if not any(entry.endswith(_DEEPSPEED) for entry in names):
        tag = "checkpoint"
        if "latest" in names:
            with (folder / "latest").open("rb") as stream:
                tag = stream.read(256).decode(errors="replace").strip()
        inner = folder / tag
        if not tag or not is_inside(tag) or not exists(inner) or not inner.is_dir():
            return None
    states = sorted(entry.name for entry in inner.glob(f"*{_DEEPSPEED}"))
    if any(state.startswith("zero_pp_rank_") for state in states):
        raise UserError(
            f"{inner} is a checkpoint of DeepSpeed's ZeRO stage 3, which cuts all weights over its ranks; run the "
            "zero_to_fp32.py that DeepSpeed wrote beside it, and name the file that this writes"
        )
    if len(states) > 1:
        raise UserError(
            f"{inner} is a checkpoint of DeepSpeed that cuts the model over {len(states)} files ({states[0]}, ...); "
            "save the whole model to one file with the code that trained it"
        )
    return inner / states[0] if states else None


def choose(names: Collection[str], where: str, prefix: str) -> str:
    """Return the file with the weights among ``names``.

    Args:
        names: The files of a folder or of a repository, whose sub-folders count only if there is no weight file above them.
        where: What holds the files, for messages.
        prefix: What the user writes before the name of one of them.
    """
    for name in PREFERRED:
        if name in names:
            return name
    found = sorted(name for name in names if name.endswith(WEIGHTS) and not _is_beside(PurePosixPath(name).name))
    found = [name for name in found if "/" not in name] or found
    if len(found) == 1 and not _SHARD.fullmatch(found[0]):
        return found[0]
    if not found:
        raise UserError(f"{where} holds no weight file ({', '.join(WEIGHTS)}); name the file itself")
    if all(_SHARD.fullmatch(name) for name in found):
        indexes = [name for name in names if name.endswith(INDEX)]
        if len(indexes) == 1:
            return indexes[0]
        raise UserError(
            f"{where} holds shards ({found[0]}, ...) but "
            + ("several indexes; name one of them" if indexes else f"no index of them (*{INDEX[0]}); add it")
        )
    if CHECKPOINT_FILE in found and all(name == CHECKPOINT_FILE or _KEPT.fullmatch(name) for name in found):
        return CHECKPOINT_FILE  # the last checkpoint of a pre-training run
    listed = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
    raise UserError(f"{where} holds several weight files: {listed}; name one of them, for example {prefix}{found[-1]}")


def _is_beside(name: str) -> bool:
    return name.startswith(".") or _BESIDE.fullmatch(name) is not None


def is_inside(name: str) -> bool:
    """Return whether the relative path ``name`` cannot lead out of its folder, on any operating system."""
    path = PureWindowsPath(name)  # knows both separators
    return not path.drive and not path.root and ".." not in path.parts


def _read_json(file: Path) -> Any:
    if file.stat().st_size > _LARGEST_JSON:
        raise ValueError("it is too large")
    return json.loads(file.read_text(encoding="utf-8"))


def read_index(file: Path) -> dict[str, str]:
    """Return the file name of each tensor. The files need not exist."""
    try:
        index = _read_json(file)["weight_map"]
        if not isinstance(index, dict) or not index or not all(isinstance(shard, str) for shard in index.values()):
            raise ValueError('"weight_map" does not name a file for each tensor')
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        why = 'it has no "weight_map"' if isinstance(error, KeyError | TypeError) else error
        raise UserError(f"{file} is not a valid index of shards ({why}); download or write it again") from error
    for shard in index.values():
        if not is_inside(shard):
            raise UserError(
                f"{file} names the shard {shard!r}, which is outside its folder; use an index whose shards are beside it"
            )
    return index


def declared_in(folder: Path) -> dict[str, Any]:
    """Return what the files of Hugging Face in ``folder`` declare: "architecture", "config", "pixels", ... of a `Source`.

    timm writes both into config.json; transformers writes "architectures" there and the pixels into a file of their own.
    """
    config, images = (_read_declaration(folder / name) for name in DECLARATIONS)
    several, timm = config.get("architectures"), config.get("pretrained_cfg")
    names = (config.get("architecture"), several[0] if isinstance(several, list) and several else None)
    found: dict[str, Any] = {}
    if name := next((n for n in names if isinstance(n, str) and re.fullmatch(r"[\w.-]{1,100}", n)), None):
        found["architecture"] = name
    mean, std = images.get("image_mean"), images.get("image_std")
    if isinstance(timm, dict):
        mean, std = timm.get("mean"), timm.get("std")
    if pixels := pixels_of(mean, std):
        found["pixels"] = pixels
    if "model_type" in config:
        found["config"] = config
    if config.get("model_type") == "resnet":  # `transformers/models/resnet/configuration_resnet.py`
        found["backbone"] = {"stride_in_1x1": True} if config.get("downsample_in_bottleneck") is True else {}
        if config.get("downsample_in_first_stage"):
            found["other_network"] = "a stride in its first stage (downsample_in_first_stage)"
        elif config.get("hidden_act", "relu") != "relu":
            found["other_network"] = f"the activation {str(config['hidden_act'])[:40]}"
    return found


def pixels_of(mean: Any, std: Any) -> Pixels | None:
    """Return the pixels with a mean and a standard deviation of values from 0 to 1; None if these are no three numbers each."""
    both = [list(values) if isinstance(values, list | tuple) else [] for values in (mean, std)]
    if any(len(values) != 3 or not all(isinstance(v, float | int) and 0 <= v <= 1 for v in values) for values in both):
        return None
    mean, std = (tuple(round(255 * value, 6) for value in values) for values in both)
    return Pixels("RGB", mean, std) if min(std) > 0 else None


def _read_declaration(file: Path) -> dict[str, Any]:
    try:
        content = _read_json(file)
    except (OSError, ValueError, RecursionError):  # the weights can be read without it
        return {}
    return content if isinstance(content, dict) else {}

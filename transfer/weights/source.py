"""Where weights come from: a file, a folder, a repository of the Hugging Face hub, or a pretrained model of timm.

`locate` returns files on this machine and reads no weights. Files of the hub are kept in its own local cache, which is also
enough without network.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from pixbench.errors import UserError, did_you_mean
from pixbench.file_versions import CHECKPOINT_FILE

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

_INDEX = (".safetensors.index.json", ".bin.index.json")
_WEIGHTS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".pkl", ".pth.tar")
_PREFERRED = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Names that Hugging Face's libraries give to the weights of a model, in the order in which they look for them."""
_BESIDE = re.compile(r"(optimizer|scheduler|scaler|sampler|training_args|rng_state|random_states)\w*\.\w+")
"""What trainers of Hugging Face write beside the weights, with the same endings."""
_SHARD = re.compile(r".+-\d{5}-of-(?!00001\.)\d{5}\.\w+")
_KEPT = re.compile(re.escape(Path(CHECKPOINT_FILE).stem) + r"_ep\d+\.pth")
"""Earlier checkpoints of a pre-training run."""
_DEEPSPEED = "_model_states.pt"
_HUB = re.compile(r"hf:(\w[\w.-]*/\w[\w.-]*)(?:@([^:@\s]+))?(?::(\S.*))?", re.ASCII)
_LARGEST_JSON = 1 << 28


@dataclass(frozen=True)
class Source:
    """Files that together hold one checkpoint."""

    name: str
    """What the user gave, for messages and records: a path, "hf:org/name@revision:file", "timm:name"."""
    files: tuple[Path, ...]
    """Files on this machine: one, or several shards."""
    index: Mapping[str, str] | None = None
    """For shards: the name of each tensor and the name of its file, relative to the folder of the index."""
    architecture: str | None = None
    """What config.json or timm calls the network: "resnet50d", "ResNetForImageClassification"."""
    revision: str | None = None
    """Commit of a repository of the hub."""


def locate(source: str | PathLike[str]) -> Source:
    """Return the files that ``source`` names; files of the hub or of timm are downloaded if they are not in a cache.

    Args:
        source: A file, an index of shards, a folder with one checkpoint, "hf:org/name[@revision][:file]" or "timm:name".
            Something that exists under this path is never taken for one of the latter.

    Raises:
        UserError: There is no such file, the choice is ambiguous, or a file cannot be fetched.
    """
    name = os.fspath(source)
    path = _expanded(name)
    if name and _exists(path):
        return _in_folder(name, path) if path.is_dir() else _from_file(name, path)
    if name.startswith("hf:"):
        return _from_hub(name)
    if name.startswith("timm:"):
        return _from_timm(name)
    text = name.removeprefix("https://huggingface.co/")
    found = _HUB.fullmatch(f"hf:{text}")
    hint = ""
    if found and not found[1].endswith(_WEIGHTS) and not _exists(path.parent):
        hint = f", or write hf:{text} for a repository of the Hugging Face hub"
    raise UserError(f"there is no file {name or repr(name)}; check the path{hint}")


def _expanded(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:  # "~name" of nobody
        return Path(name)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        raise
    except (OSError, ValueError):  # longer than a path may be, or with a null byte
        return False


def _from_file(name: str, file: Path) -> Source:
    # config.json describes the file beside it only if the file has the name that goes with it.
    architecture = _architecture(file.with_name("config.json")) if file.name in _PREFERRED else None
    if not file.name.endswith(_INDEX):
        return Source(name, (file,), architecture=architecture)
    index = _read_index(file)
    shards = sorted(set(index.values()))
    if missing := [shard for shard in shards if not (file.parent / shard).is_file()]:
        raise UserError(
            f"{file} names the shard {missing[0]}, which is not beside it ({len(missing)} of {len(shards)} are missing); "
            "put all shards into the folder of the index"
        )
    return Source(name, tuple(file.parent / shard for shard in shards), index, architecture)


def _in_folder(name: str, folder: Path) -> Source:
    names = {entry.name for entry in folder.iterdir() if entry.is_file()}
    if not names.intersection(_PREFERRED):
        if states := _deepspeed_states(folder, names):
            return Source(name, (states,))
        if ".metadata" in names:
            raise UserError(
                f"{folder} is a distributed checkpoint of PyTorch, whose tensors are cut over many files; convert it with "
                "torch.distributed.checkpoint.format_utils.dcp_to_torch_save(FOLDER, FILE) and name FILE"
            )
    return _from_file(name, folder / _choose(names, str(folder), f"{folder}{os.sep}"))


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
        if not tag or not _is_inside(tag) or not _exists(inner) or not inner.is_dir():
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


def _choose(names: Collection[str], where: str, prefix: str) -> str:
    """Return the file with the weights among ``names``.

    Args:
        names: The files of a folder or of a repository, whose sub-folders count only if there is no weight file above them.
        where: What holds the files, for messages.
        prefix: What the user writes before the name of one of them.
    """
    for name in _PREFERRED:
        if name in names:
            return name
    found = sorted(name for name in names if name.endswith(_WEIGHTS) and not _is_beside(PurePosixPath(name).name))
    found = [name for name in found if "/" not in name] or found
    if len(found) == 1 and not _SHARD.fullmatch(found[0]):
        return found[0]
    if not found:
        raise UserError(f"{where} holds no weight file ({', '.join(_WEIGHTS)}); name the file itself")
    if all(_SHARD.fullmatch(name) for name in found):
        indexes = [name for name in names if name.endswith(_INDEX)]
        if len(indexes) == 1:
            return indexes[0]
        raise UserError(
            f"{where} holds shards ({found[0]}, ...) but "
            + ("several indexes; name one of them" if indexes else f"no index of them (*{_INDEX[0]}); add it")
        )
    if CHECKPOINT_FILE in found and all(name == CHECKPOINT_FILE or _KEPT.fullmatch(name) for name in found):
        return CHECKPOINT_FILE  # the last checkpoint of a pre-training run
    listed = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
    raise UserError(f"{where} holds several weight files: {listed}; name one of them, for example {prefix}{found[-1]}")


def _is_beside(name: str) -> bool:
    return name.startswith(".") or _BESIDE.fullmatch(name) is not None


def _is_inside(name: str) -> bool:
    """Return whether the relative path ``name`` cannot lead out of its folder, on any operating system."""
    path = PureWindowsPath(name)  # knows both separators
    return not path.drive and not path.root and ".." not in path.parts


def _read_json(file: Path) -> Any:
    if file.stat().st_size > _LARGEST_JSON:
        raise ValueError("it is too large")
    return json.loads(file.read_text(encoding="utf-8"))


def _read_index(file: Path) -> dict[str, str]:
    """Return the file name of each tensor. The files need not exist."""
    try:
        index = _read_json(file)["weight_map"]
        if not isinstance(index, dict) or not index or not all(isinstance(shard, str) for shard in index.values()):
            raise ValueError('"weight_map" does not name a file for each tensor')
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        why = 'it has no "weight_map"' if isinstance(error, KeyError | TypeError) else error
        raise UserError(f"{file} is not a valid index of shards ({why}); download or write it again") from error
    for shard in index.values():
        if not _is_inside(shard):
            raise UserError(
                f"{file} names the shard {shard!r}, which is outside its folder; use an index whose shards are beside it"
            )
    return index


def _architecture(config: Path) -> str | None:
    """Return the network that ``config`` declares: timm's "architecture", or the first of transformers' "architectures"."""
    try:
        content = _read_json(config)
    except (OSError, ValueError, RecursionError):  # the weights can be read without it
        return None
    content = content if isinstance(content, dict) else {}
    several = content.get("architectures")
    for value in (content.get("architecture"), several[0] if isinstance(several, list) and several else None):
        if isinstance(value, str) and re.fullmatch(r"[\w.-]{1,100}", value):
            return value
    return None


def _from_hub(name: str) -> Source:
    found = _HUB.fullmatch(name)
    if not found or not _is_inside(found[3] or ""):
        raise _malformed(name)
    return _Repository(name, found[1], found[2]).source([found[3]] if found[3] else [])


def _malformed(name: str) -> UserError:
    return UserError(
        f"{name} does not name a repository of the Hugging Face hub; write hf:ORGANISATION/NAME, and after it @REVISION, "
        ":FILE or @REVISION:FILE if needed"
    )


@dataclass(frozen=True)
class _Repository:
    """A repository of the hub, on the hub and in its local cache."""

    given: str
    """What the user gave."""
    name: str
    """"organisation/name"."""
    revision: str | None
    """Branch, tag or commit; None for the main branch."""

    def __str__(self) -> str:
        return f"the repository {self.name}" + (f" at {self.revision}" if self.revision else "")

    def source(self, wanted: list[str]) -> Source:
        """Return the first file of ``wanted`` that exists, with its shards; if ``wanted`` is empty, the one of the weights."""
        try:
            from huggingface_hub import HfApi, constants
        except ImportError as error:
            raise UserError(
                f"{self.given} needs the package huggingface_hub: pip install huggingface_hub, or download the file and "
                "give its path"
            ) from error
        api = HfApi()
        unreachable = cached = None
        only = wanted[0] if len(wanted) == 1 else None
        try:  # asked once, so that without network nobody waits for one file after another
            info = api.model_info(self.name, revision=self.revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
            names = {file.rfilename for file in info.siblings or ()}
        except Exception as error:  # of several libraries, which change with the version
            cached = self._cached()
            if cached is None:
                self._give_up(error, only)
            names = {file.relative_to(cached).as_posix() for file in cached.rglob("*") if file.is_file()}
            unreachable = error

        def fetch(file: str, revision: str | None) -> Path:
            if unreachable and file not in names:
                self._give_up(unreachable, file)
            if file not in names:
                raise UserError(f"{self} has no file {file}{did_you_mean(file, names)}; check the name")
            if cached:
                return cached / file
            try:
                return Path(api.hf_hub_download(self.name, file, revision=revision))
            except Exception as error:
                self._give_up(error, file)

        there = [file for file in wanted if file in names]
        if unreachable and not (there if wanted else any(file.endswith((*_WEIGHTS, *_INDEX)) for file in names)):
            self._give_up(unreachable, only)
        chosen = (there or wanted[-1:] or [_choose(names, str(self), f"{self.given}:")])[0]
        # By the revision, not yet by its commit: the cache then remembers the commit of the revision.
        file, folder = fetch(chosen, self.revision), PurePosixPath(chosen).parent
        commit = file.parents[chosen.count("/")].name  # the cache has one folder for each commit
        index, files = None, [file]
        if chosen.endswith(_INDEX):
            index = _read_index(file)
            files = [fetch(str(folder / shard), commit) for shard in sorted(set(index.values()))]
        config = str(folder / "config.json")
        architecture = _architecture(fetch(config, commit)) if config in names else None
        return Source(self.given, tuple(files), index, architecture, commit)

    def _cached(self) -> Path | None:
        """Return the folder of the local cache with the files of the revision that were fetched before."""
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError

        try:
            return Path(snapshot_download(self.name, revision=self.revision, local_files_only=True))
        except (OSError, HFValidationError) as error:
            # Not all files of the repository are there, but those that are needed may be.
            some = getattr(error, "snapshot_path", None)
            return Path(some) if some else None

    def _give_up(self, error: Exception, file: str | None) -> NoReturn:
        """Raise a `UserError` that says why ``file`` cannot be fetched. ``error`` is not quoted, as it may hold a token."""
        from huggingface_hub import errors

        if isinstance(error, OSError) and (error.filename or error.errno in (errno.ENOSPC, errno.EDQUOT)):
            raise error  # of this machine's disk
        if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
            error = error.__cause__
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, errors.HFValidationError):
            raise _malformed(self.given) from error
        if isinstance(error, errors.GatedRepoError):
            why = (
                f"{self.name} is open only to those whom its owner admits; ask for access at "
                f"https://huggingface.co/{self.name}, then run `hf auth login`"
            )
        elif isinstance(error, errors.RepositoryNotFoundError):
            why = (
                f"the Hugging Face hub has no repository {self.name}, or it is private; check the name, or run "
                "`hf auth login` with an account that may read it"
            )
        elif isinstance(error, errors.RevisionNotFoundError):
            why = f"the repository {self.name} has no revision {self.revision}; check the branch, tag or commit"
        elif status == 401:
            why = (
                f"the Hugging Face hub refuses your token, so {self.name} cannot be fetched; run `hf auth login`, "
                "or unset HF_TOKEN"
            )
        else:
            words = ["hf download", self.name, file, self.revision and f"--revision {self.revision}"]
            why = (
                f"{file or 'the weights'} of {self} cannot be fetched ({_cause(error, status)}), nor found in the local "
                f"cache; run `{' '.join(filter(None, words))} --local-dir FOLDER` on a machine with network and give the "
                "path of what it wrote"
            )
        raise UserError(why) from error


def _cause(error: Exception, status: int | None) -> str:
    kind = type(error).__name__
    if kind == "OfflineModeIsEnabled":
        return "HF_HUB_OFFLINE is set"
    if status:
        return f"the hub answered {status}"
    return "no answer in time" if "Timeout" in kind else "no connection" if "Connect" in kind else kind


def _from_timm(name: str) -> Source:
    """Return the file of a pretrained model of timm, from where timm itself would take it."""
    try:
        import timm
    except ImportError as error:
        raise UserError(f"{name} needs the package timm: pip install timm") from error
    model = name.removeprefix("timm:")
    try:
        config = timm.models.get_pretrained_cfg(model)
    except RuntimeError:  # the network is known, but not the tag after the dot
        config = None
    if config is None or not config.has_weights:
        now = timm.models.get_deprecated_models().get(model)
        hint = f"; it is called {now} now" if now else did_you_mean(model, timm.list_models(pretrained=True))
        raise UserError(
            f"timm has no pretrained model {model!r}{hint}; timm.list_models(pretrained=True) lists them all"
        )
    return replace(_of_config(name, config), architecture=model.partition(".")[0])


def _of_config(name: str, config: PretrainedCfg) -> Source:
    import torch

    if config.file:
        return Source(name, (Path(config.file),))
    address, file = config.url if isinstance(config.url, tuple) else (config.url or "", "")
    path = Path(torch.hub.get_dir(), "checkpoints", file or os.path.basename(urlsplit(address).path))
    if config.hf_hub_id:
        repository, _, revision = config.hf_hub_id.partition("@")
        weights = config.hf_hub_filename or "pytorch_model.bin"
        safe = weights.replace("pytorch_model.bin", "model.safetensors").replace(".bin", ".safetensors")
        try:
            return _Repository(name, repository, revision or None).source(list(dict.fromkeys([safe, weights])))
        except UserError:
            if not path.is_file():  # as older timm kept it
                raise
    if not path.is_file():
        digest = torch.hub.HASH_REGEX.search(path.name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(address, str(path), digest and digest[1], progress=False)
        except (OSError, RuntimeError) as error:  # RuntimeError: the bytes do not have the digest in the name
            raise UserError(
                f"{address} cannot be downloaded ({error}); download it on another machine and put it at {path}"
            ) from error
    return Source(name, (path,))

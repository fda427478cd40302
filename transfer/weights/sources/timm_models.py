"""Pretrained models of timm, by their names."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pixbench.errors import UserError, did_you_mean
from transfer.weights.sources.folders import pixels_of
from transfer.weights.sources.hub import Repository
from transfer.weights.sources.record import Source

if TYPE_CHECKING:
    from timm.models import PretrainedCfg


def from_timm(name: str) -> Source:
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
    pixels = pixels_of(config.mean, config.std)
    return replace(_of_config(name, config), architecture=model.partition(".")[0], pixels=pixels)


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
            return Repository(name, repository, revision or None).source(list(dict.fromkeys([safe, weights])))
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

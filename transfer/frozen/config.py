"""The config of a frozen protocol: what is evaluated, on which images, with which settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import msgspec
import yaml

from pixbench.errors import UserError, did_you_mean
from transfer.frozen.methods import METHODS
from transfer.frozen.views import Images, need_whole_maps
from transfer.job import TransferJob
from transfer.protocols import Protocol, leaves


@dataclass(frozen=True)
class FrozenConfig:
    """A resolved config."""

    method: str
    """A key of `METHODS`."""
    images: Images
    settings: Any
    """The ``Settings`` of the method."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data; tuples become lists."""
        found = msgspec.json.decode(msgspec.json.encode(asdict(self)))
        assert isinstance(found, dict)
        return found


def published(protocol: Protocol) -> FrozenConfig:
    """Return the config file of ``protocol``, with the defaults of what it leaves out."""
    content = yaml.safe_load(protocol.config.read_text(encoding="utf-8"))
    return _converted(content, str(protocol.config))


def resolve(job: TransferJob) -> FrozenConfig:
    """Return the config of ``job``: the published one with its overrides.

    Raises:
        UserError: an override has an unknown key or a value that is not possible.
    """
    content = published(job.protocol).as_dict()
    known = dict(leaves(content))
    for key, value in job.all_overrides.items():
        if key not in known or key == "method":
            raise UserError(f"override {key!r} is not in the protocol's config{did_you_mean(key, known)}")
        *above, last = key.split(".")
        node = content
        for name in above:
            node = node[name]
        node[last] = value
    return _converted(content, f"{job.protocol.name} with its overrides")


def _converted(content: dict[str, Any], where: str) -> FrozenConfig:
    method = METHODS[content["method"]]
    try:
        images = msgspec.convert(content.get("images", {}), Images)
        settings = msgspec.convert(content.get("settings", {}), method.Settings)
    except (msgspec.ValidationError, ValueError) as error:
        raise UserError(f"{where}: {error}") from error
    if not getattr(method, "POOLED", False):
        need_whole_maps(images)
    elif not images.pool:
        raise UserError(f"{where}: images.pool is false, but this method reads averaged features; set it to true")
    return FrozenConfig(content["method"], images, settings)

"""The config of a frozen protocol: what is evaluated, on which images, with which settings."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import yaml

from pixbench.errors import UserError, did_you_mean
from transfer.frozen.effects import refuse_without_effect, without_effect
from transfer.frozen.methods import METHODS
from transfer.frozen.views import Images, need_whole_maps
from transfer.job import TransferJob
from transfer.protocols import Protocol, leaves
from transfer.weights.spec import Spec


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

    def without_effect(self, spec: Spec | None = None) -> dict[str, str]:
        """Return the keys that have no effect, each with the reason; more of them if the backbone is known."""
        return without_effect(self.method, self.images, self.settings, spec)


def published(protocol: Protocol) -> FrozenConfig:
    """Return the config file of ``protocol``, with the defaults of what it leaves out."""
    content = yaml.safe_load(protocol.config.read_text(encoding="utf-8"))
    return _converted(content, str(protocol.config))


def resolve(job: TransferJob, spec: Spec | None = None) -> FrozenConfig:
    """Return the config of ``job``: the published one with its overrides.

    Args:
        job: the job.
        spec: what its backbone is, if it is known: some settings have no effect on some backbones.

    Raises:
        UserError: an override has an unknown key, a value that is not possible, or no effect.
    """
    content = published(job.protocol).as_dict()
    known = dict(leaves(content))
    for key, value in job.all_overrides.items():
        if key not in known or key == "method":
            raise UserError(f"{job.protocol.name} has no setting {key!r}{did_you_mean(key, known)}")
        *above, last = key.split(".")
        node = content
        for name in above:
            node = node[name]
        node[last] = value
    config = _converted(content, f"{job.protocol.name} with its overrides")
    refuse_without_effect(job, known, config.without_effect(spec))
    return config


def _converted(content: dict[str, Any], where: str) -> FrozenConfig:
    method = METHODS[content["method"]]
    images = _part(content, "images", Images, where)
    settings = _part(content, "settings", method.Settings, where)
    if not getattr(method, "POOLED", False):
        need_whole_maps(images, where)
    elif not images.pool:
        raise UserError(f"{where}: images.pool is false, but this method reads averaged features; set it to true")
    return FrozenConfig(content["method"], images, settings)


def _part(content: dict[str, Any], name: str, kind: Any, where: str) -> Any:
    """Return one part of a config as a dataclass ``kind``."""
    values = content.get(name, {})
    try:
        return msgspec.convert(values, kind)
    except (msgspec.ValidationError, ValueError) as error:
        said = str(error)
        # of a value of another type, it speaks of types, which is for programmers
        if place := re.search(r" - at `\$\.(\w+)", said):
            key = place[1]
            shown = json.dumps(values[key], default=str)
            said = f"{name}.{key} {shown} is not possible; give {_possible(get_type_hints(kind)[key])}"
        raise UserError(f"{where}: {said}") from error


_WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "a text", type(None): "null"}


def _possible(kind: Any) -> str:
    """Return what a value of the type ``kind`` may be, in words."""
    inner = get_args(kind)
    if get_origin(kind) is Literal:
        return " or ".join(map(str, inner))
    if get_origin(kind) is tuple:
        count = "" if Ellipsis in inner else f"{len(inner)} values, each "
        each = dict.fromkeys(_possible(one) for one in inner if one is not Ellipsis)
        return f"a list of {count or 'values, each '}{' or '.join(each)}"
    if get_origin(kind) is Union or inner:
        return " or ".join(map(_possible, inner))
    return _WORDS[kind]

"""Recognise the format of a file and assign its keys. Only keys are used.

A key belongs to the backbone, or is dropped for a reason that the format names, or is unknown, which is an error. So no key
is ever lost silently.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeGuard

from pixbench.errors import UserError, did_you_mean, listed
from transfer.weights.contents import Contents, Table, text_in
from transfer.weights.file_format import Format, Pixels, formats

_MOST_MODULES, _LONGEST = 100, 1000
"""Largest number of modules that a pre-training checkpoint declares, and of characters in one of their names."""


class Sorting(NamedTuple):
    """What each key of a table belongs to."""

    backbone: dict[str, str]
    """Key -> canonical name."""
    extras: dict[str, str]
    """Key -> name in the file's own naming."""
    dropped: dict[str, str]
    """Key -> reason."""
    unknown: list[str]
    last_norm: dict[str, str]
    """Key -> "weight" or "bias" of the last norm of a ViT, which is dropped, but which frozen evaluation reads."""


@dataclass(frozen=True)
class Match:
    """A format that a file fits, and the weights in the place where the format has them."""

    format: Format
    table: Table
    container: str

    def sort(self, branch: str) -> Sorting:
        """Assign every key of the table for ``branch``."""
        return self.sorted if branch == self.branch else _sort(self.table, self.format, branch)

    @property
    def in_place(self) -> bool:
        """Whether the weights are where the format has them."""
        return self.container in (*self.format.container, "")

    @cached_property
    def branch(self) -> str:
        """The first branch of the format that the file holds."""
        held = _branches_in(_rename(self.table.text, self.format), self.format)
        return held[0] if held else next(iter(self.format.branches))

    @cached_property
    def sorted(self) -> Sorting:
        """The keys as assigned for `branch`."""
        return _sort(self.table, self.format, self.branch)


def match(contents: Contents, fmt: Format) -> Match | None:
    """Return the match of ``contents`` with ``fmt``, or None if no container holds weights of these names.

    The containers of the format are tried first, then the file itself, then any other container if it is the only one.
    """
    fmt = _as_declared(_as_configured(fmt, contents), contents.value)
    for container in dict.fromkeys((*fmt.container, "")):
        if found := _match_in(contents, fmt, container):
            return found
    others = (_match_in(contents, fmt, place) for place in contents.containers if place not in (*fmt.container, ""))
    several = [found for found in others if found]
    return several[0] if len(several) == 1 else None


def _match_in(contents: Contents, fmt: Format, container: str) -> Match | None:
    alone = container not in fmt.container and fmt.weights_alone
    if not alone and _missing_beside(contents, fmt.beside):
        return None
    table = contents.table(container)
    return Match(fmt, table, container) if table.weights and _fits(table.text, fmt) else None


def _missing_beside(contents: Contents, beside: Mapping[str, str]) -> list[str]:
    held = contents.entries
    return [k for k, pattern in beside.items() if k not in held or not re.search(pattern, text_in(held[k]))]


def _as_configured(fmt: Format, contents: Contents) -> Format:
    """Return ``fmt`` with the strides and pixels that OpenMMLab's configuration says, which stands in "meta" in its files."""
    text = contents.configuration
    if re.search(r"style\W{1,5}caffe", text):
        fmt = replace(fmt, backbone=fmt.backbone | {"stride_in_1x1": True})
    mean, std = (_three_numbers(rf"\b{name}\W{{1,5}}([\d.]+)\W+([\d.]+)\W+([\d.]+)", text) for name in ("mean", "std"))
    if mean and std:
        order: Literal["RGB", "BGR"] = "BGR" if re.search(r"to_rgb\W{1,5}False", text) or mean[0] < mean[2] else "RGB"
        fmt = replace(fmt, pixels=Pixels(order, mean, std))
    return fmt


def _three_numbers(pattern: str, text: str) -> tuple[float, float, float] | None:
    found = re.search(pattern, text)
    try:
        return (float(found[1]), float(found[2]), float(found[3])) if found else None
    except ValueError:
        return None


def _fits(text: str, fmt: Format) -> bool:
    renamed = _rename(text, fmt)
    return bool(_branches_in(renamed, fmt)) and not _unmet(renamed, fmt)


def _branches_in(renamed: str, fmt: Format) -> list[str]:
    """Return the branches of which the keys hold the stem."""
    keys = set(renamed.split("\n"))
    return [branch for branch, prefix in fmt.branches.items() if fmt.names.held_in(keys, prefix)]


def has_stem(text: str, fmt: Format) -> bool:
    """Whether the keys in ``text``, one per line, hold the stem of one of the format's branches."""
    return bool(_branches_in(_rename(text, fmt), fmt))


def unmet(contents: Contents, text: str, fmt: Format) -> list[str]:
    """Return the conditions of a format that a file does not meet, each as a phrase that says what the format has."""
    beside = [f"an entry {key!r} beside the weights" for key in _missing_beside(contents, fmt.beside)]
    return beside + _unmet(_rename(text, fmt), fmt)


def _unmet(text: str, fmt: Format) -> list[str]:
    def has(pattern: str) -> bool:
        return re.search(rf"^(?:{pattern})$", text, re.MULTILINE) is not None

    lacking = [f"keys like {pattern}" for pattern in fmt.required if not has(pattern)]
    return lacking + [f"no keys like {pattern}" for pattern in fmt.forbidden if has(pattern)]


def _rename(keys: str, fmt: Format) -> str:
    for pattern, replacement in fmt.rename.items():
        keys = re.sub(pattern, replacement, keys, flags=re.MULTILINE)
    return keys


def _sort(table: Table, fmt: Format, branch: str) -> Sorting:
    result, patterns = Sorting({}, {}, {}, [], {}), {r: re.compile(pattern) for r, pattern in fmt.dropped.items()}
    norm = {f"{fmt.branches[branch]}norm.{leaf}": leaf for leaf in ("weight", "bias")} if fmt.naming == "vit" else {}
    for key, name in zip(table.weights, _rename(table.text, fmt).split("\n"), strict=True):
        owner, canonical = _backbone_of(name, fmt, branch)
        extra = {b: found for b, pattern in fmt.extras.items() if (found := re.fullmatch(pattern, name))}
        if owner == branch and canonical:
            result.backbone[key] = canonical
        elif owner:
            result.dropped[key] = f"{owner.replace('_', ' ')} backbone"
        elif branch in extra:
            result.extras[key] = extra[branch][extra[branch].re.groups]
        elif extra:
            result.dropped[key] = f"{next(iter(extra)).replace('_', ' ')} pyramid and head"
        elif reason := next((r for r, pattern in patterns.items() if pattern.fullmatch(name)), None):
            result.dropped[key] = reason
            result.last_norm.update({key: norm[name]} if name in norm else {})
        else:
            result.unknown.append(key)
    return result


def _backbone_of(name: str, fmt: Format, branch: str) -> tuple[str | None, str | None]:
    for owner in sorted(fmt.branches, key=lambda b: b != branch):
        prefix = fmt.branches[owner]
        if name.startswith(prefix) and (canonical := fmt.names.to_canonical(name.removeprefix(prefix))):
            return owner, canonical
    return None, None


def _as_declared(fmt: Format, content: Any) -> Format:
    """Return ``fmt`` with the modules that a pre-training checkpoint of this project declares to export and to leave behind.

    So a new method needs no change of `pixbench.yaml`, which only knows the names in checkpoints of version 1.
    """
    if fmt.name != "pixbench" or not isinstance(content, Mapping) or "exports" not in content:
        return fmt
    exports, left_behind = content["exports"], content.get("left_behind")
    if not _are_identifiers(exports) or not _are_identifiers(left_behind):
        return fmt
    if len(exports) + len(left_behind) > _MOST_MODULES or any(
        len(name) > _LONGEST for name in (*exports, *left_behind)
    ):
        raise UserError(
            f"the checkpoint declares more than {_MOST_MODULES} modules or a very long name; use another file"
        )
    if named_spec_in(content.get("backbone")):
        fmt = replace(fmt, naming="named")
    left_behind = [name for name in left_behind if name not in ("backbone", "momentum_encoder")]
    extras = "|".join(name for name in exports if name != "backbone")
    pattern = rf"((?:{extras})\..*)"
    return replace(
        fmt,
        rename={},  # these names are of version 1
        extras={"student": pattern, "momentum_encoder": rf"momentum_encoder\.{pattern}"} if extras else {},
        dropped=fmt.dropped | {name: rf"(momentum_encoder\.)?{name}(\..*)?" for name in left_behind},
    )


def named_spec_in(fields: Any) -> bool:
    """Whether ``fields`` are those of a `NamedSpec`."""
    return isinstance(fields, Mapping) and "name" in fields


def _are_identifiers(names: Any) -> TypeGuard[list[str]]:
    return isinstance(names, list) and all(isinstance(name, str) and name.isidentifier() for name in names)


def candidates(contents: Contents) -> list[Match]:
    """Return the formats that fit best.

    These are the ones without unknown keys if any, of these the ones with the weights where the format has them, and of these
    the ones with most conditions.
    """
    usual = [fmt for fmt in formats().values() if not fmt.on_request and not fmt.networks]
    found = [held for fmt in usual if (held := match(contents, fmt))]
    if deciding := [held for held in found if held.format.decides]:
        return deciding
    ranks = [(not held.sorted.unknown, held.in_place, held.format.conditions) for held in found]
    return [held for held, rank in zip(found, ranks, strict=True) if rank == max(ranks)]


def known_as(name: str) -> Format:
    """Return the format called ``name``; raise `UserError` if there is none."""
    known = formats()
    if name not in known:
        raise UserError(
            f"there is no format {name!r}{did_you_mean(name, known)} (known: {listed(known)}; all: `pixbench weights formats`)"
        )
    return known[name]


def wanted(contents: Contents, path: object, name: str) -> Match:
    """Return the match with the format that the user chose; raise `UserError` if there is no such format or it does not fit."""
    fmt = known_as(name)
    if held := match(contents, fmt):
        return held
    looks = titles(candidates(contents)) or "no known format"
    raise UserError(f"{path} is not of the format {name} ({fmt.title}); it looks like {looks}")


def titles(matches: list[Match]) -> str:
    """Return the names and titles of formats for a message."""
    return " or ".join(f"{held.format.name} ({held.format.title})" for held in matches)

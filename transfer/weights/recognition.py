"""Which format a file has, and which of its keys are the backbone's. Needs no PyTorch: only the keys are looked at.

A key of a file is of the backbone, or left out for a reason that the format names, or unknown, which is an error; so nothing
is ever lost without being named.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, TypeGuard

from pixbench.errors import UserError, did_you_mean, printable
from pretrain.models.backbone_spec import BLOCKS
from transfer.weights.containers import ABOUT
from transfer.weights.file_format import Format, formats
from transfer.weights.vit_spec import measure_vit

_MOST, _MOST_LETTERS, _LONGEST = 100_000, 1 << 23, 1000
"""Entries of a file, letters of all their names, letters of one."""


class Sorting(NamedTuple):
    """Where each key of a table goes."""

    backbone: dict[str, str]
    """Key -> canonical name."""
    extras: dict[str, str]
    """Key -> name in the file's own naming."""
    dropped: dict[str, str]
    """Key -> reason."""
    unknown: list[str]


class Table(NamedTuple):
    """The weights of a file."""

    weights: dict[str, Any]
    """By name, nested ones as "a/b"."""
    beside: list[str]
    """What else the file holds."""


def table(content: Any, fmt: Format, opened: dict[str, Any] | None = None) -> Table | None:
    """None if the weights are not where they should be, or if ``content`` is of another format.

    ``opened`` keeps what was looked at, for the next format to try.
    """
    opened = {} if opened is None else opened
    for path in dict.fromkeys((*fmt.container, "")):
        parts = path.split("/") if path else []
        if path not in opened:
            inner = content
            for part in parts:
                inner = inner.get(part) if isinstance(inner, Mapping) else None
            flat = _flatten(inner) if isinstance(inner, Mapping) else {}
            opened[path] = flat, _unwrap("\n".join(flat))
        flat, text = opened[path]
        alone = not path and "" not in fmt.container
        if flat and (alone or _stands_beside(content, fmt)) and _fits(text, fmt):
            others = [key for key in content if parts and key not in (parts[0], "_metadata", ABOUT)]
            return Table(flat, [printable(str(key)[:99]) for key in others])
    return None


def _flatten(inner: Mapping[Any, Any]) -> dict[str, Any]:
    """Entries by name, those of inner dicts as "a/b"; containers within containers can be made to seem endless."""
    flat: dict[str, Any] = {}
    levels, visits, letters = [(iter(inner.items()), "")], 0, 0
    while levels:
        entries, above = levels[-1]
        entry = next(entries, None)
        if entry is None:
            levels.pop()
            continue
        key, value = entry
        name = f"{above}{key}"
        if len(name) > _LONGEST or "\n" in name:
            raise UserError(
                f"the file holds a name of many letters or lines ({printable(name[:40])}...); use another one"
            )
        visits, letters = visits + 1, letters + len(name)
        if visits >= _MOST or letters > _MOST_LETTERS:
            raise UserError(f"the file holds {_MOST} entries or more, which no checkpoint does; use another one")
        if key in ("_metadata", ABOUT):  # PyTorch's own notes on a state dict, and ours
            continue
        if isinstance(value, dict) and value:
            levels.append((iter(value.items()), f"{name}/"))
        elif name in flat:
            raise UserError(
                f"the file holds two entries that are both called {name[:99]}; write it anew with one of them"
            )
        else:
            flat[name] = value
    return flat


def _stands_beside(content: Mapping[Any, Any], fmt: Format) -> bool:
    return all(key in content and re.search(pattern, _text(content[key])) for key, pattern in fmt.beside.items())


def _text(value: Any) -> str:
    """All that is text in ``value``, unless it is very much."""
    texts: list[str] = []
    parts, left = [value], 10_000
    while parts and left > 0:
        part, left = parts.pop(), left - 1
        if isinstance(part, str):
            texts.append(part)
            left -= len(part) // 1000
        elif isinstance(part, dict | list | tuple) and len(part) < left:
            parts += part.values() if isinstance(part, dict) else part
    return "\n".join(texts)


def _fits(text: str, fmt: Format) -> bool:
    """Whether keys, one a line, are of a file of this fmt."""
    text = _rename(text, fmt)
    keys = set(text.split("\n"))

    def has(pattern: str) -> bool:
        return re.search(rf"^(?:{pattern})$", text, re.MULTILINE) is not None

    stems = [f"{prefix}{name}.weight" for prefix in fmt.branches.values() for name in fmt.names.stem.values()]
    return not keys.isdisjoint(stems) and all(map(has, fmt.required)) and not any(map(has, fmt.forbidden))


def _unwrap(keys: str) -> str:
    """Keys, one a line, without what DistributedDataParallel and torch.compile put in front of every name."""
    return re.sub(r"(?:^|(?<=/))(?:module\.|_orig_mod\.)+", "", keys, flags=re.MULTILINE)


def _rename(keys: str, fmt: Format) -> str:
    for pattern, replacement in fmt.rename.items():
        keys = re.sub(pattern, replacement, keys, flags=re.MULTILINE)
    return keys


def sort(keys: Iterable[str], fmt: Format, branch: str) -> Sorting:
    """Every key to exactly one place."""
    result, patterns = Sorting({}, {}, {}, []), {r: re.compile(pattern) for r, pattern in fmt.dropped.items()}
    for key in keys:
        name = _rename(_unwrap(key), fmt)
        owner, canonical = _backbone_of(name, fmt, branch)
        extra = {b: match for b, pattern in fmt.extras.items() if (match := re.fullmatch(pattern, name))}
        if owner == branch and canonical:
            result.backbone[key] = canonical
        elif owner:
            result.dropped[key] = f"{owner} backbone"
        elif branch in extra:
            result.extras[key] = extra[branch][extra[branch].re.groups]
        elif extra:
            result.dropped[key] = f"{next(iter(extra))} pyramid and head"
        elif reason := next((r for r, pattern in patterns.items() if pattern.fullmatch(name)), None):
            result.dropped[key] = reason
        else:
            result.unknown.append(key)
    return result


def _backbone_of(name: str, fmt: Format, branch: str) -> tuple[str | None, str | None]:
    for owner in sorted(fmt.branches, key=lambda b: b != branch):
        prefix = fmt.branches[owner]
        if name.startswith(prefix) and (canonical := fmt.names.to_canonical(name.removeprefix(prefix))):
            return owner, canonical
    return None, None


def as_declared(fmt: Format, content: Any) -> Format:
    """Return ``fmt`` completed by what a pre-training checkpoint of this project declares: what it exports and leaves behind.

    Methods with heads of any name can so be converted; `pixbench.yaml` knows the names of version 1 only.
    """
    if fmt is not formats()["pixbench"] or not isinstance(content, Mapping) or "exports" not in content:
        return fmt
    exports, left_behind = content["exports"], content.get("left_behind")
    if not _are_identifiers(exports) or not _are_identifiers(left_behind):
        return fmt
    extras = "|".join(name for name in exports if name != "backbone")
    pattern = rf"((?:{extras})\..*)"
    return replace(
        fmt,
        extras={"student": pattern, "momentum_encoder": rf"momentum_encoder\.{pattern}"} if extras else {},
        dropped=fmt.dropped | {name: rf"(momentum_encoder\.)?{name}(\..*)?" for name in left_behind},
    )


def _are_identifiers(names: Any) -> TypeGuard[list[str]]:
    return isinstance(names, list) and all(isinstance(name, str) and name.isidentifier() for name in names)


def candidates(content: Any) -> list[str]:
    """Formats that a file may be of, only the best: no unknown keys before some, then the one that asks for most."""
    opened: dict[str, Any] = {}
    ranks: dict[str, tuple[bool, int]] = {}
    for name, fmt in formats().items():
        fmt = as_declared(fmt, content)
        if held := table(content, fmt, opened):
            unknown = sort(held.weights, fmt, next(iter(fmt.branches))).unknown
            ranks[name] = not unknown, fmt.conditions
    return [name for name, rank in ranks.items() if rank == max(ranks.values())]


def recognise(content: Any, path: object, wanted: str | None = None) -> str:
    """Name of the format of ``content``; of ``wanted``, if the user forces one, which must then be possible."""
    known, names = formats(), candidates(content)
    if wanted is not None and wanted not in known:
        raise UserError(f"there is no format {wanted!r}{did_you_mean(wanted, known)}; known: {', '.join(known)}")
    looks = " or ".join(f"a {known[name].title} ({name})" for name in names)
    if wanted is not None:
        if table(content, known[wanted]):
            return wanted
        raise UserError(f"{path} is not a {known[wanted].title}; it looks like {looks or 'nothing known'}")
    if len(names) > 1:
        raise UserError(f"{path} may be {looks}, and its keys do not tell which; say so with --from")
    if names:
        return names[0]
    what = f"it holds a {type(content).__name__}"
    if isinstance(content, Mapping):
        what = f"its keys begin with {', '.join(str(key)[:99] for key in list(content)[:8]) or 'none'}"
    raise UserError(f"{path} is of no known format ({what}); docs/weights.md says which are known")


_WIDEST = 4096
"""Channels of a stem; 64 times what there is."""


def measure(shapes: Mapping[str, tuple[int, ...]], source: str) -> dict[str, Any]:
    """Fields of the `BackboneSpec` (or `VitSpec`) that weights of these canonical names and shapes tell: depth, width and stem."""
    if "patch_embed.proj.weight" in shapes:
        return measure_vit(shapes, source)
    deep = "stem.6.weight" in shapes
    last = "stem.6.weight" if deep else "conv1.weight"
    stem = shapes.get(last, ())
    if len(stem) != 4 or not all(stem) or stem[0] > _WIDEST:
        raise UserError(f"{source} holds no ResNet backbone: {last}, its stem, is not there or is no 4-D kernel")
    blocks = {match[0] for name in shapes if (match := re.match(r"layer[1-4]\.\d+\.", name))}
    per_stage = Counter(block[len("layer")] for block in blocks)
    counts = tuple(per_stage[stage] for stage in "1234")
    depth = next((depth for depth, known in BLOCKS.items() if known == counts), None)
    if depth is None or not any(name.endswith(".conv3.weight") for name in shapes):
        raise UserError(
            f"{source} holds stages of {counts} blocks, which is no bottleneck ResNet-{'/'.join(map(str, BLOCKS))}; "
            "other backbones cannot be converted"
        )
    return {"depth": depth, "width": stem[0] / 64, "stem": "deep" if deep else "7x7"}

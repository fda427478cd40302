"""Recognise the format of a file and assign its keys. Only keys and shapes are used; needs no PyTorch.

A key belongs to the backbone, or is dropped for a reason that the format names, or is unknown, which is an error. So no key
is ever lost silently.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, TypeGuard

from pixbench.errors import UserError, did_you_mean, printable
from pixbench.file_versions import WEIGHTS_KEY
from pretrain.models.backbone_spec import BLOCKS
from transfer.weights.file_format import Format, formats
from transfer.weights.vit_spec import measure_vit

_MOST, _MOST_LETTERS, _LONGEST, _MOST_MODULES = 100_000, 1 << 23, 1000, 100
"""Largest number of entries of a file, of characters in all their names, and of characters in one name."""


class Sorting(NamedTuple):
    """What each key of a table belongs to."""

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
    """Weights by name; nested names are joined as "a/b"."""
    beside: list[str]
    """Other entries of the file."""


def table(content: Any, fmt: Format, opened: dict[str, Any] | None = None) -> Table | None:
    """Return the weights in ``content``, or None if they are not in the expected place or do not fit the format.

    ``opened`` caches the flattened containers, so that they can be used for other formats.
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
        alone = not path and "" not in fmt.container and fmt.weights_alone
        if flat and (alone or _stands_beside(content, fmt)) and _fits(text, fmt):
            others = [key for key in content if parts and key not in (parts[0], "_metadata", WEIGHTS_KEY)]
            return Table(flat, [printable(str(key)[:99]) for key in others])
    return None


def _flatten(inner: Mapping[Any, Any]) -> dict[str, Any]:
    """Return all entries by name; those of inner dicts are called "a/b".

    The number of entries is limited, because a hostile file can nest its containers almost without end.
    """
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
                f"the file holds a name that is too long or has line breaks ({printable(name[:40])}...); use another file"
            )
        visits, letters = visits + 1, letters + len(name)
        if visits >= _MOST or letters > _MOST_LETTERS:
            raise UserError(f"the file holds {_MOST} entries or more, which no checkpoint does; use another file")
        if key in ("_metadata", WEIGHTS_KEY):  # metadata of PyTorch's state dicts and of PixBench's files
            continue
        if isinstance(value, dict) and value:
            levels.append((iter(value.items()), f"{name}/"))
        elif name in flat:
            raise UserError(
                f"the file holds two entries that are both called {name[:99]}; save it again with only one of them"
            )
        else:
            flat[name] = value
    return flat


def _stands_beside(content: Mapping[Any, Any], fmt: Format) -> bool:
    return all(key in content and re.search(pattern, _text(content[key])) for key, pattern in fmt.beside.items())


def _text(value: Any) -> str:
    """Return all text in ``value``, up to a limit, one string per line."""
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
    """Whether the keys in ``text``, one per line, fit the format."""
    text = _rename(text, fmt)
    keys = set(text.split("\n"))

    def has(pattern: str) -> bool:
        return re.search(rf"^(?:{pattern})$", text, re.MULTILINE) is not None

    stems = [f"{prefix}{name}.weight" for prefix in fmt.branches.values() for name in fmt.names.stem.values()]
    return not keys.isdisjoint(stems) and all(map(has, fmt.required)) and not any(map(has, fmt.forbidden))


def _unwrap(keys: str) -> str:
    """Remove the prefixes of DistributedDataParallel and torch.compile from ``keys``, one per line."""
    return re.sub(r"(?:^|(?<=/))(?:module\.|_orig_mod\.)+", "", keys, flags=re.MULTILINE)


def _rename(keys: str, fmt: Format) -> str:
    for pattern, replacement in fmt.rename.items():
        keys = re.sub(pattern, replacement, keys, flags=re.MULTILINE)
    return keys


def sort(keys: Iterable[str], fmt: Format, branch: str) -> Sorting:
    """Assign every key to exactly one part of the result."""
    result, patterns = Sorting({}, {}, {}, []), {r: re.compile(pattern) for r, pattern in fmt.dropped.items()}
    for key in keys:
        name = _rename(_unwrap(key), fmt)
        owner, canonical = _backbone_of(name, fmt, branch)
        extra = {b: match for b, pattern in fmt.extras.items() if (match := re.fullmatch(pattern, name))}
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
    """Return ``fmt`` with the modules that a pre-training checkpoint of this project declares to export and to leave behind.

    So a new method needs no change of `pixbench.yaml`, which only knows the names in checkpoints of version 1.
    """
    if fmt is not formats()["pixbench"] or not isinstance(content, Mapping) or "exports" not in content:
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
    left_behind = [name for name in left_behind if name not in ("backbone", "momentum_encoder")]
    extras = "|".join(name for name in exports if name != "backbone")
    pattern = rf"((?:{extras})\..*)"
    return replace(
        fmt,
        rename={},  # these names are of version 1
        extras={"student": pattern, "momentum_encoder": rf"momentum_encoder\.{pattern}"} if extras else {},
        dropped=fmt.dropped | {name: rf"(momentum_encoder\.)?{name}(\..*)?" for name in left_behind},
    )


def _are_identifiers(names: Any) -> TypeGuard[list[str]]:
    return isinstance(names, list) and all(isinstance(name, str) and name.isidentifier() for name in names)


def candidates(content: Any) -> list[str]:
    """Return the formats that fit best: those without unknown keys if any, and of these the ones with most conditions."""
    opened: dict[str, Any] = {}
    ranks: dict[str, tuple[bool, int]] = {}
    for name, fmt in formats().items():
        fmt = as_declared(fmt, content)
        if held := table(content, fmt, opened):
            unknown = sort(held.weights, fmt, next(iter(fmt.branches))).unknown
            ranks[name] = not unknown, fmt.conditions
    return [name for name, rank in ranks.items() if rank == max(ranks.values())]


def recognise(content: Any, path: object, wanted: str | None = None) -> str:
    """Return the name of the format of ``content``.

    Args:
        content: The content of the file.
        path: The file, for error messages.
        wanted: The format that the user chose, if any.

    Raises:
        UserError: If no format fits, more than one does, or ``wanted`` does not.
    """
    known, names = formats(), candidates(content)
    if wanted is not None and wanted not in known:
        raise UserError(f"there is no format {wanted!r}{did_you_mean(wanted, known)}; known: {', '.join(known)}")
    looks = " or ".join(f"{name} ({known[name].title})" for name in names)
    if wanted is not None:
        if table(content, known[wanted]):
            return wanted
        raise UserError(
            f"{path} is not of the format {wanted} ({known[wanted].title}); it looks like {looks or 'no known format'}"
        )
    if len(names) > 1:
        raise UserError(f"{path} may be of the format {looks}, and its keys do not show which one; choose with --from")
    if names:
        return names[0]
    what = f"it holds a {type(content).__name__}"
    if isinstance(content, Mapping):
        what = f"its keys begin with {', '.join(str(key)[:99] for key in list(content)[:8]) or 'none'}"
    raise UserError(f"{path} is of no known format ({what}); docs/weights.md lists the known formats")


_WIDEST = 4096
"""Largest number of channels of a stem; 64 times that of a common ResNet."""


def measure(shapes: Mapping[str, tuple[int, ...]], source: str) -> dict[str, Any]:
    """Return the fields of the `BackboneSpec` (depth, width, stem) or `VitSpec` that follow from canonical names and shapes."""
    if "patch_embed.proj.weight" in shapes:
        return measure_vit(shapes, source)
    deep = "stem.6.weight" in shapes
    last = "stem.6.weight" if deep else "conv1.weight"
    stem = shapes.get(last, ())
    if len(stem) != 4 or not all(stem) or stem[0] > _WIDEST:
        raise UserError(f"{source} holds no ResNet backbone: {last} (its stem) is missing or is not a 4-D kernel")
    blocks = {match[0] for name in shapes if (match := re.match(r"layer[1-4]\.\d+\.", name))}
    per_stage = Counter(block[len("layer")] for block in blocks)
    counts = tuple(per_stage[stage] for stage in "1234")
    depth = next((depth for depth, known in BLOCKS.items() if known == counts), None)
    if depth is None or not any(name.endswith(".conv3.weight") for name in shapes):
        raise UserError(
            f"{source} holds stages of {counts} blocks, so it is not a bottleneck ResNet-{'/'.join(map(str, BLOCKS))}; "
            "other ResNets cannot be converted"
        )
    return {"depth": depth, "width": stem[0] / 64, "stem": "deep" if deep else "7x7"}

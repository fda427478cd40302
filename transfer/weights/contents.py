"""The content of a file as tables of named weights, whatever containers and wrappers are around them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple

from pixbench.errors import UserError, printable
from pixbench.file_versions import WEIGHTS_KEY
from transfer.weights.stand_ins import Record, entries
from transfer.weights.tensors import is_tensor

_MOST, _MOST_LETTERS, _MOST_OTHERS, _LONGEST = 1_000_000, 1 << 26, 20_000, 1000
"""Largest number of entries of a file, of characters in all their names, of entries among which others than tensors are kept,
and of characters in one name."""
_WRAPPERS = re.compile(
    r"(?:(?<=[./])|(?<=^))(?:(?:module|_orig_mod|_fsdp_wrapped_module|_fpw_module|_checkpoint_wrapped_module|_forward_module)\.)+",
    re.MULTILINE,
)
"""What DistributedDataParallel, ``torch.compile``, FSDP, activation checkpointing and Lightning Fabric put into names."""
_AVERAGE, _PARTS = (
    {"ema", "avg", "average", "averaged", "swa", "shadow"},
    {*"state dict model net module network params weights encoder backbone".split()},
)
NOTES = ("_metadata", WEIGHTS_KEY)
"""Notes of PyTorch's state dicts and of PixBench's files, which are no weights."""


class Table(NamedTuple):
    """The weights in one container of a file."""

    weights: dict[str, Any]
    """Values by name without wrappers; names of nested dicts are joined as "a/b"."""
    written: dict[str, str]
    """The same names -> names as written in the file."""
    text: str
    """All names, one per line, for patterns."""


class Contents:
    """Everything in a file, flattened once, and its containers as parts of that."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.entries: Mapping[Any, Any] = entries(value) or {}
        self._tables: dict[str, Table] = {}

    def table(self, container: str = "") -> Table:
        """Return the weights in ``container`` ("model", "a/b"; "" for the whole file); empty if there is no such container."""
        if container not in self._tables:
            inside = (
                {n: value for n, value in self._flat.items() if n.startswith(f"{container}/")}
                if container
                else self._flat
            )
            self._tables[container] = _table(
                {name[len(container) + 1 if container else 0 :]: v for name, v in inside.items()}
            )
        return self._tables[container]

    @cached_property
    def _flat(self) -> dict[str, Any]:
        return _flatten(self.value)

    @cached_property
    def _held(self) -> list[str]:
        return list(
            dict.fromkeys(n.rpartition("/")[0] for n, value in self.table().weights.items() if is_tensor(value))
        )

    @property
    def containers(self) -> list[str]:
        """Names of the containers that hold tensors, except for averages of the weights; "" is the file itself."""
        return [container for container in self._held if container not in self.averages]

    @cached_property
    def configuration(self) -> str:
        """The text of the entry "meta", in which OpenMMLab's files have their configuration."""
        return text_in(self.entries.get("meta"))

    def is_network(self, container: str) -> bool:
        """Whether ``container`` is a network that was saved whole, not a dict of its weights."""
        held = self.value
        for part in container.split("/") if container else []:
            held = next((value for key, value in (entries(held) or {}).items() if str(key) == part), None)
        return isinstance(held, Record) and "_modules" in held.entries

    def beside(self, container: str) -> list[str]:
        """Return the names of the entries of the file beside ``container``, at every level above it."""
        found, above, held = [], "", self.entries
        for part in container.split("/") if container else []:
            found += [f"{above}{key}" for key in held if str(key) != part and key not in NOTES]
            above, held = f"{above}{part}/", next((entries(v) or {} for k, v in held.items() if str(k) == part), {})
        return [printable(name[:99]) for name in found]

    @property
    def is_swapped(self) -> bool:
        """Whether MMEngine's EMAHook wrote the file: the weights are then the average, and "ema_state_dict" the raw ones."""
        return "message_hub" in self.entries and "ema_state_dict" in self.entries

    @cached_property
    def averages(self) -> list[str]:
        """Names of the containers that hold a moving average of the weights, beside the weights themselves."""
        return [] if self.is_swapped else [name for name in self._held if any(map(_is_average, name.split("/")))]

    def averaged(self, path: object) -> Contents:
        """Return the same content with the moving average in the place of the weights."""
        if self.is_swapped:
            return self
        averages = self.averages
        if len(averages) != 1:
            raise UserError(
                f"{path} holds several moving averages of its weights ({', '.join(averages)}); choose one with --container"
                if averages
                else f"{path} holds no moving average of its weights; leave out --branch"
            )
        average: Any = self.value
        for part in averages[0].split("/"):
            average = next(value for key, value in (entries(average) or {}).items() if str(key) == part)
        weights = {name.split("/")[0] for name in self._held}
        others = {key: value for key, value in self.entries.items() if str(key) not in weights}
        raw = next((key for key in self.entries if str(key) in weights and _is_place(str(key))), "state_dict")
        return Contents(others | {raw: average})


def _is_average(key: str) -> bool:
    words = set(key.lower().split("_"))
    return bool(words & _AVERAGE) and words <= _AVERAGE | _PARTS


def _is_place(key: str) -> bool:
    return set(key.lower().split("_")) <= _PARTS


def _table(flat: dict[str, Any]) -> Table:
    if not flat:
        return Table({}, {}, "")
    names = unwrap("\n".join(flat)).split("\n")
    often = Counter(names)
    # two names that differ only in wrappers keep them, and so are reported as unknown
    pairs = {(name if often[name] == 1 else written): written for name, written in zip(names, flat, strict=True)}
    return Table({name: flat[written] for name, written in pairs.items()}, pairs, "\n".join(pairs))


def unwrap(names: str) -> str:
    """Remove the names of wrappers from ``names``, one per line."""
    return _WRAPPERS.sub("", names)


def _children(value: Any) -> tuple[Mapping[Any, Any], str] | None:
    """Return the entries of a container and what joins their names; a module that was pickled whole gives its weights."""
    if isinstance(value, Record) and isinstance(modules := value.entries.get("_modules"), dict):
        own = [value.entries.get(part) for part in ("_parameters", "_buffers")]
        parts = [part for part in (*own, modules) if isinstance(part, dict)]
        return {key: entry for part in parts for key, entry in part.items() if entry is not None}, "."
    if isinstance(value, list | tuple) and any(map(_holds_tensors, value)):
        return dict(enumerate(value)), "/"
    inner = entries(value)
    return (inner, "/") if inner else None


def _holds_tensors(value: Any, depth: int = 3) -> bool:
    """Whether a container holds a tensor at most ``depth`` levels below."""
    inner = entries(value) if depth else None
    return inner is not None and any(is_tensor(part) or _holds_tensors(part, depth - 1) for part in inner.values())


def _flatten(value: Any) -> dict[str, Any]:
    """Return all values by name; those of inner containers are called "a/b".

    The number of entries is limited, because a hostile file can nest its containers almost without end. A container within
    itself, as in configurations that know their parents, is passed over, and so is what has no proper name and is no tensor.
    """
    flat: dict[str, Any] = {}
    first = _children(value)
    levels: list[tuple[int, Iterator[tuple[Any, Any]], str, str]] = []
    if first is not None:
        levels.append((id(value), iter(first[0].items()), "", first[1]))
    visits = letters = 0
    while levels:
        _, items, above, join = levels[-1]
        entry = next(items, None)
        if entry is None:
            levels.pop()
            continue
        key, inner = entry
        if isinstance(key, str) and key in NOTES:
            continue
        name = f"{above}{str(key)[: _LONGEST + 1]}"
        visits, letters, children = visits + 1, letters + len(name), _children(inner)
        if visits >= _MOST or letters > _MOST_LETTERS:
            raise UserError(f"the file holds {_MOST} entries or more, or very long names; save its weights alone")
        if children is not None:
            if len(name) <= _LONGEST and all(id(inner) != level[0] for level in levels):
                levels.append((id(inner), iter(children[0].items()), f"{name}{join}", children[1]))
        elif (len(flat) >= _MOST_OTHERS or len(name) > _LONGEST or "\n" in name) and not is_tensor(inner):
            continue
        elif len(name) > _LONGEST or "\n" in name:
            raise UserError(
                f"the file holds a name that is too long or has line breaks ({printable(name[:40])}...); use another file"
            )
        elif name in flat:
            raise UserError(
                f"the file holds two entries that are both called {name[:99]}; save it again with only one of them"
            )
        else:
            flat[name] = inner
    return flat


def text_in(value: Any) -> str:
    """Return all text in ``value``, up to a limit, one string per line."""
    texts: list[str] = []
    parts, left = [value], 10_000
    while parts and left > 0:
        part, left = parts.pop(), left - 1
        inner = entries(part)
        if isinstance(part, str):
            texts.append(part)
            left -= len(part) // 1000
        elif inner is not None and len(inner) < left:
            parts += inner.values()
        elif isinstance(part, list | tuple) and len(part) < left:
            parts += part
    return "\n".join(texts)


def grouped(names: Iterable[str]) -> str:
    """Return names in few words: those that begin alike as one, "head.* (6)", as exactly as few groups allow."""
    parts = [re.split(r"(?<=[^/])\.", name) for name in names]
    for depth in range(max(map(len, parts), default=1), 0, -1):
        groups = Counter(".".join(part[:depth]) + (".*" if len(part) > depth else "") for part in parts)
        if len(groups) <= _FEW:
            break
    shown = [f"{printable(name)} ({n})" if n > 1 else printable(name) for name, n in list(groups.items())[:_FEW]]
    return ", ".join(shown) + (f" and {len(groups) - _FEW} more" if len(groups) > _FEW else "")


_FEW = 8
"""Largest number of groups of names in one line."""

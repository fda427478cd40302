"""Find every backbone in a file by its own names, whatever is around it: for files of no known format, and for ``--prefix``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pixbench.errors import UserError, an, printable
from pretrain.models.backbone_spec import BackboneSpec
from transfer.weights import other_networks, recognition
from transfer.weights.backbone import spec_of
from transfer.weights.contents import Contents, Table, unwrap
from transfer.weights.expected_shapes import expected
from transfer.weights.file_format import Format, formats
from transfer.weights.naming import COUNTER, NAMINGS, Naming, is_counter
from transfer.weights.recognition import Match
from transfer.weights.tensors import is_tensor

_FAMILIES = [name for name, names in NAMINGS.items() if name != "detectron2_c4" and names.stem]
"""Namings whose names all have the same prefix."""
NAME = "prefix"
"""Name of the format of a backbone that was chosen by its place."""
_HEADS = r"(fc|last_linear|heads?|classifier|logits|linear)(\..*)?"
_AROUND = rf"(.*\.)?(n_averaged|steps|{COUNTER})"
_FEW = 12


@dataclass(frozen=True)
class Inside:
    """A backbone inside a file, complete or not."""

    container: str
    prefix: str
    """What stands before its names in the container, without wrappers."""
    written: str
    """The same as written in the file."""
    family: str
    size: int
    """Number of its tensors."""
    title: str
    """Its spec in one phrase; empty if there is none."""
    problem: str
    """Why it cannot be taken; empty for a complete backbone."""
    lacking: int = 0
    """Number of tensors that it lacks."""

    @property
    def options(self) -> str:
        """The options that choose it."""
        named = {"--container": self.container, "--prefix": self.written}
        return (
            " ".join(f"{option} {printable(value) or chr(39) * 2}" for option, value in named.items() if value)
            or "--prefix ''"
        )

    def format(self, like: Format | None = None) -> Format:
        """Return a format for exactly this backbone, which leaves out all keys but those within the modules of the backbone.

        Args:
            like: Known format of such files, which says what no weight shows: strides, pixels, folded norms.
        """
        names = NAMINGS[self.family]
        modules = "|".join(map(re.escape, (*names.stem.values(), *names.stages.values(), *names.bare.values())))
        place = f"under {self.written!r}" if self.written else "without a prefix"
        return Format(
            name=NAME,
            title=f"backbone {place}" + (f" in {self.container!r}" if self.container else ""),
            source="",
            checked="generated file",
            naming=self.family,
            container=(self.container,),
            branches={"student": self.prefix},
            dropped={"beside the backbone": rf"(?!{re.escape(self.prefix)}(?:{modules})(?:\.|$)).*"},
            **({part: getattr(like, part) for part in ("folded", "backbone", "pixels", "grouped")} if like else {}),
        )

    def match(self, contents: Contents, like: Format | None = None) -> Match:
        """Return the match of the file with `format`."""
        return Match(self.format(like), contents.table(self.container), self.container)


def find(contents: Contents) -> list[Inside]:
    """Return all backbones in a file, complete ones first; of several families that fit the same place, the best."""
    table, found = contents.table(), dict[str, Inside]()
    tensors = {name: tuple(value.shape) for name, value in table.weights.items() if is_tensor(value)}
    for family in _FAMILIES:
        for place in _places(tensors, NAMINGS[family]):
            inside = _inspect(table, tensors, family, place)
            if place not in found or _rank(inside) < _rank(found[place]):
                found[place] = inside
    return sorted(found.values(), key=_rank)


def _rank(inside: Inside) -> tuple[bool, int]:
    return bool(inside.problem), inside.lacking


def _places(tensors: dict[str, tuple[int, ...]], names: Naming) -> Iterator[str]:
    """Yield what stands before the names of a stem that a first stage follows."""
    stems = tuple(f"{name}.weight" for name in (next(iter(names.stem.values())), names.stem.get("stem.0")) if name)
    stage = next(iter(names.stages.values()))
    for name, shape in tensors.items():
        stem = next((stem for stem in stems if name.endswith(stem)), None)
        if stem is None or len(shape) != 4:
            continue
        place = name.removesuffix(stem)
        if place[-1:] in ("", ".", "/") and any(other.startswith(f"{place}{stage}.0.") for other in tensors):
            yield place


def _inspect(table: Table, tensors: dict[str, tuple[int, ...]], family: str, place: str) -> Inside:
    names = NAMINGS[family]
    held = {n: shape for n, shape in tensors.items() if n.startswith(place)}
    shapes = {c: shape for n, shape in held.items() if (c := names.to_canonical(n.removeprefix(place)))}
    written = _as_written(table, place)
    container, _, prefix = place.rpartition("/")
    title, problem, lacking = "", "", 0
    try:
        spec = spec_of(shapes, "it")
        spec = replace(spec, avg_down=True) if names.averages and isinstance(spec, BackboneSpec) else spec
        title, wanted = spec.title, {n: s.shape for n, s in expected(spec).items() if not is_counter(n)}
        wrong = [
            f"{n} has the shape {shapes[n]}, not {wanted[n]}" for n in wanted if shapes.get(n, wanted[n]) != wanted[n]
        ]
        without = [n for n in wanted if n not in shapes]
        rest = [n.removeprefix(place) for n in held if not names.to_canonical(n.removeprefix(place))]
        if sign := other_networks.seen_in(rest):
            problem = f"it is a network with {sign}"
        elif without and not any(n.endswith(".running_mean") for n in shapes) and "patch" not in spec.as_dict():
            problem = "its norms have no running_mean: they are GroupNorm or another norm, not BatchNorm"
        elif wrong:
            problem = "; ".join(wrong[:3])
        elif without:
            problem = f"it lacks {', '.join(without[:4])}" + (
                f" and {len(without) - 4} more" if len(without) > 4 else ""
            )
        lacking = len(wrong) + len(without)
    except UserError as error:
        problem, lacking = str(error).replace("it holds", "it has", 1), 1000
    return Inside(container, prefix, written.rpartition("/")[2], family, len(shapes), title, problem, lacking)


def _as_written(table: Table, place: str) -> str:
    """Return ``place`` with the wrappers that stand in the file."""
    name = next(name for name in table.weights if name.startswith(place))
    written, rest = table.written[name], name.removeprefix(place)
    return written.removesuffix(rest) if written.endswith(rest) else place


def choose(
    contents: Contents, path: object, container: str | None, prefix: str | None, format_name: str | None = None
) -> Match:
    """Return the match with the backbone that the user chose by ``--container`` and ``--prefix``.

    What no weight shows is as in the known format whose backbone stands in the same place, or as in ``format_name``.
    """
    all_of_them = find(contents)
    plain = None if prefix is None else unwrap(prefix if not prefix or prefix.endswith(".") else f"{prefix}.")
    found = [
        inside
        for inside in all_of_them
        if (container is None or inside.container == container) and (plain is None or inside.prefix == plain)
    ]
    complete = [inside for inside in found if not inside.problem]
    asked = " ".join(f"--{k} {v!r}" for k, v in (("container", container), ("prefix", prefix)) if v is not None)
    if len(complete) == 1:
        return complete[0].match(contents, _like(complete[0], contents, path, format_name))
    if complete:
        raise UserError(
            f"{path} holds several complete backbones for {asked}; choose one of them:\n{listing(complete)}"
        )
    if found:
        raise UserError(f"{path} holds no backbone for {asked} that can be converted: {found[0].problem}")
    raise UserError(
        f"{path} holds no backbone for {asked}; it holds:\n{listing(all_of_them) or what_is_inside(contents)}"
    )


def _like(inside: Inside, contents: Contents, path: object, format_name: str | None) -> Format | None:
    """Return the known format with a backbone in the place of ``inside``, if there is one and no other means something else."""
    if format_name is not None:
        return recognition.known_as(format_name)
    held = [match.format for match in recognition.candidates(contents) if match.container == inside.container]
    alike = [f for f in held if inside.prefix in f.branches.values() and f.naming == inside.family]
    if any((f.backbone, f.pixels, f.folded) != (alike[0].backbone, alike[0].pixels, alike[0].folded) for f in alike):
        names = " or ".join(f"--from {f.name}" for f in alike)
        raise UserError(f"{path}: no key shows where its strides are and which pixels it takes; add {names}")
    return alike[0] if alike else None


def only_one(contents: Contents, path: object) -> Match | None:
    """Return the match with the only complete backbone of a file, if nothing but a classifier stands beside it."""
    complete = [inside for inside in find(contents) if not inside.problem]
    raw = [inside for inside in complete if inside.container not in contents.averages] or complete
    if len(raw) != 1:
        return None
    match = raw[0].match(contents)
    explained = re.compile(rf"{re.escape(raw[0].prefix)}{_HEADS}|{_AROUND}")
    if match.sorted.unknown or not all(map(explained.fullmatch, match.sorted.dropped)):
        return None
    return raw[0].match(contents, _like(raw[0], contents, path, None))


def listing(found: list[Inside]) -> str:
    """Return one line for each backbone: the options that choose it, what it is, and why it cannot be taken."""
    lines = []
    for inside in found:
        parts = [*([inside.title] if inside.title else []), f"{inside.size} tensors"]
        lines.append(f"  {inside.options}: {', '.join(parts)}" + (f"; {inside.problem}" if inside.problem else ""))
    return "\n".join(lines)


def what_is_inside(contents: Contents) -> str:
    """Return the containers of a file with the beginnings of their keys and numbers of tensors."""
    tensors = [name for name, value in contents.table().weights.items() if is_tensor(value)]
    if not tensors:
        held = [f"{printable(str(key)[:40])} ({type(v).__name__})" for key, v in list(contents.entries.items())[:_FEW]]
        return f"  no tensors: {', '.join(held) or f'only {an(type(contents.value).__name__)}'}"
    by_container: dict[str, list[str]] = {}
    for name in tensors:
        container, _, rest = contents.table().written[name].rpartition("/")
        by_container.setdefault(container, []).append(rest)
    lines = []
    for container, names in list(by_container.items())[:_FEW]:
        beginnings: dict[str, int] = {}
        for name in names:
            first = name.split(".")[0] + (".*" if "." in name else "")
            beginnings[first] = beginnings.get(first, 0) + 1
        shown = [f"{printable(first[:99])} ({number})" for first, number in list(beginnings.items())[:_FEW]]
        more = f" and {len(beginnings) - _FEW} more" if len(beginnings) > _FEW else ""
        lines.append(f"  {printable(container[:99]) + ': ' if container else ''}{', '.join(shown)}{more}")
    return "\n".join(lines)


def nearest(contents: Contents) -> tuple[Format, str] | None:
    """Return the format that a file fits except for few conditions, and what it lacks; None if no stem of any is there."""
    best: tuple[int, Format, str] | None = None
    for fmt in formats().values():
        for container in dict.fromkeys((*fmt.container, "")):
            text = contents.table(container).text
            if not text or not recognition.has_stem(text, fmt):
                continue
            lacks = recognition.unmet(contents, text, fmt)
            if lacks and (best is None or len(lacks) < best[0]):
                best = len(lacks), fmt, " and ".join(lacks)
    return (best[1], best[2]) if best else None


def no_format(contents: Contents, path: object, almost: list[Match]) -> UserError:
    """Return the error for a file that no format explains: what is inside, what comes nearest, and a way on.

    Args:
        contents: What the file holds.
        path: The file, for the message.
        almost: Formats that fit except for keys that they do not know.
    """
    holds = f"It holds:\n{what_is_inside(contents)}"
    if almost:
        unknown = [printable(almost[0].table.written[key][:200]) for key in almost[0].sorted.unknown]
        more = f" and {len(unknown) - _FEW} more" if len(unknown) > _FEW else ""
        parts = [
            f"{path} is most like the format {recognition.titles(almost)}, but holds keys that such a file does not have: "
            f"{len(unknown)} unknown ({', '.join(unknown[:_FEW])}{more}). They are never skipped in silence. {holds}"
        ]
    else:
        parts = [f"{path} is of no known format. {holds}"]
        if near := nearest(contents):
            parts.append(f"Nearest format: {near[0].name} ({near[0].title}), but such a file has {near[1]}.")
    if sign := other_networks.seen_in(contents.table().weights):
        parts.append(f"This is a network with {sign}, which is no network of a known format.")
    found = find(contents)
    complete = [inside for inside in found if not inside.problem]
    if complete:
        parts.append(
            f"Complete backbones in it, and the options that take them and name what they leave out:\n{listing(complete)}"
        )
    elif found:
        parts.append(f"No backbone in it is complete:\n{listing(found[:3])}")
    else:
        parts.append("No backbone was found in it; docs/weights.md lists the known formats.")
    if not complete:
        parts.append(
            "If it is a network of timm (DINOv2, DINOv3, ConvNeXt, Swin, ...), name it, for example "
            "--from timm:vit_small_patch14_dinov2; see docs/methods/backbones.md."
        )
    return UserError("\n".join(parts))

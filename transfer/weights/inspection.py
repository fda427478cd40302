"""Describe a weight file without reading its numbers, for `pixbench weights inspect`."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict
from os import PathLike
from typing import Any

from pixbench.errors import UserError, printable
from transfer.weights import by_name, discovery, files, known_networks, other_networks, recognition
from transfer.weights.contents import Contents
from transfer.weights.declarations import as_the_file_says, spec_in_file
from transfer.weights.file_format import formats
from transfer.weights.known_networks import Known
from transfer.weights.read_file import Choice, known_network, recognise
from transfer.weights.recognition import Match
from transfer.weights.sources import Source, locate
from transfer.weights.tensors import as_tensor, type_name

HEADERS = ("`--from`", "file", "backbones and their prefix", "left out on purpose", "source of the names (tested with)")


def inspect(
    source: str | PathLike[str],
    format_name: str | None = None,
    prefix: str | None = None,
    container: str | None = None,
) -> dict[str, Any]:
    """Return size and sha256 of a file, a description for each format that fits (usually one), and all backbones inside.

    The arguments after the first choose as for `transfer.weights.read`.
    """
    choice = Choice(None, format_name, prefix, container)
    located = locate(source)
    content, path = files.read_source(located, checked=False), located.name
    contents = Contents(content.value)
    found: list[discovery.Inside] = []
    if known := known_network(contents, located, choice):
        described = {known.format.name: _describe_known(contents, known, located, choice)}
    else:
        found = discovery.find(contents)
        matches = [] if choice != Choice() else recognition.candidates(contents)
        if matches and matches[0].sorted.unknown and (only := discovery.only_one(contents, path)):
            matches = [only]
        matches = matches or [recognise(contents, path, choice)]  # raises an error with the reason
        described = {match.format.name: _describe(contents, match, located, found) for match in matches}
    return {
        "file": path,
        "files": [str(file) for file in located.files],
        "bytes": located.size,
        "sha256": located.sha256,
        "formats": described,
        "backbones": [
            {"options": inside.options, "backbone": inside.title, "tensors": inside.size, "problem": inside.problem}
            for inside in found
        ],
        "averages": contents.averages,
        "objects": content.asked,
        "architecture": located.architecture or other_networks.declared_architecture(contents),
    }


def _describe_known(contents: Contents, known: Known, source: Source, choice: Choice) -> dict[str, Any]:
    """Describe a network of timm that was recognised. timm is not asked, because importing it takes seconds."""
    backbone: dict[str, Any] = {"title": known.spec.title, **known.spec.as_dict()}
    try:
        container, prefix = by_name.only(_places(contents, choice), source.name)
    except UserError as error:
        container, prefix = _places(contents, choice)[0]
        backbone = {"title": f"{known.spec.title}, which cannot be read: {error}"}
    tensors = {
        key: x for key, value in contents.table(container).weights.items() if (x := as_tensor(value)) is not None
    }
    names = [key.removeprefix(prefix) for key in tensors if key.startswith(prefix)]
    left = {
        "beside the backbone": len(tensors) - len(names),
        "classifier": sum(by_name.CLASSIFIER.fullmatch(name) is not None for name in names),
    }
    return {
        "title": known.format.title,
        "problem": "",
        "backbone": backbone,
        "branches": ["student"],
        "pixels": asdict(as_the_file_says(contents, known.format, known.spec, source)[1]),
        "types": dict(Counter(type_name(x) for key, x in tensors.items() if key.startswith(prefix))),
        "converted": len(names) - left["classifier"],
        "dropped": {reason: number for reason, number in left.items() if number},
        "unknown": [],
        "beside the weights": contents.beside(container),
        "notes": known_networks.notes(source, known.format),
    }


def _places(contents: Contents, choice: Choice) -> list[tuple[str, str]]:
    """Return the container and the prefix of each vision transformer that the file holds, or of those that the user chose."""
    places = contents.containers if choice.container is None else [choice.container]
    found = [
        (place, under) for place in places for under in dict.fromkeys(_PATCHES.findall(contents.table(place).text))
    ]
    prefix = choice.prefix and choice.prefix.removesuffix(".") + "."
    return [(place, under) for place, under in found if prefix in (None, under)]


_PATCHES = re.compile(r"^(.*?)(?:patch_embed|embeddings\.patch_embeddings)\.", re.MULTILINE)


def _describe(contents: Contents, match: Match, source: Source, inside: list[discovery.Inside]) -> dict[str, Any]:
    fmt, weights = match.format, match.table.weights
    branches = [branch for branch in fmt.branches if match.sort(branch).backbone]
    sorting = match.sort(branches[0])
    tensors = {name: t for key, name in sorting.backbone.items() if (t := as_tensor(weights[key])) is not None}
    pixels: Any = fmt.pixels
    try:
        spec, pixels = as_the_file_says(contents, fmt, spec_in_file(contents, fmt, tensors, source.name), source)
        backbone: dict[str, Any] = {"title": spec.title, **spec.as_dict()}
    except (UserError, TypeError, ValueError) as error:
        backbone = {"title": f"none that can be converted: {error}"}
    place = match.container, fmt.branches[branches[0]]
    return {
        "title": fmt.title,
        "problem": next((found.problem for found in inside if (found.container, found.prefix) == place), "")
        if not fmt.folded
        else "",
        "backbone": backbone,
        "branches": branches,
        "pixels": asdict(pixels),
        "types": dict(Counter(map(type_name, tensors.values()))),
        "converted": len(sorting.backbone) + len(sorting.extras),
        "dropped": dict(Counter(sorting.dropped.values())),
        "unknown": [match.table.written[key] for key in sorting.unknown],
        "beside the weights": contents.beside(match.container),
        "notes": [],
    }


def report(found: dict[str, Any]) -> str:
    """Return the text that the command prints."""
    lines = [f"file     {found['file']} ({found['bytes'] / 1e6:.1f} MB)"]
    lines += [f"         {file}" for file in found["files"] if file != found["file"]]
    lines.append(f"sha256   {found['sha256']}")
    for name, about in found["formats"].items():
        pixels = about["pixels"]
        numbers = [f"{about['converted']} of the backbone"]
        if about["dropped"]:
            dropped = ", ".join(f"{number} {reason}" for reason, number in about["dropped"].items())
            numbers.append(f"dropped: {dropped}")
        if about["problem"]:
            lines.append(f"refused  {about['problem']}")
        lines += [
            f"format   {name}: {about['title']}",
            f"backbone {about['backbone']['title']}",
            f"pixels   {pixels['order']}, mean {list(pixels['mean'])}, std {list(pixels['std'])}",
            f"branches {', '.join(about['branches'] + ['ema'] * bool(found['averages']))}",
            f"keys     {'; '.join(numbers)}",
        ]
        if about["unknown"]:
            lines.append(
                f"unknown  {len(about['unknown'])} keys, which `pixbench convert` refuses: "
                f"{', '.join(map(printable, about['unknown'][:_FEW]))}{_more(about['unknown'])}"
            )
        lines += [f"note     {note}" for note in about["notes"]]
        if about["beside the weights"]:
            lines.append(f"other    {', '.join(about['beside the weights'])}")
    if len(found["formats"]) > 1:
        lines.append("the keys do not show which of these formats it is; choose one with --from")
    whole = any(not about["problem"] and not about["unknown"] for about in found["formats"].values())
    for inside in found["backbones"]:
        if whole and inside["problem"]:  # a part of what the format takes
            continue
        title = f"{inside['backbone'] or 'no backbone'}, {inside['tensors']} tensors, by {inside['options']}"
        lines.append(f"inside   {title}" + (f"; {inside['problem']}" if inside["problem"] else ""))
    if found["averages"]:
        lines.append(f"average  {', '.join(found['averages'])}, by --branch ema")
    if found["architecture"]:
        lines.append(f"declared {found['architecture']}")
    if found["objects"]:
        named = ", ".join(map(printable, found["objects"][:_FEW]))
        lines.append(f"objects  {named}{_more(found['objects'])} (read as plain data, never run)")
    return "\n".join(lines)


_FEW = 6
"""Number of names that one line shows."""


def _more(names: list[str]) -> str:
    return f" and {len(names) - _FEW} more" if len(names) > _FEW else ""


def listing() -> str:
    """Return a Markdown table of all formats."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (HEADERS, ("---",) * len(HEADERS), *rows()))


def rows() -> list[tuple[str, ...]]:
    """Return one row of Markdown texts for each format, under `HEADERS`."""
    found: list[tuple[str, ...]] = []
    for name, fmt in sorted(formats().items()):
        prefixes = [f"{branch} `{prefix}`" if prefix else branch for branch, prefix in fmt.branches.items()]
        source = f"{fmt.source} ({fmt.checked})"
        found.append((f"`{name}`", fmt.title, ", ".join(prefixes), ", ".join(fmt.dropped) or "–", source))
    return found

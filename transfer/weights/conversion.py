"""Convert one file into another: read it, write a temporary file, verify that, and rename it to the output."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pixbench.errors import UserError
from pixbench.files import atomic_path, sha256, write_json
from pixbench.provenance import versions
from transfer.weights.backbone import Counts
from transfer.weights.contents import grouped
from transfer.weights.frameworks import express, find_framework
from transfer.weights.larger_patches import RESIZING
from transfer.weights.read_file import Reading, read
from transfer.weights.sources import Source, locate
from transfer.weights.write_file import check_suffix, write, write_config

if TYPE_CHECKING:
    from transfer.weights.models.parity import Parity


@dataclass(frozen=True)
class Conversion:
    """Result of one conversion, as stored in the record."""

    reading: Reading
    written: Counts
    parity: Parity | None
    """None if verification was skipped."""
    changes: tuple[str, ...]
    """What the framework needs otherwise than the source has it, one sentence each."""
    output: Path
    record: Path
    """JSON file next to the output: sha256 of both files, counts, differences."""
    usage: str
    """Lines of the framework's configuration or program that use the output."""


def convert(
    source: str | PathLike[str],
    output: str | PathLike[str],
    framework: str,
    branch: str | None = None,
    check_forward: bool = True,
    format_name: str | None = None,
    **place: str | None,
) -> Conversion:
    """Convert the backbone in ``source`` to a file for ``framework``. On any error, ``output`` and its record do not change.

    Args:
        source: Checkpoint of any known format.
        output: File to write; its suffix must be one that the framework reads.
        framework: Key of `FRAMEWORKS`.
        branch: Which backbone of the source to read, as for `read`.
        check_forward: Whether to run the output in the framework and compare its maps with ours.
        format_name: Format of the source, as for `read`.
        **place: ``prefix`` and ``container`` in the source, as for `read`.
    """
    output, located = Path(output), locate(source)
    record = output.with_name(output.name + ".json")
    for written_to in (output, record):
        if written_to.exists() and any(map(written_to.samefile, located.files)):
            raise UserError(f"{written_to} is the source and would be overwritten; choose another output")
        if written_to.is_dir():
            raise UserError(f"{written_to} is a folder and cannot be written as a file; choose another output")
    check_suffix(output, framework)
    digest = ThreadPoolExecutor(1).submit(lambda: located.sha256)  # beside the conversion; hashing leaves Python free
    reading = read(located, branch, format_name, **place)
    backbone = express(reading.backbone, framework)
    changes = (RESIZING,) if backbone.resized and not reading.backbone.resized else ()
    check_suffix(output, framework, backbone)
    with atomic_path(record) as record_part, atomic_path(output) as part:
        written = write(backbone, part, framework)
        if output.exists() and _equal(output, part):
            shutil.copyfile(output, part)  # the same bytes, by which runs that started from them identify their weights
        parity = None
        if check_forward:
            from transfer.weights.models.parity import prove_written  # needs the framework

            parity = prove_written(backbone, part, framework, reading)
            parity.require(output)
        write_json(
            record_part,
            _record(reading, changes, written, parity, located, digest.result(), sha256(part), output.name, framework),
        )
    write_config(backbone, output, framework)
    usage = find_framework(framework).usage(backbone, output)
    return Conversion(reading, written, parity, changes, output, record, usage)


def _equal(file: Path, other: Path) -> bool:
    """Return whether both files hold the same and nothing else, to the last bit of every tensor.

    Their bytes may still differ if an earlier version wrote one of them.
    """
    try:
        one, two = (read(path) for path in (file, other))
    except (UserError, OSError):
        return False
    if any(getattr(one, name) != getattr(two, name) for name in ("format", "counts", "beside")):
        return False
    old, new = one.backbone, two.backbone
    tensors, wanted = {**old.state, **old.extras}, {**new.state, **new.extras}
    alike = (old.spec, old.pixels, old.resized, tensors.keys()) == (new.spec, new.pixels, new.resized, wanted.keys())
    return alike and all(torch.equal(tensors[name], wanted[name]) for name in wanted)


def prove(
    source: str | PathLike[str],
    other: str | PathLike[str],
    branch: str | None = None,
    format_name: str | None = None,
    **place: str | None,
) -> tuple[Parity, Path | None, Reading]:
    """Compare the backbones in two files and write a record next to ``other``.

    Returns:
        The parity, whether or not the backbones agree; the path of the record, or None if it could not be written; and what
        was read of ``source``.
    """
    from transfer.weights.models.parity import verify

    located, other = locate(source), Path(other)
    reading = read(located, branch, format_name, **place)
    parity, record = verify(reading.backbone, other), other.with_name(other.name + ".verified.json")
    found = _record(
        reading, parity.changes, None, parity, located, located.sha256, sha256(other), other.name, parity.framework
    )
    try:
        write_json(record, found)
    except OSError:  # the folder may be read-only
        return parity, None, reading
    return parity, record, reading


def _record(
    reading: Reading,
    changes: tuple[str, ...],
    written: Counts | None,
    parity: Parity | None,
    source: Source,
    digest: str,
    output: str,
    name: str,
    framework: str | None,
) -> dict[str, Any]:
    return {
        "source": {
            "file": reading.backbone.source,
            "sha256": digest,
            "files": [file.name for file in source.files],
            "revision": source.revision,
            "format": reading.format,
            "branch": reading.branch,
            "backbone": reading.backbone.spec.as_dict(),
            "counts": reading.counts.as_dict(),
            "beside": reading.beside,
            "dropped": {reason: grouped(keys) for reason, keys in reading.dropped.items()},
            "architecture": reading.architecture,
            "pretraining": reading.backbone.pretraining,
        },
        "output": {
            "file": name,
            "sha256": output,
            "framework": framework,
            "changes": changes,
            "counts": written and written.as_dict(),
        },
        "parity": parity and parity.as_dict(),
        "versions": versions(),
    }

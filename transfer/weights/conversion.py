"""Convert one file into another: read it, write a temporary file, verify that, and rename it to the output."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pixbench.errors import UserError
from pixbench.files import atomic_path, sha256, write_json
from pixbench.results import versions
from transfer.weights.backbone import Counts
from transfer.weights.read_file import Reading, read_arrays
from transfer.weights.write_file import check_framework, write

if TYPE_CHECKING:
    from transfer.weights.models.parity import Parity


@dataclass(frozen=True)
class Conversion:
    """Result of one conversion, as stored in the record."""

    reading: Reading
    written: Counts
    parity: Parity | None
    """None if verification was skipped."""
    output: Path
    record: Path
    """JSON file next to the output: sha256 of both files, counts, differences."""


def convert(
    source: str | PathLike[str],
    output: str | PathLike[str],
    framework: str,
    branch: str | None = None,
    check_forward: bool = True,
    format_name: str | None = None,
) -> Conversion:
    """Convert the backbone in ``source`` to a file for ``framework``. On any error, ``output`` and its record do not change."""
    output = Path(output)
    record = output.with_name(output.name + ".json")
    for place in (output, record):
        if place.exists() and Path(source).exists() and place.samefile(source):
            raise UserError(f"{place} is the source and would be overwritten; choose another output")
        if place.is_dir():
            raise UserError(f"{place} is a folder and cannot be written as a file; choose another output")
    reading = read_arrays(source, branch, format_name)
    check_framework(reading.backbone, output, framework)
    with atomic_path(record) as record_part, atomic_path(output) as part:
        written = write(reading.backbone, part, framework)
        if output.exists() and _equal(output, part):
            shutil.copyfile(output, part)  # the same bytes, by which runs that started from them identify their weights
        parity = None
        if check_forward:
            from transfer.weights.models.parity import verify  # needs PyTorch and the framework

            parity = verify(reading.backbone, part, framework)
            parity.require(output)
        write_json(record_part, _record(reading, written, parity, sha256(source), sha256(part), output.name, framework))
    return Conversion(reading, written, parity, output, record)


def _equal(file: Path, other: Path) -> bool:
    """Return whether both files hold the same and nothing else, to the last bit of every tensor.

    Their bytes may still differ if an earlier version wrote one of them.
    """
    try:
        one, two = (read_arrays(path) for path in (file, other))
    except (UserError, OSError):
        return False
    old, new = one.backbone, two.backbone
    if (one.format, one.counts, one.beside, old.spec, old.pixels) != (
        two.format,
        two.counts,
        two.beside,
        new.spec,
        new.pixels,
    ):
        return False
    tensors, wanted = {**old.state, **old.extras}, {**new.state, **new.extras}
    return tensors.keys() == wanted.keys() and all(
        np.array_equal(np.asarray(tensors[name]), np.asarray(wanted[name])) for name in wanted
    )


def prove(
    source: str | PathLike[str], other: str | PathLike[str], branch: str | None = None, format_name: str | None = None
) -> tuple[Parity, Path | None]:
    """Compare the backbones in two files and write a record next to ``other``.

    Returns:
        The parity, whether or not the backbones agree, and the path of the record, or None if it could not be written.
    """
    from transfer.weights.models.parity import verify

    reading, other = read_arrays(source, branch, format_name), Path(other)
    parity, record = verify(reading.backbone, other), other.with_name(other.name + ".verified.json")
    found = _record(reading, None, parity, sha256(source), sha256(other), other.name, parity.framework)
    try:
        write_json(record, found)
    except OSError:  # the folder may be read-only
        return parity, None
    return parity, record


def _record(
    reading: Reading,
    written: Counts | None,
    parity: Parity | None,
    source: str,
    output: str,
    name: str,
    framework: str | None,
) -> dict[str, Any]:
    return {
        "source": {
            "file": reading.backbone.source,
            "sha256": source,
            "format": reading.format,
            "branch": reading.branch,
            "backbone": reading.backbone.spec.as_dict(),
            "counts": reading.counts.as_dict(),
            "beside": reading.beside,
        },
        "output": {"file": name, "sha256": output, "framework": framework, "counts": written and written.as_dict()},
        "parity": parity and parity.as_dict(),
        "versions": versions(),
    }

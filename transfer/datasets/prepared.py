"""What the check of a run's data left for the run: rank 0 writes it to the run folder, and every process reads it.

``RUN/data.json`` has the notes of the check. ``RUN/annotations`` has copies of annotation files
in which fields were filled in.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from pixbench.files import atomic_path, write_json
from transfer.datasets.check import Outcome
from transfer.datasets.coco_file import filled

FILE, FOLDER = "data.json", "annotations"


@dataclass(frozen=True)
class Prepared:
    """How the data of a run is read."""

    run_lengths: bool = False
    """Whether objects to train on have masks as run lengths."""
    copies: dict[str, str] = field(default_factory=dict)
    """Annotation file -> its copy without gaps."""


def prepare(out: Path, outcome: Outcome) -> None:
    """Write what a run in ``out`` needs to know of its data."""
    copies = {}
    for original in outcome.incomplete:
        copies[original] = str(out / FOLDER / Path(original).name)
        with atomic_path(out / FOLDER / Path(original).name) as part:
            part.write_text(json.dumps(filled(Path(original))), encoding="utf-8")
    write_json(out / FILE, {"notes": outcome.notes, "run_lengths": outcome.run_lengths, "copies": copies})


def prepared(out: Path) -> Prepared:
    """Return what `prepare` wrote to ``out``; nothing unusual if it did not."""
    try:
        content = json.loads((out / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Prepared()
    return Prepared(content["run_lengths"], content["copies"])

"""Check data sets completely before anything is trained on them: layout, every annotation, every picture that they name.

`configs/data.yaml` says for each part of a data set which of the readers `voc`, `coco`, `masks` and `polygons` checks it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pixbench.errors import UserError
from pixbench.file_versions import MINI_WORLD_FILE
from transfer.datasets import checked, coco, coco_file, masks, polygons, voc
from transfer.datasets.classes import Classes, published_classes
from transfer.datasets.layout import SETS, check_layout, home_of, names_of, picture_of, wanted_parts
from transfer.datasets.mask_numbers import SHOWN
from transfer.datasets.report import Report, one_line
from transfer.protocols import Protocol

OF_A_MINI_WORLD = "the pictures of a mini world, which are drawn, instead of the published ones"


@dataclass(frozen=True)
class Needs:
    """What a run needs of the annotations."""

    masks: bool = True
    """Whether each object needs a mask."""
    classes: Classes | None = None
    """A user's own classes, in place of the published ones."""


@dataclass
class Outcome:
    """What the check of one or several data sets found. It is plain data, except for the methods."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    run_lengths: bool = False
    """Whether objects to train on have masks as run lengths."""
    incomplete: list[str] = field(default_factory=list)
    """Annotation files of COCO's format with fields that have to be filled in (`transfer.datasets.coco_file.filled`)."""
    differs: list[str] = field(default_factory=list)
    """What makes the data another one than the published data of a protocol, one sentence each."""

    def add(self, other: Outcome) -> None:
        """Add the findings of another data set."""
        self.problems += [line for line in other.problems if line not in self.problems]
        self.notes += [line for line in other.notes if line not in self.notes]
        self.run_lengths |= other.run_lengths
        self.incomplete += other.incomplete
        self.differs += [line for line in other.differs if line not in self.differs]


def needs_of(protocol: Protocol, classes: Classes | None) -> Needs:
    """Return what a run of ``protocol`` needs."""
    return Needs(any(name.startswith("segm/") for name in protocol.metrics.values()), classes)


def check_dataset(
    data_root: Path, name: str, needs: Needs | None = None, thorough: bool = False, checksums: bool = False
) -> Outcome:
    """Check data set ``name`` (a key of `SETS`) below ``data_root``.

    Args:
        data_root: folder of all data sets.
        name: name of the data set.
        needs: what the annotations must have; default: everything that any protocol reads.
        thorough: whether to compare counts and sizes with the published ones.
        checksums: whether to compare checksums, which reads whole archives.
    """
    own = bool(needs and needs.classes)
    outcome = Outcome(check_layout(data_root, name, thorough, checksums, own))
    if outcome.problems:
        return outcome
    home, entry = home_of(data_root, name), SETS[name]
    ids: dict[str, Any] = {}
    seen: dict[str, set[Any]] = {"train": set(), "test": set()}
    parts = wanted_parts(home, name, own)
    outcome.notes += [
        f"{home / part['list']} is not there: nothing is read of it" for part in entry["parts"] if part not in parts
    ]
    for part in parts:
        if "check" not in part:
            continue
        try:
            report = READERS[part["check"]](home, part, _classes(entry, needs), needs or Needs())
        except OSError as error:
            where = error.filename or home
            outcome.problems.append(
                f"{where} cannot be read ({error.strerror or error}); check its owner and permissions"
            )
            continue
        if (found := report.facts.get("ids")) and ids.setdefault("first", found) != found:
            what = "its categories have other ids than those of the data set's other file"
            report.problem("ids", str(home / part["annotations"]), what, "give each category the same id in both")
        seen[part["split"]].update(report.facts.get("names", ()))
        outcome.add(_outcome(home, part, report))
    if both := seen["train"] & seen["test"]:
        first = one_line(min(map(str, both)))
        outcome.notes.append(
            f"{len(both):,} of {len(seen['test']):,} pictures for testing are called as one for training (for example {first}): "
            "if they are the same, the result says little"
        )
    return outcome


def require_datasets(
    data_root: Path, names: Iterable[str], needs: Needs | None = None, trust: bool = False, published: bool = False
) -> Outcome:
    """Check data sets and remember those that are fine.

    Args:
        data_root: folder of all data sets.
        names: keys of `SETS`.
        needs: what the annotations must have; default: everything that any protocol reads.
        trust: whether not to check what was checked before and has not changed since.
        published: whether they must be the published ones: with their counts and sizes, which a mini world need not have.

    Raises:
        UserError: there are problems; the message has a line for each.
    """
    mini = (data_root / MINI_WORLD_FILE).is_file()
    whole = Outcome(differs=[OF_A_MINI_WORLD] if published and mini else [])
    for name in names:
        home = home_of(data_root, name)
        about = (
            asdict(replace(needs, classes=None)) | {"classes": needs.classes and needs.classes.names} if needs else {}
        )
        if thorough := published and not mini:
            about |= {"published": True}
        known = checked.recall(home, SETS[name], about) if trust else None
        found = check_dataset(data_root, name, needs, thorough) if known is None else Outcome(**known)
        if not found.problems:
            checked.remember(home, SETS[name], about, asdict(found))
        whole.add(found)
    if whole.problems:
        raise UserError("\n  ".join(whole.problems))
    return whole


def can_have_own_classes(protocol: Protocol) -> bool:
    """Return whether ``protocol`` can run on a user's own classes."""
    entries = [SETS[name] for name in protocol.datasets]
    return all("classes" in entry and not any("keypoints" in part for part in entry["parts"]) for entry in entries)


def check_own_classes(protocol: Protocol) -> None:
    """Raise UserError if ``protocol`` cannot run on a user's own classes."""
    if not can_have_own_classes(protocol):
        raise UserError(
            f"{protocol.name} cannot run on classes of your own, because its evaluation knows only the published ones; choose a "
            "protocol on VOC, COCO, VOC12aug, ADE20K, or a semantic one on Cityscapes"
        )


def _classes(entry: dict[str, Any], needs: Needs | None) -> Classes | None:
    if needs and needs.classes:
        return needs.classes
    return published_classes(entry["classes"]) if "classes" in entry else None


def _outcome(home: Path, part: dict[str, Any], report: Report) -> Outcome:
    path = home / part.get("annotations", part.get("addresses", ""))
    notes, absent = report.notes, report.facts.get("absent", [])
    if absent:
        listed = ", ".join(absent[:SHOWN]) + (", …" if len(absent) > SHOWN else "")
        place = part.get("list") or path.name
        count = "1 class" if len(absent) == 1 else f"{len(absent):,} classes"
        so = "measure in {}, left out of the mean" if part["split"] == "test" else "learn in {}"
        notes.append(one_line(f"{count} without an object to {so.format(place)}: {listed}"))
    return Outcome(
        report.problems,
        notes,
        bool(report.counts["run lengths"]) and part["split"] == "train",
        [str(path)] if report.readings.keys() & coco_file.FILLED else [],
    )


def _voc(home: Path, part: dict[str, Any], classes: Classes | None, needs: Needs) -> Report:
    assert classes is not None
    report = voc.check(_pairs(home, part, part["files"]), classes, part["split"], str(home / part["list"]))
    report.facts["names"] = names_of(home, part)
    return report


def _pairs(home: Path, part: dict[str, Any], templates: Iterable[str]) -> list[Any]:
    """Return the paths of each name of ``part``, one for each of ``templates``."""
    return [tuple(home / template.format(name) for template in templates) for name in names_of(home, part)]


def _coco(home: Path, part: dict[str, Any], classes: Classes | None, needs: Needs) -> Report:
    lvis = "addresses" in part
    folder = home / part["files"][0].replace("{}", "")

    def picture(image: coco_file.Image) -> Path:
        return folder / ("/".join(image.coco_url.split("/")[-2:]) if lvis else image.file_name)

    keypoints = part.get("keypoints", False)
    reads = coco.Reads(classes, needs.masks and not keypoints, keypoints, lvis, part["split"])
    return coco.check(home / part["addresses" if lvis else "annotations"], picture, reads)


def _masks(home: Path, part: dict[str, Any], classes: Classes | None, needs: Needs) -> Report:
    assert classes is not None
    pairs = _pairs(home, part, (picture_of(part), part["files"][-1]))
    zero = part.get("zero_ignored", False)
    report = masks.check(pairs, classes, zero_ignored=zero, split=part["split"], title=_title(home, part))
    report.facts["names"] = names_of(home, part)
    return report


def _polygons(home: Path, part: dict[str, Any], classes: Classes | None, needs: Needs) -> Report:
    items = _pairs(home, part, (picture_of(part), *part["files"][:2]))
    return polygons.check(items, split=part["split"], title=_title(home, part))


def _title(home: Path, part: dict[str, Any]) -> str:
    return str(home / (part["list"] if "list" in part else part["files"][0].partition("{")[0]))


READERS: dict[str, Callable[[Path, dict[str, Any], Classes | None, Needs], Report]] = {
    "voc": _voc,
    "coco": _coco,
    "masks": _masks,
    "polygons": _polygons,
}

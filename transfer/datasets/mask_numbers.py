"""What the numbers in label maps stand for, and what all numbers of a split together show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pixbench.errors import UserError
from transfer.datasets.classes import Classes
from transfer.datasets.report import Report

IGNORED = 255
MOST = 254
"""Most classes of label maps with 8 bits: 255 is ignored, and 0 too in some layouts."""
TRAIN_IDS = "_labelTrainIds.png"
PREPARE = "pixbench data prepare cityscapes --root DATA --write"
LAST_LABEL_ID = 33  # of Cityscapes
SHOWN = 8  # names of classes in a note
WRITE = "write the number of each pixel's class"


def check_room(classes: Classes) -> None:
    """Raise UserError if label maps, which have a byte for each pixel, have no room for so many ``classes``."""
    if len(classes) > MOST:
        raise UserError(
            f"{classes.source} has {len(classes)} classes, but label maps have room for {MOST}; leave some out"
        )


@dataclass(frozen=True)
class Numbering:
    """The number of each class in the label maps, and which numbers are ignored."""

    classes: Classes
    zero_ignored: bool
    """Whether 0 is ignored too and the first class has the number 1, as in ADE20K (MMSegmentation's ``reduce_zero_label``)."""

    def __post_init__(self) -> None:
        check_room(self.classes)

    @property
    def of_classes(self) -> range:
        """The numbers of the classes in their order."""
        first = int(self.zero_ignored)
        return range(first, first + len(self.classes))

    @property
    def ignored(self) -> set[int]:
        """The numbers of ignored pixels. MMSegmentation reads 255 as ignored in any case."""
        return {0, IGNORED} if self.zero_ignored else {IGNORED}

    @property
    def brief(self) -> str:
        """Which numbers there are."""
        numbers = self.of_classes
        ignored = "0 and 255 are" if self.zero_ignored else "255 is"
        return f"the numbers of {self.classes.brief} are {numbers[0]} to {numbers[-1]}, and {ignored} ignored"

    def wrong(self, numbers: Iterable[int]) -> list[int]:
        """Return those of ``numbers`` that are neither of a class nor ignored, sorted."""
        return sorted({*numbers} - {*self.of_classes} - self.ignored)

    def name(self, number: int) -> str:
        """Return the class of ``number``."""
        return self.classes.names[self.of_classes.index(number)]


def remedy(where: str, found: set[int], numbering: Numbering) -> str:
    """Return what to do about numbers of no class in ``where``, guessed from all numbers ``found`` in the split."""
    classes, numbers = numbering.classes, numbering.of_classes
    wrong = numbering.wrong(found)
    if wrong == [numbers.stop] and not numbering.zero_ignored:
        if 0 not in found:
            return "the numbers seem to begin at 1: subtract 1 from those of the classes"
        if classes.own:
            return (
                f"if 0 is a class such as background, name it in the first line of {classes.source}; if 0 is to be ignored, "
                "write 255 for it and subtract 1 from the others"
            )
    if where.endswith(TRAIN_IDS) and not classes.own and wrong and wrong[-1] <= LAST_LABEL_ID:
        return f"these look like label ids instead of train ids: delete these files and make them with {PREPARE}"
    if classes.own:
        return (
            f"correct them, or name the class of each number from {numbers.start} on, one a line, in {classes.source}"
        )
    return "restore the label maps of the data set, or run on classes of your own with --classes FILE"


def check_split(first: dict[int, str], numbering: Numbering, split: str, title: str, report: Report) -> None:
    """Report what only all label maps of ``split`` together show.

    Args:
        first: each number that occurs, and the first label map that has it.
        numbering: what the numbers stand for.
        split: "train" or "test".
        title: stands in the place of a file if there is none.
        report: where to add problems and notes.
    """
    last, own = numbering.of_classes[-1], numbering.classes.own
    labelled = [number for number in numbering.of_classes if number in first]
    if not first:
        report.problem("label map none", title, f"there is no label map for {split}", "restore the data set")
    elif {0, IGNORED} == {*first}:
        what = f"this and all other label maps for {split} are black and white (numbers 0 and 255), and 255 is ignored"
        report.problem("label map black", first[0], what, WRITE)
    elif not labelled:
        goal = "learn" if split == "train" else "measure"
        what = f"this and all other label maps for {split} have ignored pixels only: there is nothing to {goal}"
        report.problem("label map nothing", next(iter(first.values())), what, WRITE)
    elif numbering.zero_ignored and IGNORED in first and last not in first:
        report.problem(
            "label map reduced",
            first[IGNORED],
            f"has pixels of 255, and no label map for {split} has the number {last}: they seem to be reduced by 1 already, "
            "and would be once more",
            "add 1 to the numbers, so that those of the classes begin at 1, and write 0 for ignored pixels",
        )
    elif numbering.zero_ignored and own and split == "train" and 0 in first and last not in first:
        name, source = numbering.name(last), numbering.classes.source
        report.problem(
            "label map shifted",
            first[0],
            f"has pixels of 0, which are ignored, and no label map for {split} has the number {last} ({name}): the numbers "
            "seem to begin at 0",
            f"add 1 to those of the classes; or, if they are right, take {name} out of {source}, since nothing is labelled so",
        )
    else:
        _note_classes(labelled, first, numbering, split, title, report)


def _note_classes(
    labelled: list[int], first: dict[int, str], numbering: Numbering, split: str, title: str, report: Report
) -> None:
    if len(labelled) == 1 and len(numbering.classes) > 1:
        what = f"class alone in all label maps for {split}, so that there is nothing to tell apart"
        report.note(f"one class in {split}", numbering.name(labelled[0]), what)
    if numbering.zero_ignored and IGNORED in first:
        report.note(f"ignored twice in {split}", first[IGNORED], "use of 255, which is ignored as 0 is")
    absent = [numbering.name(number) for number in numbering.of_classes if number not in first]
    if absent:
        report.facts[f"classes without a pixel in {split}"] = absent
        listed = ", ".join(absent[:SHOWN]) + (", …" if absent[SHOWN:] else "")
        effect = (
            "" if split == "train" else "; the protocol says whether the mean leaves such a class out or counts it as 0"
        )
        what = f"classes without a pixel for {split} in {Path(title).name}: {listed}{effect}"
        report.note(f"classes without a pixel in {split}", absent[0], what, len(absent))

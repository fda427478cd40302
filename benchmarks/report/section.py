"""What a section of the report is, and what it is made from."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from markupsafe import Markup

from benchmarks.results.reading import Found, Results, check_folders, read_all
from benchmarks.tables.collected import Group, grouped
from benchmarks.tables.options import Options


@dataclass(frozen=True)
class Section:
    """A section of the page."""

    id: str
    """Unique in the page, of letters and hyphens; a link to the section ends with it."""
    title: str
    intro: str
    """What is shown and how to read it, in one or two sentences; plain text."""
    body: Markup
    """Made by `benchmarks.report.markup`, which escapes what comes from results."""
    data: Any = None
    """What the script needs, of JSON's types; it is the content of the element with the id ``ID-data``."""
    script: str | None = None
    """Name of a file in `static/`. Each script is in the page once."""
    style: str | None = None


@dataclass(frozen=True)
class Contents:
    """What a report is made from."""

    folders: list[Path]
    results: Results
    """All results below the folders, with curves, configs and values of classes."""
    groups: list[Group] = field(default_factory=list)
    """Those of transfer runs with status "ok"; see `benchmarks.tables.collected.grouped`."""
    left_out: list[str] = field(default_factory=list)
    """A line for each run that is in no group."""
    options: Options = field(default_factory=Options)

    @cached_property
    def labels(self) -> list[str]:
        """Labels of all rows, in the order of the tables."""
        return self.options.ordered(list(dict.fromkeys(label for group in self.groups for label in group.rows)))

    @cached_property
    def pretraining(self) -> dict[str, Found]:
        """Name -> result of each finished pre-training run. The name is that of its folder, if no other run has it."""
        found = [
            item for item in self.results.found if (item.result["kind"], item.result["status"]) == ("pretrain", "ok")
        ]
        often = Counter(item.path.parent.name for item in found)
        return {name if often[name := item.path.parent.name] == 1 else self.short(item.path): item for item in found}

    @cached_property
    def series(self) -> list[str]:
        """Names of all bars and lines, which have the same colours all over the page: the labels, then pre-training runs."""
        return list(dict.fromkeys([*self.labels, *self.pretraining]))

    def short(self, path: Path) -> str:
        """Return the folder of the result at ``path`` as the report names it: below the folder that was given."""
        folder = path.parent
        return (
            str(folder.relative_to(self.folders[0]))
            if len(self.folders) == 1 and folder != self.folders[0]
            else str(folder)
        )


def read_contents(folders: list[Path], options: Options) -> Contents:
    """Return what a report of the results below ``folders`` is made from.

    Raises:
        UserError: a folder does not exist; see also `benchmarks.tables.collected.grouped`.
    """
    check_folders(folders)
    results = read_all(folders, heavy=True)
    groups, left_out = grouped(results, folders)
    return Contents(folders, results, groups, left_out, options)


def row_titles(group: Group) -> dict[str, str]:
    """Return label -> title of each row of ``group``."""
    return {label: group.title(label) for label in group.rows}

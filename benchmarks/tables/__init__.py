"""Tables made only from `result.json` files and `published.yaml`: comparison, ablation, classes, cost, agreement.

Results of a scale and a kind (fine-tuned or frozen) have a table of their own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.tables.beside import beside as side_by_side
from benchmarks.tables.collected import Group, collect
from benchmarks.tables.comparison import comparison
from benchmarks.tables.formats import FILES
from benchmarks.tables.formats.markdown import to_markdown
from benchmarks.tables.options import Options
from benchmarks.tables.published_table import published_table
from benchmarks.tables.records import records
from benchmarks.tables.table import Document
from pixbench.errors import UserError
from pixbench.files import write_text
from transfer.protocols import KINDS

BEGIN, END = "<!-- table -->", "<!-- end of table -->"
TITLES: dict[tuple[str, ...], str] = {("transfer",): "Transfer results", ("frozen",): "Results with frozen backbones"}
BOTH = "Results, fine-tuned and with frozen backbones"
TABLE = "table"
"""Name of the files of the comparison table."""


def compared(groups: Sequence[Group], left_out: Sequence[str], options: Options, beside: bool = False) -> Document:
    """Return the comparison tables of all groups, and the published numbers of their protocols.

    Raises:
        UserError: there is no row of a label that the user gave, or rows of one column have different heads.
    """
    options.check(list(dict.fromkeys(label for group in groups for label in group.rows)))
    shown = side_by_side(groups) if beside else groups
    tables = [comparison(group, options, beside) for group in shown]
    for kind in KINDS:
        tasks = [task for group in groups if group.kind == kind for task in group.tasks()]
        used = dict.fromkeys(task.protocol for task in tasks if not task.classes)
        if table := published_table(used, kind, options.metrics):
            tables.append(table)
    kinds = tuple(kind for kind in KINDS if any(group.kind == kind for group in groups))
    return Document(TITLES.get(kinds, BOTH), tables, records(groups, options), left_out)


def write_tables(runs: Path | Sequence[Path], out: Path, options: Options | None = None) -> Document:
    """Write the comparison tables of the results below ``runs`` to ``out/table.*`` and return them.

    Args:
        runs: folder with `result.json` files, at any depth, or several.
        out: folder for the tables.
        options: what the user chose.

    Raises:
        UserError: see `collect` and `compared`.
    """
    options = options or Options()
    groups, left_out = collect(runs)
    document = compared(groups, left_out, options)
    write(document, out, TABLE, options.full)
    return document


def write(document: Document, out: Path, name: str, full: bool = False) -> list[Path]:
    """Write ``document`` in every format to ``out/name.*`` and return the paths."""
    paths = []
    for ending, text in FILES.items():
        paths.append(out / f"{name}.{ending}")
        write_text(paths[-1], text(document, full))
    return paths


def show(document: Document, full: bool = False) -> None:
    """Print ``document``: with colours in a terminal, else in Markdown."""
    if sys.stdout.isatty():
        from benchmarks.tables.formats.terminal import show as show_in_terminal

        show_in_terminal(document, full)
    else:
        print(to_markdown(document, full))


def one_group(groups: Sequence[Group], scale: str | None, why: Callable[[Group], bool] = lambda _: True) -> Group:
    """Return the only group for which ``why`` holds, at ``scale`` if it is given.

    Raises:
        UserError: there is none, or there are several; the message lists what differs.
    """
    found = [group for group in groups if why(group) and scale in (None, group.scale)]
    if len(found) == 1:
        return found[0]
    have = "; ".join(f"{group.scale} scale, {KINDS[group.kind]}" for group in groups)
    if not found:
        raise UserError(f"there are no such results{f' at {scale} scale' if scale else ''} (there are: {have})")
    differ = "; ".join(f"{group.scale} scale, {KINDS[group.kind]}: {', '.join(group.rows)}" for group in found)
    raise UserError(
        f"results of several scales or kinds cannot share this table ({differ}); choose one with --scale or --kind"
    )


def insert(text: str, document: Path) -> None:
    """Replace the text between the two table markers of a Markdown document."""
    try:
        content = document.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{document} cannot be read: {error}") from error
    head, begin, rest = content.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not end:
        raise UserError(f"{document} has no place for a table: add the lines {BEGIN} and {END} where it belongs")
    write_text(document, f"{head}{begin}\n{text.strip()}\n{end}{tail}")

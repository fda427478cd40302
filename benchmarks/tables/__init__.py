"""Comparison tables in the form of the paper's Table 1, made only from `result.json` files and `published.yaml`.

Results of a scale and a kind (fine-tuned or frozen) have a table of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.tables.collected import collect
from benchmarks.tables.markdown import render, render_published
from benchmarks.tables.tidy import tidy_csv
from pixbench.errors import UserError, did_you_mean, listed
from pixbench.files import write_text
from transfer.protocols import KINDS

BEGIN, END = "<!-- table -->", "<!-- end of table -->"


TITLES: dict[tuple[str, ...], str] = {("transfer",): "Transfer results", ("frozen",): "Results with frozen backbones"}
BOTH = "Results, fine-tuned and with frozen backbones"


def write_tables(
    runs: Path | Sequence[Path],
    out: Path,
    order: Sequence[str] = (),
    must_exist: bool = False,
    all_metrics: bool = False,
) -> str:
    """Write ``out/table.md`` and ``out/table.csv`` from the results below ``runs`` and return the Markdown.

    Args:
        runs: folder with `result.json` files, at any depth, or several.
        out: folder for the tables.
        order: labels of the rows that come first.
        must_exist: whether there must be a row for each label of ``order``.
        all_metrics: whether there is a column for each metric that the results hold, not only for those of the protocols' tables.

    Raises:
        UserError: see `collect`; or there is no row for a label of ``order``.
    """
    groups, left_out = collect(runs)
    labels = list(dict.fromkeys(label for group in groups for label in group.rows))
    for label in order if must_exist else ():
        if label not in labels:
            raise UserError(
                f"there is no row {label!r} in these results{did_you_mean(label, labels)} (rows: {listed(labels)})"
            )
    parts = [render(group, order, all_metrics) for group in groups]
    for kind in KINDS:
        tasks = [task for group in groups if group.kind == kind for task in group.tasks()]
        used = dict.fromkeys(task.protocol for task in tasks if not task.classes)
        if text := render_published(used, kind):
            parts.append(text)
    if left_out:
        parts.append("## Runs left out\n\n" + "\n".join(f"- {line}" for line in left_out) + "\n")
    kinds = tuple(kind for kind in KINDS if any(group.kind == kind for group in groups))
    text = f"# {TITLES.get(kinds, BOTH)}\n\n" + "\n".join(parts)
    write_text(out / "table.md", text)
    write_text(out / "table.csv", tidy_csv(groups))
    return text


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

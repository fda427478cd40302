"""`pixbench table`: make tables from finished runs."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from benchmarks.commands.choice import add_choices, chosen, options_of
from benchmarks.tables import (
    BEGIN,
    END,
    TABLE,
    compared,
    insert,
    one_group,
    show,
    write,
)
from benchmarks.tables.ablation import ablation
from benchmarks.tables.agreement import agreement_document
from benchmarks.tables.beside import beside
from benchmarks.tables.collected import Task, collect
from benchmarks.tables.cost import cost_document
from benchmarks.tables.footnotes import FULL
from benchmarks.tables.formats.markdown import to_markdown
from benchmarks.tables.options import Options
from benchmarks.tables.per_class import per_class
from pixbench.errors import UserError
from transfer.protocols import find_protocol


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("table", help="make tables from finished runs")
    add_choices(parser)
    parser.add_argument(
        "--out",
        type=Path,
        help="folder for the table as Markdown, CSV, LaTeX, HTML and JSON (default: RUNS, if it is one folder)",
    )
    parser.add_argument("--into", type=Path, help=f"document to insert the table into, between {BEGIN} and {END}")
    parser.add_argument(FULL, action="store_true", help="list every deviation from the protocols word by word")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--beside", action="store_true", help="frozen beside fine-tuned results, in groups of columns")
    kind.add_argument(
        "--by",
        nargs="+",
        metavar="SETTING",
        help="ablation: a row for each value of these pre-training settings, such as method.gamma, all others equal",
    )
    kind.add_argument("--per-class", metavar="PROTOCOL", help="the numbers of each class under this protocol")
    kind.add_argument("--cost", action="store_true", help="hours, GPU-hours and images a second of the runs")
    kind.add_argument(
        "--agreement",
        action="store_true",
        help="do frozen and fine-tuned protocols rank the rows in the same order: Kendall's tau",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Write and print the tables; with --into, also insert them into a document."""
    if len(args.runs) > 1 and not args.out:
        raise UserError(
            f"{len(args.runs)} folders of results are given: say with --out in which folder their tables belong"
        )
    out = args.out or args.runs[0]
    groups, left_out = collect(args.runs)
    groups = chosen(groups, args)
    options = options_of(args)
    labels = list(dict.fromkeys(label for group in groups for label in group.rows))
    if not args.by:
        options.check(labels)
    if args.agreement:
        name, document = "agreement", agreement_document(one_group(beside(groups), args.scale))
    elif args.cost:
        name, document = "cost", cost_document(groups, args.runs, options)
    elif args.per_class:
        task = Task(find_protocol(args.per_class).name)
        group = one_group(groups, args.scale, lambda group: task in group.tasks())
        name, document = f"per_class_{task.protocol}", per_class(group, task, options)
    elif args.by:
        Options(args.rows).check(labels)
        groups = [ablation(group, args.by, args.rows) for group in groups]
        name = re.sub(r"[^\w.]+", "_", f"by_{'_'.join(args.by)}")
        document = compared(groups, left_out, Options((), args.baseline, args.metrics, args.interval, args.full))
    else:
        name, document = TABLE, compared(groups, left_out, options, args.beside)
    write(document, out, name, args.full)
    show(document, args.full)
    print(f"written: {out / name}.md, .csv, .tex, .html, .json")
    if args.into:
        text = to_markdown(document, args.full)
        insert(text.replace("\n## ", "\n### ").partition("\n\n")[2], args.into)

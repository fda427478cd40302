"""Tables as one HTML page that needs no other file and runs no script."""

from __future__ import annotations

from html import escape
from itertools import groupby

from benchmarks.tables.table import SYMBOLS, Cell, Document, Head, Table
from pixbench.errors import printable

STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:80em;padding:0 1em;color:#222}
table{border-collapse:collapse;display:block;overflow-x:auto}th,td{padding:.3em .7em}
th,td{border-bottom:1px solid #ddd;text-align:right}
th:first-child,td:first-child{text-align:left}.up{color:#17692c}.down{color:#a3221c}.noise,small{color:#666}
@media(prefers-color-scheme:dark){
body{background:#181818;color:#ddd}.up{color:#7fd694}.down{color:#ff9d96}.noise,small{color:#999}}"""
COLOURS = {"higher": "up", "lower": "down"}


def to_html(document: Document, full: bool = False) -> str:
    """Return the page. All deviations are in it, folded unless ``full``."""
    parts = [_table(table, full) for table in document.tables]
    if document.left_out:
        parts.append(f"<h2>Runs left out</h2>{_list(list(document.left_out))}")
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{_text(document.title)}</title>\n'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n'
        f"<body><h1>{_text(document.title)}</h1>\n" + "\n".join(parts) + "</body></html>\n"
    )


def _table(table: Table, full: bool) -> str:
    warning = f"<strong>{_text(table.warning)}</strong>: " if table.warning else ""
    heads = "".join(f'<th scope="col">{_text(head.written())}</th>' for head in table.heads)
    rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>\n" for row in table.rows)
    text = f"<h2>{_text(table.title)}</h2>\n<p>{warning}{_text(table.intro)}</p>\n"
    text += f"<table><thead>{_groups(table.heads)}<tr>{heads}</tr></thead>\n<tbody>{rows}</tbody></table>\n"
    text += "".join(f"<p>{_text(heading)}:</p>{_list(lines)}" for heading, lines in table.sections)
    for heading, lines in table.appendix:
        text += f"<details{' open' * full}><summary>{_text(heading)}</summary>{_list(lines)}</details>\n"
    return text


def _groups(heads: list[Head]) -> str:
    if not any(head.group for head in heads):
        return ""
    spans = [(name, len([*found])) for name, found in groupby(head.group for head in heads)]
    return f"<tr>{''.join(f'<th colspan={width}>{_text(name)}</th>' for name, width in spans)}</tr>"


def _cell(cell: Cell) -> str:
    number = f"<b>{_text(cell.text)}</b>" if cell.best else _text(cell.text)
    title, colour = _text(cell.mark), COLOURS.get(cell.mark, "noise")
    mark = f' <span class="{colour}" title="{title}">{SYMBOLS[cell.mark]}</span>' if cell.mark else ""
    rest = _text(Cell("", cell.interval, "", cell.notes, cell.published).written())
    return f"<td>{number}{mark}{f' <small>{rest}</small>' if rest else ''}</td>"


def _list(lines: list[str]) -> str:
    return f"<ul>{''.join(f'<li>{_text(line)}</li>' for line in lines)}</ul>\n"


def _text(text: str) -> str:
    return escape(printable(text))

"""Tables in LaTeX, with booktabs. A document that contains them needs nothing else."""

from __future__ import annotations

import unicodedata
from itertools import groupby

from benchmarks.statistics.comparisons import HIGHER, LOWER, NOISE, TOO_SMALL
from benchmarks.tables.table import Cell, Document, Head, Table
from pixbench.errors import printable

SYMBOLS = {HIGHER: r"$\uparrow$", LOWER: r"$\downarrow$", NOISE: r"$\approx$", TOO_SMALL: "?"}
SPECIAL = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    **{"\\": r"$\backslash$", "~": r"\~{}", "^": r"\^{}", "<": "$<$", ">": "$>$", "|": "$|$"},
    **{'"': r"{\ttfamily\char34}", "`": r"{\ttfamily\char18}", "[": "{[}", "]": "{]}"},  # no option of \\
    **{"±": r"$\pm$", "−": "$-$", "×": r"$\times$", "–": r"\textendash{}", "…": r"\dots{}", "²": "$^2$"},
    **{"α": r"$\alpha$", "γ": r"$\gamma$", "λ": r"$\lambda$", "τ": r"$\tau$"},
    **{"↑": SYMBOLS[HIGHER], "↓": SYMBOLS[LOWER], "≈": SYMBOLS[NOISE]},
}
PREAMBLE = r"""\documentclass{article}
\usepackage{booktabs}
\usepackage{graphicx}
\usepackage[margin=1.5cm]{geometry}
\begin{document}
"""


def to_latex(document: Document, full: bool = False) -> str:
    """Return a document that pdfLaTeX compiles; each table can be taken out of it alone."""
    parts = [latex_table(table, full) for table in document.tables]
    if document.left_out:
        parts.append(_list("Runs left out", list(document.left_out)))
    return f"{PREAMBLE}\\section*{{{escaped(document.title)}}}\n\n" + "\n".join(parts) + "\\end{document}\n"


def latex_table(table: Table, full: bool = False) -> str:
    """Return one table, as wide as the text at most, with the sentences around it."""
    about = f"\\textbf{{{escaped(table.warning)}.}} " if table.warning else ""
    lines = [
        "\\begin{table}[ht]\n\\centering",
        f"\\caption{{{escaped(table.title)}. {about}{escaped(table.intro)}}}",
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
        f"\\begin{{tabular}}{{l{'c' * (len(table.heads) - 1)}}}\n\\toprule",
        *_groups(table.heads),
        " & ".join(escaped(head.written()) for head in table.heads) + " \\\\\n\\midrule",
        *(" & ".join(map(_cell, row)) + " \\\\" for row in table.rows),
        "\\bottomrule\n\\end{tabular}}\n\\end{table}\n",
    ]
    below = [*table.sections, *(table.appendix if full else [])]
    return "\n".join(lines) + "".join(_list(heading, found) for heading, found in below)


def _groups(heads: list[Head]) -> list[str]:
    """Return the line above the headings, if they have groups."""
    if not any(head.group for head in heads):
        return []
    spans = [(name, len([*found])) for name, found in groupby(head.group for head in heads)]
    cells, rules, place = [], [], 1
    for name, width in spans:
        cells.append(f"\\multicolumn{{{width}}}{{c}}{{{escaped(name)}}}")
        rules += [f"\\cmidrule(lr){{{place}-{place + width - 1}}}"] if name else []
        place += width
    return [" & ".join(cells) + " \\\\", "".join(rules)]


def _cell(cell: Cell) -> str:
    number = f"\\textbf{{{escaped(cell.text)}}}" if cell.best else escaped(cell.text)
    rest = escaped(Cell("", cell.interval, "", cell.notes, cell.published).written())
    return " ".join(part for part in (number, SYMBOLS.get(cell.mark, ""), rest) if part)


def _list(heading: str, lines: list[str]) -> str:
    items = "".join(f"\\item {{}}{escaped(line)}\n" for line in lines)
    return f"\\noindent {escaped(heading)}:\n\\begin{{itemize}}\n{items}\\end{{itemize}}\n"


def escaped(text: str) -> str:
    """Return ``text`` so that LaTeX prints it as it is; letters that its fonts lack become their plain form or their name."""
    found = "".join(SPECIAL.get(char) or _plain(char) for char in printable(text))
    return found.replace("--", "-{}-")  # no dash


def _plain(char: str) -> str:
    if char.isascii():
        return char
    plain = unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode()
    return "".join(SPECIAL.get(c, c) for c in plain) or f"({unicodedata.name(char, f'U+{ord(char):04X}').lower()})"

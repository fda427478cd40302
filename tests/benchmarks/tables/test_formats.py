"""The formats of tables: each is read by a program of its kind, and no label can do anything in it."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console
from tabled import frozen, result, seeds

from benchmarks.tables import compared, write_tables
from benchmarks.tables.collected import collect
from benchmarks.tables.formats.html import to_html
from benchmarks.tables.formats.latex import escaped, to_latex
from benchmarks.tables.formats.markdown import to_markdown
from benchmarks.tables.formats.numbers import to_csv, to_json
from benchmarks.tables.formats.terminal import show
from benchmarks.tables.options import Options
from benchmarks.tables.table import Document

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    r"\input{/etc/passwd}",
    r"\write18{touch hacked}",
    "100 % & $x_1^2$ # {a} ~b~ \\\\[2em]",
    "a | b | c",
    "[click](javascript:alert(1))",
    "**bold** `code`",
    '=HYPERLINK("http://x";"y")',
    "@SUM(A1)",
    "+1+1",
    "-2+3",
    "\x1b[31mred\x1b[0m",
    "$(touch hacked); `touch hacked` && echo 'a' \"b\"",
    "[bold red]markup[/]",
    "first\nsecond\tthird",
    "ünïcode 表 ↑ γ=2",
    "?` !` -- --- ''",
)


@pytest.fixture
def hostile(tmp_path: Path) -> Document:
    for number, label in enumerate(HOSTILE):
        result(tmp_path / str(number), label, "cityscapes_fcn16s", {"mIoU": float(number)})
        result(tmp_path / f"s{number}", label, "cityscapes_fcn16s", {"mIoU": number + 0.5}, seed=1)
        result(tmp_path / f"u{number}", label, "voc_c4", {"AP": None}, deviations=[f"x {label} instead of 2"])
    failed = dict(status="failed", reason=HOSTILE[0])
    result(tmp_path / "failed", "other", "voc_c4", {"AP": 1.0}, **failed)
    groups, left_out = collect(tmp_path)
    return compared(groups, left_out, Options(baseline=HOSTILE[0], full=True))


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[tuple[str, tuple[str, ...]]] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add((tag, tuple(name for name, _ in attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_no_label_becomes_html(hostile: Document) -> None:
    reader = Reader()
    reader.feed(to_html(hostile, True))
    assert reader.open == []
    assert not {tag for tag, _ in reader.seen} & {"script", "img", "a"}
    assert {name for _, names in reader.seen for name in names} <= {
        *("lang", "charset", "name", "content", "class", "title", "scope", "colspan", "open")
    }
    assert HOSTILE[0] in reader.text


def test_no_label_leaves_its_cell_in_markdown(hostile: Document) -> None:
    text = to_markdown(hostile, True)
    lines = [line for line in text.split("## Published")[0].splitlines() if line.startswith("|")]
    assert {len(re.split(r"(?<!\\)\|", line)) for line in lines} == {len(re.split(r"(?<!\\)\|", lines[0]))}
    assert len(lines) == len(HOSTILE) + 2
    assert not re.search(r"(?<!\\)<(script|img)", text)
    assert "](" not in text.split("## Published")[0]
    assert "\x1b" not in text


def test_no_label_is_a_formula_of_a_spreadsheet(hostile: Document) -> None:
    rows = list(csv.reader(io.StringIO(to_csv(hostile))))
    assert {len(row) for row in rows} == {len(rows[0])}
    for row in rows:
        for value in row:
            assert not value.startswith(("=", "@", "+", "\t", "\r"))
            assert not value.startswith("-") or float(value) < 0
    assert {row[1] for row in rows} >= {'\'=HYPERLINK("http://x";"y")', "'+1+1", "'-2+3", "'@SUM(A1)"}


def test_json_holds_labels_as_they_are_and_every_deviation(hostile: Document) -> None:
    content = json.loads(to_json(hostile))
    assert {record["label"] for record in content["records"]} == set(HOSTILE)
    found = next(r for r in content["records"] if r["label"] == HOSTILE[0] and r["protocol"] == "voc_c4")
    assert (found["mean"], found["deviations"]) == (None, [f"x {HOSTILE[0]} instead of 2"])
    assert "NaN" not in to_json(hostile)


def test_a_terminal_shows_labels_and_obeys_none(hostile: Document) -> None:
    out = io.StringIO()
    show(hostile, True, Console(file=out, force_terminal=True, width=400, color_system="standard"))
    text = re.sub(r"\x1b\[[\d;]*m", "", out.getvalue())
    assert "\x1b" not in text
    assert "[bold red]markup[/]" in text
    assert r"\x1b[31mred" in text
    assert "\x1b[31mred" not in out.getvalue()


def test_no_label_is_a_command_of_latex(hostile: Document) -> None:
    """Only our own commands are left, braces are balanced, and every line of a table has as many cells as its head."""
    text = to_latex(hostile, True)
    ours = set(re.findall(r"\\([a-zA-Z]+)", text))
    assert not ours & {"input", "write"}
    assert ours <= set(
        "documentclass usepackage begin end section centering caption textbf resizebox ifdim width linewidth else fi toprule "
        "midrule bottomrule item noindent backslash ttfamily char pm textendash dots uparrow downarrow approx gamma".split()
    )
    plain = re.sub(r"\\[\\{}&%$#_]", "", text)
    assert plain.count("{") == plain.count("}")
    assert plain.count("$") % 2 == 0
    assert text.isascii()
    for columns, body in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert {len(re.split(r"(?<!\\)&", line)) for line in rows} == {len(columns)}


def test_letters_that_latex_lacks_are_named() -> None:
    assert escaped("ü 表 ±") == r"u (cjk unified ideograph-8868) $\pm$"
    assert escaped("a--b") == "a-{}-b"


def test_latex_compiles(hostile: Document, tmp_path: Path) -> None:
    engine = shutil.which("tectonic") or shutil.which("pdflatex")
    if not engine:
        pytest.skip(
            "neither tectonic nor pdflatex is installed; test_no_label_is_a_command_of_latex checks the structure"
        )
    (tmp_path / "tables.tex").write_text(to_latex(hostile, True), encoding="utf-8")
    options = [] if engine.endswith("tectonic") else ["-draftmode", "-interaction=nonstopmode", "-halt-on-error"]
    ended = subprocess.run([engine, *options, "tables.tex"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stdout[-2000:]
    assert not (tmp_path / "hacked").exists()


def test_the_best_of_a_column_is_bold_and_descriptions_have_none(tmp_path: Path) -> None:
    for label, value in (("a", 1.0), ("b", 2.0)):
        frozen(tmp_path / label, label, "voc12aug_knn", {"mIoU": value})
        frozen(tmp_path / f"{label}2", label, "voc12aug_statistics", {"rankme": value})
    document = write_tables(tmp_path, tmp_path)
    assert "**2.0**" in to_markdown(document)
    assert to_markdown(document).count("**") == 4  # with the warning
    assert r"\textbf{2.0}" in to_latex(document)
    assert to_html(document).count("<b>") == 1
    out = io.StringIO()
    show(document, console=Console(file=out, force_terminal=True, width=200, color_system="standard"))
    assert re.search(r"\x1b\[1m *2\.0", out.getvalue())


def test_cells_that_show_the_same_number_are_equally_good(tmp_path: Path) -> None:
    for label, value in (("a", 2.04), ("b", 1.96), ("c", 1.0)):
        frozen(tmp_path / label, label, "voc12aug_knn", {"mIoU": value})
    assert to_markdown(write_tables(tmp_path, tmp_path)).count("**2.0**") == 2


def test_every_format_is_written(tmp_path: Path) -> None:
    seeds(tmp_path, "a", [1.0])
    write_tables(tmp_path, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"table.{e}" for e in "md csv tex html json".split()
    }

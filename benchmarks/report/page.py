"""Make the page: read the results, ask each section for its part, and fill the template."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from markupsafe import Markup

from benchmarks.report import summary
from benchmarks.report.markup import fill, static
from benchmarks.report.section import Contents, Section, read_contents
from benchmarks.tables.options import Options
from pixbench.files import write_text

SECTIONS: tuple[Callable[[Contents], Section | None], ...] = (summary.section,)
"""In the order of the page. None: there is nothing to show."""
TITLE = "PixBench report"


def write_report(folders: Sequence[Path], out: Path, options: Options) -> Contents:
    """Write the report of the results below ``folders`` to the file ``out``; return what it is made from.

    Raises:
        UserError: see `read_contents`.
    """
    contents = read_contents([*folders], options)
    write_text(out, page(contents))
    return contents


def page(contents: Contents) -> str:
    """Return the page as HTML. It loads nothing, and its policy lets nothing else run than the scripts in it."""
    sections = [section for make in SECTIONS if (section := make(contents))]
    scripts = [Markup(static(name)) for name in dict.fromkeys(part.script for part in sections if part.script)]
    styles = [
        Markup(static(name)) for name in ("page.css", *dict.fromkeys(part.style for part in sections if part.style))
    ]
    return fill(
        "page.html.j2",
        title=TITLE,
        sections=sections,
        scripts=scripts,
        styles=styles,
        policy=f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {_digests(scripts)}; base-uri 'none'; form-action 'none'",
    )


def _digests(scripts: Sequence[str]) -> str:
    """Return the sources of a content security policy that allow ``scripts`` and no other."""
    found = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    return " ".join(f"'sha256-{digest}'" for digest in found) or "'none'"

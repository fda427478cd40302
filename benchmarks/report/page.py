"""Make the page: read the results, ask each section for its part, and fill the template."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from importlib import metadata

from markupsafe import Markup

from benchmarks.report import (
    agreement,
    bars,
    charts,
    classes,
    comparison,
    learning,
    pretraining,
    provenance,
    running,
    summary,
)
from benchmarks.report.markup import fill, static
from benchmarks.report.palette import variables
from benchmarks.report.pictures import predictions, similarity, views
from benchmarks.report.section import Contents, Section

SECTIONS: tuple[Callable[[Contents], Section | None], ...] = (
    *(summary.section, running.section, bars.section, comparison.section, predictions.section, similarity.section),
    *(pretraining.section, views.section, learning.section, classes.section, agreement.section, provenance.section),
)
"""In the order of the page. None: there is nothing to show."""
TITLE = "PixBench report"
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {scripts}; connect-src {connect}; "
    "base-uri 'none'; form-action 'none'"
)
"""What the browser lets the page do: run the scripts that are in it, and load nothing."""


def page(contents: Contents, version: str = "") -> str:
    """Return the report as HTML; see `assembled`."""
    return assembled([section for make in SECTIONS if (section := make(contents))], version)


def assembled(sections: Sequence[Section], version: str = "") -> str:
    """Return a page of ``sections`` as HTML.

    Args:
        sections: in their order.
        version: names this state of the page, for one that asks its server for a newer one, and for nothing else. "": it asks
            for nothing.
    """
    names = dict.fromkeys([*(part.script for part in sections if part.script), *(["refresh.js"] if version else [])])
    scripts = [Markup(static(name)) for name in names]
    if charts.SCRIPT in names:
        scripts.insert(0, Markup(charts.bundle()))
    scripted = Markup(static("scripted.js"))
    styles = dict.fromkeys(("page.css", *(part.style for part in sections if part.style)))
    return fill(
        "page.html.j2",
        title=TITLE,
        version=version,
        made=f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC, PixBench {metadata.version('pixbench')}",
        sections=sections,
        chart_config=charts.CONFIG,
        scripts=scripts,
        scripted=scripted,
        styles=[Markup(static(name)) for name in styles],
        light=Markup(variables(dark=False)),
        dark=Markup(variables(dark=True)),
        policy=POLICY.format(scripts=_digests([scripted, *scripts]), connect="'self'" if version else "'none'"),
    )


def _digests(scripts: Sequence[str]) -> str:
    """Return the sources of a content security policy that allow ``scripts`` and no other."""
    found = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    return " ".join(f"'sha256-{digest}'" for digest in found) or "'none'"

"""Charts by Vega-Lite: in the page, where the browser draws them, and as a picture without a browser."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from benchmarks.report.markup import fill
from benchmarks.report.palette import colour, dash, resolved
from benchmarks.results import database
from pixbench.errors import UserError, printable
from pixbench.files import atomic_path, finite, write_text

VEGA_LITE = "6.4"
"""Version of the language of the charts, as vl-convert names it."""
SCRIPT = "charts.js"
FORMATS = (".png", ".svg")
"""Endings of pictures."""
FONT = "system-ui, sans-serif"
PICTURE_FONT = "Liberation Sans, Arial, sans-serif"
"""The first comes with vl-convert, so a picture does not depend on the fonts of the machine."""
CONFIG: dict[str, Any] = {
    "aria": False,  # the figure has a description, and its numbers stand in a table: a screen reader needs no list of marks
    "background": "transparent",
    "font": FONT,
    "view": {"stroke": None},
    "axis": {
        **{"labelColor": "var(--quiet)", "titleColor": "var(--quiet)", "gridColor": "var(--line)", "domain": False},
        **{"tickColor": "var(--line)", "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"},
        **{"labelLimit": 170, "titlePadding": 6},
    },
    "axisY": {"ticks": False, "labelPadding": 6},
    "legend": {"labelColor": "var(--quiet)", "titleColor": "var(--quiet)", "titleFontWeight": "normal"},
    "line": {"strokeWidth": 2},
    "title": {"color": "var(--ink)", "fontSize": 13, "anchor": "start", "fontWeight": 600},
}
Rows = Sequence[Sequence[str]]


def figure(
    name: str, spec: dict[str, Any], title: str, about: str, heads: Sequence[str], rows: Rows, tall: bool = False
) -> Markup:
    """Return a figure with the chart ``spec``, and its numbers as a table below it.

    Args:
        name: unique in the page, of letters, digits and hyphens.
        spec: a chart of Vega-Lite.
        title: stands above the chart.
        about: what the chart shows, for those who do not see it.
        heads: headings of the table.
        rows: texts of the table.
        tall: whether the chart has to be scrolled.
    """
    whole = _printable({"width": "container", **spec})
    return fill("figure.html.j2", name=name, spec=whole, title=title, about=about, heads=heads, rows=rows, tall=tall)


def legend(names: Sequence[str], all_names: Sequence[str], titles: dict[str, str] | None = None) -> Markup:
    """Return the legend of the series ``names``; each has its colour and dashes by its place in ``all_names``."""
    places = [all_names.index(name) for name in names]
    entries = [
        (colour(place), " ".join(map(str, dash(place))), (titles or {}).get(name, name))
        for place, name in zip(places, names, strict=True)
    ]
    return fill("legend.html.j2", entries=entries)


@cache
def bundle() -> str:
    """Return the scripts of Vega, Vega-Lite and Vega-Embed in one. The package makes it from its own files, without a network.

    That takes seconds, so it is kept in the user's cache folder.
    """
    converter = _converter()
    kept = database.place().with_name(f"vega-{converter.__version__}-{VEGA_LITE}.js")
    with suppress(OSError, UnicodeDecodeError):
        return kept.read_text(encoding="utf-8")
    script: str = converter.javascript_bundle(vl_version=VEGA_LITE)
    with suppress(OSError, UserError):  # it is only a cache
        write_text(kept, script)
    return script


def picture(spec: dict[str, Any], path: Path) -> None:
    """Write the chart ``spec`` to ``path``, whose ending is one of `FORMATS`, with light colours."""
    whole = finite(resolved({**_printable(spec), "config": {**CONFIG, "background": "white", "font": PICTURE_FONT}}))
    converter = _converter()
    if path.suffix == ".svg":
        content = _numbered(converter.vegalite_to_svg(whole, vl_version=VEGA_LITE)).encode()
    else:
        content = converter.vegalite_to_png(whole, vl_version=VEGA_LITE, scale=2)
    with atomic_path(path) as part:
        part.write_bytes(content)


def _numbered(svg: str) -> str:
    """Return ``svg`` with its clips numbered from 0: Vega goes on counting, so a second picture would differ from a first one."""
    numbers = {name: f"clip{place}" for place, name in enumerate(dict.fromkeys(re.findall(r"\bclip\d+\b", svg)))}
    return re.sub(r"\bclip\d+\b", lambda found: numbers[found[0]], svg)


def _printable(value: Any) -> Any:
    """Return ``value`` with unprintable characters escaped, as they are in the rest of the page."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {key: _printable(part) for key, part in value.items()}
    return [_printable(part) for part in value] if isinstance(value, list) else value


def _converter() -> Any:
    try:
        import vl_convert
    except ImportError as error:
        raise UserError('the charts need the package vl-convert-python: pip install "pixbench[report]"') from error
    return vl_convert

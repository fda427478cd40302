"""Make HTML in which nothing that comes from a result can act.

Everything is filled into templates, which escape it. Markup is made nowhere else.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pixbench.errors import printable
from pixbench.files import finite

HERE = Path(__file__).parent
IN_SCRIPT = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})
"""What could end a script element, or begin a comment in it -> the same character in JSON."""


def fill(template: str, **values: Any) -> Markup:
    """Return the file ``template`` of `templates/`, filled with ``values``. All that is no `Markup` is escaped."""
    return Markup(_environment().get_template(template).render(**values))


def embedded(value: Any) -> Markup:
    """Return ``value`` as JSON that cannot end the script element it stands in. NaN and infinities become null."""
    text = json.dumps(finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(IN_SCRIPT))


def coded(text: str) -> Markup:
    """Return ``text`` with what stands between backticks as code."""
    parts = [
        Markup("<code>{}</code>" if place % 2 else "{}").format(_shown(part))
        for place, part in enumerate(text.split("`"))
    ]
    return Markup("").join(parts)


def static(name: str) -> str:
    """Return the content of the file ``name`` of `static/`."""
    return (HERE / "static" / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"embedded": embedded, "coded": coded}
    return found


def _shown(value: Any) -> Any:
    """Return ``value`` with unprintable characters escaped; markup is left as it is."""
    return printable(value) if type(value) is str else value

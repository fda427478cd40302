"""Text that is safe in a CSV file, which people open in spreadsheets."""

from __future__ import annotations

from typing import Any

from pixbench.errors import printable

FORMULA = tuple("=+-@\t\r")
"""With these a spreadsheet begins a formula."""


def field(value: Any) -> Any:
    """Return what a CSV file holds for ``value``.

    Lists become their lengths, None becomes empty, and text that a spreadsheet would compute gets an apostrophe.
    """
    if isinstance(value, list):
        return len(value)
    if isinstance(value, str):
        text = printable(value)
        return f"'{text}" if value.startswith(FORMULA) else text
    return "" if value is None else value

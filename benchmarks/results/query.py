"""Choose results by conditions such as ``method=pixpro and protocol~voc and AP>55``."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from benchmarks.results.reading import Found
from pixbench.errors import UserError, did_you_mean, listed
from transfer.run_folder import row_of

NAMES: dict[str, str] = {
    "method": "weights.pretraining.method",
    "pretraining_seed": "weights.pretraining.seed",
    "pretraining": "weights.pretraining.out",
    "weights": "weights.sha256",
    "commit": "code.commit",
    "dirty": "code.dirty",
    "device": "host.device",
    "tool": "imported.tool",
}
"""Short name -> where the field is in a result."""
USUAL = ("kind", "status", "protocol", "label", "seed", "scale", "classes", *NAMES)
"""Fields that a query may name although none of the results has a value."""
ORDER: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
CONDITION = re.compile(
    r"""\s*(?P<field>[\w./ -]*?[\w])\s*(?P<sign>!=|!~|<=|>=|=|~|<|>)\s*(?P<value>"[^"]*"|'[^']*'|[^\s"']+)\s*(?P<end>and\b|$)""",
    re.IGNORECASE,
)
HELP = (
    "conditions with `and` between them: FIELD=VALUE, != (is not), ~ (contains, in any capitals), !~, <, <=, >, >=; a value with "
    "spaces needs quotes. Fields: kind, protocol, label, seed, scale, method, status, any metric, or any other field of a "
    "result with dots (weights.pretraining.out)"
)


class Condition(NamedTuple):
    """One condition."""

    field: str
    sign: str
    value: str

    def holds(self, result: dict[str, Any]) -> bool:
        """Return whether ``result`` fulfils it. A result without the field fulfils only != and !~."""
        found = value_of(result, self.field)
        if self.sign in ORDER:
            number = _number(found)
            return number is not None and ORDER[self.sign](number, float(self.value))
        texts = [text_of(part) for part in found] if isinstance(found, list) else [text_of(found)]
        if self.sign.endswith("~"):
            hit = any(self.value.casefold() in text.casefold() for text in texts)
        else:
            hit = any(_same(text, self.value) for text in texts)
        return hit != self.sign.startswith("!")


def parse(text: str) -> list[Condition]:
    """Return the conditions in ``text``.

    Raises:
        UserError: it has another form, or something is compared by size with what is no number.
    """
    found, place = [], 0
    while place < len(text):
        match = CONDITION.match(text, place)
        if match is None or (match["end"] and match.end() == len(text)):
            raise UserError(f"the query {text!r} cannot be read from {text[place:].strip()!r} on; write {HELP}")
        value = match["value"][1:-1] if match["value"][0] in "\"'" else match["value"]
        if match["sign"] in ORDER and _number(value) is None:
            raise UserError(f"{match['field']} {match['sign']} {value}: {value!r} is not a number")
        found.append(Condition(match["field"], match["sign"], value))
        place = match.end()
    if not found:
        raise UserError(f"the query is empty; write {HELP}")
    return found


def chosen(found: Sequence[Found], query: str) -> list[Found]:
    """Return the results that fulfil all conditions of ``query``; raise `UserError` if none of them has one of the fields."""
    conditions = parse(query)
    for condition in conditions:
        unknown = condition.field not in USUAL and bool(found)
        if unknown and all(value_of(item.result, condition.field) is None for item in found):
            names = known_fields(item.result for item in found)
            raise UserError(
                f"no result has a field {condition.field!r}{did_you_mean(condition.field, names)} (some of the fields: "
                f"{listed(names)})"
            )
    return [item for item in found if all(condition.holds(item.result) for condition in conditions)]


def heavy(query: str) -> bool:
    """Return whether ``query`` asks for fields that `read_all` leaves out."""
    from benchmarks.results.reading import HEAVY

    return any(condition.field.partition(".")[0] in HEAVY for condition in parse(query))


def known_fields(results: Iterable[dict[str, Any]]) -> list[str]:
    """Return the names that a query may use: the usual ones, the metrics, and the fields of any of ``results``."""
    names = dict.fromkeys(USUAL)
    for result in results:
        names |= dict.fromkeys(result.get("metrics") or ())
        names |= dict.fromkeys(result)
    return list(names)


def value_of(result: dict[str, Any], name: str) -> Any:
    """Return a field of ``result``, or one of its metrics; None if it has none."""
    if name == "label":
        return row_of(result) if "init" in result else None
    if name == "method" and result["kind"] == "pretrain":
        return result.get("method")
    metrics = result.get("metrics") or {}
    if name in metrics:
        return metrics[name]
    found: Any = result
    for part in NAMES.get(name, name).split("."):
        if not isinstance(found, dict):
            return None
        found = found.get(part)
    return found


def text_of(value: Any) -> str:
    """Return a value as a query writes it: true, false, none, 0.1."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    return (
        f"{value:g}" if isinstance(value, float) and abs(value) < 1e6 and value == float(f"{value:g}") else str(value)
    )


def _same(text: str, value: str) -> bool:
    one, other = _number(text), _number(value)
    return text == value or (one is not None and one == other)


def _number(value: Any) -> float | None:
    try:
        number = float(value) if not isinstance(value, bool | list | dict) and value is not None else math.nan
    except ValueError:
        return None
    return None if math.isnan(number) else number

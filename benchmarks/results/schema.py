"""The JSON Schema of a result file, from the types that results are checked by."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from docstring_parser import parse_from_object

from pixbench import result_schema
from pixbench.file_versions import RESULT_FILE, RESULT_SCHEMA
from pixbench.result_schema import ANY_RESULT, MEASURED, NUMBERS, OWN, PretrainResult

FOREIGN = {"anyOf": [{"required": ["imported"]}, {"required": ["upgraded_from"]}]}
"""Holds for a result that is not as a run of this program wrote it."""
MEASURING = {"properties": {"status": {"const": "ok"}}}


def json_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12) with a description of each field."""
    found = msgspec.json.schema(ANY_RESULT)
    for name, part in found["$defs"].items():
        struct = getattr(result_schema, name)
        texts = _descriptions(struct)
        for field, about in part.get("properties", {}).items():
            if field in texts:
                about["description"] = texts[field]
        if issubclass(struct, result_schema.Result):
            part["allOf"] = _conditions(struct is PretrainResult)
    about = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{RESULT_FILE} of PixBench, version {RESULT_SCHEMA}",
    }
    return about | found


def text() -> str:
    """Return the schema as the file holds it."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


def _conditions(pretraining: bool) -> list[dict[str, Any]]:
    own = {"not": FOREIGN}
    conditions = [(own, OWN), ({"allOf": [own, MEASURING]}, MEASURED)]
    conditions += [] if pretraining else [({"allOf": [FOREIGN, MEASURING]}, NUMBERS)]
    return [{"if": when, "then": {"required": list(names)}} for when, names in conditions]


def _descriptions(struct: type) -> dict[str, str]:
    """Return field -> the docstring below it, of ``struct`` and its bases."""
    found: dict[str, str] = {}
    for part in reversed([base for base in struct.__mro__ if base.__module__ == result_schema.__name__]):
        for field in parse_from_object(part).params:
            found[field.arg_name] = " ".join((field.description or "").split())
    return {name: words for name, words in found.items() if words}

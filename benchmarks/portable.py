"""The same result without the folders of the machine that made it: anybody can read it, and repeat its command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixbench.paths import CONFIGS
from pixbench.results import config_hash

IMAGES, RUN, DATA = "IMAGES", "RUN", "DATA"
"""What stands for the folder of the images, for the output folder, and for that of all data sets."""


def portable(result: Mapping[str, Any], places: Mapping[Path, str], command: str) -> dict[str, Any]:
    """Return a result in which no text is an absolute path.

    Folders in ``places`` get their name there, and config files of the program, also of another checkout of it, their place in
    it; of any other path only its last part is left.

    Args:
        result: the result as a run wrote it.
        places: folder of that machine -> its name afterwards. What lies in it keeps its place below that name.
        command: name of the command, also where it was started as a module.
    """
    found: dict[str, Any] = _neutral(dict(result), {**places, CONFIGS.parent: ""})
    words = ["pixbench", *found["command"][1:]]
    if words[1:2] != [command]:  # python -m pretrain
        words.insert(1, command)
    return {**found, "config_sha256": config_hash(found["config"]), "command": words}


def portable_pretraining(result: Mapping[str, Any], out: str) -> dict[str, Any]:
    """Return `portable` of a pre-training run whose settings name the output folder ``out`` afterwards."""
    config = result["config"]
    found = portable(result, {Path(config["data"]["root"]): IMAGES, Path(config["out"]): RUN}, "pretrain")
    found["config"]["out"] = out
    return {**found, "config_sha256": config_hash(found["config"])}


def _neutral(value: Any, places: Mapping[Path, str]) -> Any:
    if isinstance(value, dict):
        return {key: _neutral(part, places) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_neutral(part, places) for part in value]
    if not isinstance(value, str):
        return value
    key, equals, text = value.partition("=") if value.startswith("--") else ("", "", value)
    path = Path(text)
    if not path.is_absolute():  # only a folder that was itself given like this is meant
        named = next((name for place, name in places.items() if str(place) == text), text)
        return key + equals + named
    place = next((place for place in places if path.is_relative_to(place)), None)
    named = _of_program(path) if place is None else str(Path(places[place]) / path.relative_to(place))
    return key + equals + named


def _of_program(path: Path) -> str:
    """Return the place of a config file in the program, or the last part of another path."""
    tails = [Path(*path.parts[place:]) for place, part in enumerate(path.parts) if part == CONFIGS.name]
    return str(next((tail for tail in tails if (CONFIGS.parent / tail).is_file()), path.name))

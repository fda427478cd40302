"""The same result without the folders of the machine that made it: anybody can read it, and repeat its command."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from pixbench.paths import CONFIGS
from pixbench.results import config_hash
from transfer.weights.sources import SCHEMES

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
    """Return `portable` of a pre-training run whose settings name the output folder ``out`` afterwards.

    Of all files and folders that its settings or its command name, also by a relative path, only the last part is left.
    """
    config, words = result["config"], result["command"]
    roots = [root[key] for root in config["data"].get("mixture") or () for key in ("root", "folder")]
    files = [
        after.removeprefix("--config=") for word, after in pairwise(words) if word == "--config" or "--config=" in after
    ]
    start = config.get("init_from") or ""
    named = [*roots, config["data"].get("folder"), *files, *([] if start.startswith(SCHEMES) else [start])]
    places = {Path(text): _of_program(Path(text)) for text in named if text}
    places |= {Path(text): name for text, name in ((config["data"]["root"], IMAGES), (config["out"], RUN)) if text}
    for root in sorted(filter(None, roots), key=len, reverse=True):  # the command has them inside a text
        words = [word.replace(root, Path(root).name) if "mixture" in word else word for word in words]
    found = portable({**result, "command": words}, places, "pretrain")
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
        return key + equals + (places.get(path, text) if text else "")
    place = next((place for place in places if path.is_relative_to(place)), None)
    named = _of_program(path) if place is None else str(Path(places[place]) / path.relative_to(place))
    return key + equals + named


def _of_program(path: Path) -> str:
    """Return the place of a config file in the program, or the last part of another path."""
    tails = [Path(*path.parts[place:]) for place, part in enumerate(path.parts) if part == CONFIGS.name]
    return str(next((tail for tail in tails if (CONFIGS.parent / tail).is_file()), path.name))

"""The same result without the folders of the machine that made it: anybody can read it, and repeat its command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixbench.paths import CONFIGS
from pixbench.results import config_hash

IMAGES, RUN = "IMAGES", "RUN"
"""What stands for the folder of the images and for the output folder."""


def portable(result: Mapping[str, Any], out: str) -> dict[str, Any]:
    """Return the result of a pre-training run in which no text is an absolute path.

    The folder of the images and the output folder get a name, config files of this program their place in it; of any other path
    only its last part is left.

    Args:
        result: the result as the run wrote it.
        out: what its settings name as its output folder afterwards.
    """
    known = {str(result["config"]["data"]["root"]): IMAGES, str(result["config"]["out"]): RUN}
    found: dict[str, Any] = _neutral(dict(result), known)
    found["config"]["out"] = out
    command = ["pixbench", *found["command"][1:]]
    if command[1:2] != ["pretrain"]:  # python -m pretrain
        command.insert(1, "pretrain")
    return {**found, "config_sha256": config_hash(found["config"]), "command": command}


def _neutral(value: Any, known: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _neutral(part, known) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_neutral(part, known) for part in value]
    if not isinstance(value, str):
        return value
    key, equals, text = value.partition("=") if value.startswith("--") else ("", "", value)
    path = Path(text)
    if text in known:
        text = known[text]
    elif path.is_relative_to(CONFIGS.parent):
        text = str(path.relative_to(CONFIGS.parent))
    elif path.is_absolute():
        text = path.name
    return key + equals + text

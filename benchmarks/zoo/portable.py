"""The same result without the paths of the machine that made it: anybody can read it, and repeat its command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixbench.paths import CONFIGS
from pixbench.results import config_hash

IMAGES, RUN = "IMAGES", "RUN"
"""What stands in commands for the folder of the images and for the output folder."""


def portable(result: Mapping[str, Any], out: str) -> dict[str, Any]:
    """Return the result of a pre-training run with neutral paths in its command and its settings.

    Args:
        result: the result as the run wrote it.
        out: what its settings name as its output folder afterwards.
    """
    config = dict(result["config"])
    known = {str(config["data"]["root"]): IMAGES, str(config["out"]): RUN}
    config |= {"out": out, "data": {**config["data"], "root": IMAGES}}
    command = ["pixbench", *(_neutral(word, known) for word in result["command"][1:])]
    if command[1:2] != ["pretrain"]:  # python -m pretrain
        command.insert(1, "pretrain")
    return {**result, "config": config, "config_sha256": config_hash(config), "command": command}


def _neutral(word: str, known: Mapping[str, str]) -> str:
    key, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if value in known:
        return key + equals + known[value]
    path = Path(value)
    return key + equals + (str(path.relative_to(CONFIGS.parent)) if path.is_relative_to(CONFIGS.parent) else value)

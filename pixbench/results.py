"""`result.json`: what a run of any kind leaves behind, written once, by atomic rename."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import sys
from pathlib import Path
from typing import Any

from pixbench.errors import UserError
from pixbench.file_versions import RESULT_FILE, RESULT_SCHEMA
from pixbench.files import write_json

_PACKAGES = (
    "pixbench torch torchvision numpy detectron2 sal-detectron2 mmcv onedl-mmcv mmengine onedl-mmengine "
    "mmsegmentation onedl-mmsegmentation pycocotools cityscapesscripts"
).split()


def versions() -> dict[str, str]:
    """Versions of Python and of every package that takes part in a result, those installed only."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def config_hash(config: Any) -> str:
    """sha256 of a resolved config, independent of key order."""
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()


def write_result(folder: Path, result: dict[str, Any]) -> Path:
    """Write ``folder/result.json`` with schema, versions and command added."""
    path = folder / RESULT_FILE
    write_json(path, {"schema": RESULT_SCHEMA, **result, "versions": versions(), "command": sys.argv})
    return path


def read_result(path: Path) -> dict[str, Any]:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as a result ({error}); delete it and run that job again") from error
    if not isinstance(result, dict) or result.get("schema") != RESULT_SCHEMA:
        raise UserError(f"{path} is not a result of schema {RESULT_SCHEMA}; delete it and run that job again")
    return result

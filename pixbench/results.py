"""Write and read `result.json`, the result file of a run. It is written once, by an atomic rename."""

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
    "mmsegmentation onedl-mmsegmentation mmdet onedl-mmdetection pycocotools cityscapesscripts"
).split()


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that can affect a result."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def config_hash(config: Any) -> str:
    """Return the SHA-256 digest of a resolved config. The order of its keys does not matter."""
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()


def write_result(folder: Path, result: dict[str, Any]) -> Path:
    """Write ``folder/result.json``, with schema, versions and command added, and return its path."""
    path = folder / RESULT_FILE
    write_json(path, {"schema": RESULT_SCHEMA, **result, "versions": versions(), "command": sys.argv})
    return path


def read_result(path: Path) -> dict[str, Any]:
    """Read a result file.

    Raises:
        UserError: The file cannot be read, or it has another schema.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as a result ({error}); delete it and run that job again") from error
    if not isinstance(result, dict) or result.get("schema") != RESULT_SCHEMA:
        raise UserError(f"{path} is not a result of schema {RESULT_SCHEMA}; delete it and run that job again")
    return result

"""Paths of the files that belong to the program, in a checkout and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
# A wheel has `configs/` inside this package (see pyproject.toml), a checkout has it next to this package.
CONFIGS = next(folder for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if folder.is_dir())
"""Folder of the config files: `pretrain/`, `detection/`, `segmentation/`, `protocols/`, `suites/`, `data.yaml`."""

"""Where the files that belong to the program lie, in a checkout and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
# A wheel carries `configs/` inside of this package (see pyproject.toml), a checkout has it beside it.
CONFIGS = next(folder for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if folder.is_dir())
"""The folder of the configuration files: `pretrain/`, `detection/`, `segmentation/`, `protocols/`, `suites/`, `data.yaml`."""

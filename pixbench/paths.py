"""Paths of the files that belong to the program, in a checkout and in an installed wheel."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
# A wheel has `configs/` inside this package (see pyproject.toml), a checkout has it next to this package.
CONFIGS = next(folder for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if folder.is_dir())
"""Folder of the config files: `pretrain/`, `detection/`, `segmentation/`, `protocols/`, `suites/`, `data.yaml`."""

ZOO = Path(os.path.expanduser(os.environ.get("PIXBENCH_ZOO") or _PACKAGE.parent / "zoo"))
"""Folder of the zoo, which a wheel does not hold: one folder for each backbone (docs/zoo.md)."""

STUDY = _PACKAGE.parent / "study"
"""Folder of the results of the study (docs/study.md), which a wheel does not hold; `scripts/study.py` writes it."""

RESULT_JSON_SCHEMA = _PACKAGE / "result.schema.json"
"""JSON Schema (draft 2020-12) of a result file; `scripts/generate_docs.py` writes it."""


def find_config(path: str | Path) -> Path:
    """Return ``path``, or the config file of this program if ``path`` begins with `configs/` and does not exist here.

    So `configs/pretrain/pixpro_100ep.yaml` is found from any folder, also if PixBench was installed from a wheel.
    """
    path = Path(path)
    if path.parts[:1] == ("configs",) and not path.exists() and (own := CONFIGS.parent / path).exists():
        return own
    return path

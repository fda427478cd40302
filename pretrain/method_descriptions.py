"""Describe each method for `pixbench methods`: its title, its configs and its settings."""

from __future__ import annotations

from dataclasses import fields

import yaml
from docstring_parser import parse

from pixbench.paths import CONFIGS
from pretrain.methods import METHODS


def describe(name: str) -> str:
    """Return the description of method ``name``: title, files in `configs/pretrain` that use it, one line per setting."""
    method = METHODS[name]
    texts = setting_descriptions(method.Config)
    settings = [(f"{f.name}: {f.default}", texts.get(f.name, "")) for f in fields(method.Config)]
    width = max((len(setting) for setting, _ in settings), default=0)
    lines = [f"{name} – {method.title}", f"  configs: {', '.join(config_files(name)) or 'none'}"]
    return "\n".join(lines + [f"  {setting:{width}}  {text}" for setting, text in settings])


def setting_descriptions(config: type) -> dict[str, str]:
    """Return the description of each setting in the docstrings of ``config`` and its bases; ``config`` comes first."""
    params = [p for part in reversed(config.__mro__) for p in parse(part.__doc__ or "").params]
    return {p.arg_name: " ".join((p.description or "").split()) for p in params}


def config_files(name: str) -> list[str]:
    """Return the names of the files in `configs/pretrain` that are configs of the method ``name``."""
    found = []
    for path in sorted((CONFIGS / "pretrain").glob("*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        if content.get("method", {}).get("name") == name:
            found.append(path.name)
    return found

"""`pixbench methods`: the pre-training methods, their settings and their ready-made configs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).parents[1] / "configs" / "pretrain"


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    parser = subparsers.add_parser("methods", help="list the pre-training methods, their settings and configs")
    parser.add_argument("name", nargs="*", help="only these (default: all)")
    parser.set_defaults(run=list_methods)


def list_methods(args: argparse.Namespace) -> None:
    """Print name, title, configs and knobs of each method. UserError for an unknown name."""
    from pretrain.errors import UserError, did_you_mean
    from pretrain.methods import METHODS

    unknown = [name for name in args.name if name not in METHODS]
    if unknown:
        hint = did_you_mean(unknown[0], METHODS)
        raise UserError(f"there is no method {', '.join(unknown)}{hint} (known: {', '.join(METHODS)})")
    print("\n\n".join(describe(name) for name in args.name or METHODS))


def describe(name: str) -> str:
    """A paragraph: the method's title, the files in `configs/pretrain` that use it, one line a knob with its default."""
    from dataclasses import fields

    from pretrain.methods import METHODS

    method = METHODS[name]
    says = descriptions(method.Config)
    settings = [(f"{f.name}: {f.default}", says.get(f.name, "")) for f in fields(method.Config)]
    width = max((len(setting) for setting, _ in settings), default=0)
    lines = [f"{name} – {method.title}", f"  configs: {', '.join(configs(name)) or 'none'}"]
    return "\n".join(lines + [f"  {setting:{width}}  {text}" for setting, text in settings])


def descriptions(config: type) -> dict[str, str]:
    """What the docstrings of ``config`` and its bases say of each knob; where two do, that of the nearer class."""
    from docstring_parser import parse

    params = [p for part in reversed(config.__mro__) for p in parse(part.__doc__ or "").params]
    return {p.arg_name: " ".join((p.description or "").split()) for p in params}


def configs(name: str) -> list[str]:
    """File names of the configs of method ``name``."""
    import yaml

    found = []
    for path in sorted(CONFIGS.glob("*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        if content.get("method", {}).get("name") == name:
            found.append(path.name)
    return found

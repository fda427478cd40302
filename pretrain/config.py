"""Settings of a pre-training run. They are read from YAML files and the command line.

    python -m pretrain --config configs/pretrain/pixpro_100ep.yaml --config configs/pretrain/mini.yaml \
        --data.root DIR --out RUN --epochs 5

Later files override earlier files, and options override all files. The settings below ``method`` depend on
``method.name``: they are the fields of that method's `Config`.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from pixbench.errors import UserError, did_you_mean, explain
from pixbench.paths import find_config
from pretrain.limits import check_limits
from pretrain.methods import METHODS
from pretrain.models.backbone_spec import BackboneSpec
from pretrain.models.named_spec import NamedSpec
from pretrain.optim import OptimizerConfig
from pretrain.schedule import ScheduleConfig
from pretrain.settings import RANGE, ROOTS, AugmentConfig, DataConfig, LogConfig, MethodConfig, RunConfig

PROG = "pixbench pretrain"
RESNET = "resnet"
"""Name of the backbones that `BackboneSpec` describes."""


def parse(argv: Sequence[str]) -> RunConfig:
    """Read the settings of a run from the command line ``argv``.

    Raises:
        UserError: Something is wrong with ``argv`` or a config file. The message is one sentence.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--config", action="append", default=[])
    first.add_argument("--method.name", dest="name")
    first.add_argument("--backbone.name", dest="backbone")
    first.add_argument("-h", "--help", action="store_true")
    try:
        known, rest = first.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise UserError(f"{error}; see {PROG} --help") from error
    files = {path: _read_yaml(path) for path in (str(find_config(path)) for path in known.config)}
    name = known.name or _last_named(files, "method")
    backbone = known.backbone or _last_named(files, "backbone") or RESNET
    if known.help:
        build_parser(name or next(iter(METHODS)), backbone).print_help()
        raise SystemExit(0)
    parser = build_parser(name, backbone)
    words = []
    for path, content in _of_this_backbone(files, backbone).items():
        _check_keys(content, parser, str(name), path)
        words += ["--config", path if content == files[path] else yaml.safe_dump(content)]
    try:
        given = [*words, "--method.name", str(name), "--backbone.name", backbone, *rest]
        return _instantiate(parser, parser.parse_args(given))
    except (argparse.ArgumentError, ValueError, TypeError, OverflowError) as error:
        _check_range(said := _one_line(error))
        settings = _settings(parser)
        keys = [word[2:].partition("=")[0] for word in rest if word.startswith("--") and word in said]
        unknown = [key for key in keys if key not in settings]
        hint = _hint(unknown[0], settings, str(name), "--") if unknown else f"see {PROG} --method.name {name} --help"
        raise UserError(f"settings: {said}; {hint}") from error


def from_dict(content: dict[str, Any]) -> RunConfig:
    """Build a run from nested plain containers, for example from `RunConfig.as_dict` or a checkpoint's ``config``."""
    name = content.get("method", {}).get("name")
    parser = build_parser(name, (content.get("backbone") or {}).get("name", RESNET))
    _check_keys(content, parser, str(name), "config")
    try:
        return _instantiate(parser, parser.parse_object(deepcopy(content)))  # jsonargparse changes what it is given
    except (argparse.ArgumentError, ValueError, TypeError, OverflowError) as error:
        _check_range(said := _one_line(error))
        raise UserError(f"settings: {said}") from error


def _last_named(files: dict[str, dict[str, Any]], group: str) -> str | None:
    """Return the name that the last of ``files`` that gives one gives to ``group``."""
    named = [content[group].get("name") for content in files.values() if isinstance(content.get(group), dict)]
    return next((str(name) for name in reversed(named) if name is not None), None)


def _of_this_backbone(files: dict[str, dict[str, Any]], name: str) -> dict[str, dict[str, Any]]:
    """Return ``files`` without what they say of another backbone than ``name``, that of the run.

    Settings without a name are those of the backbone that was named last, and of a ResNet at first. So what mini.yaml says of a
    ResNet, such as its width, is not for a backbone that is named elsewhere.
    """
    kept, current = {}, RESNET
    for path, content in files.items():
        if isinstance(group := content.get("backbone"), dict):
            current = str(group.get("name") or current)
            if current != name:
                content = {key: value for key, value in content.items() if key != "backbone"}
        kept[path] = content
    return kept


def build_parser(name: str | None, backbone: str = RESNET) -> ArgumentParser:
    """Return the parser of all settings of a run with method ``name`` on a backbone of the name ``backbone``."""
    if name not in METHODS:
        what = "method.name is not set" if name is None else f"method.name {name!r} is not known"
        raise UserError(
            f"{what}; choose one of {', '.join(METHODS)} (every file in configs/pretrain except mini*.yaml sets it)"
            f"{did_you_mean(str(name or ''), METHODS)}"
        )
    parser = ArgumentParser(
        prog=PROG,
        usage=f"{PROG} --config FILE [--config FILE ...] --data.root DIR --out DIR [--any.setting VALUE ...]",
        description=(
            "Pre-train a backbone. Only the methods supervised and cds use labels. Ready-made configs are in configs/pretrain. "
            f"The method's settings below are those of {name}; settings of another method: {PROG} --method.name NAME --help. "
            f"The backbone's are those of {'a ResNet' if backbone == RESNET else backbone}; for others add --backbone.name NAME. "
            "The options --data, --backbone, --optimizer, --schedule, --log and --method (CONFIG) each take a YAML file with the "
            "settings of that group, written without the name of the group."
        ),
        epilog="Several GPUs or machines: torchrun --nproc_per_node=8 -m pretrain ... (batch_size counts all processes).",
        exit_on_error=False,
        default_env=False,
        print_config=None,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config",
        action="config",
        metavar="FILE",
        help="YAML file with settings; may be repeated, later files override earlier files",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_class_arguments(RunConfig, skip={"method", "backbone"})
    which = f"one of {', '.join(METHODS)}; the settings below are those of {name}"
    parser.add_argument("--method.name", required=True, help=which)
    parser.add_class_arguments(METHODS[name].Config, "method", help=f"{METHODS[name].title} (method.name: {name})")
    family: type = BackboneSpec if backbone == RESNET else NamedSpec
    names = "resnet, timm:NAME for a network of timm, or MODULE:FUNCTION for one of your own"
    parser.add_argument(
        "--backbone.name", default=backbone, help=f"{names}; the settings below are those of {backbone}"
    )
    parser.add_class_arguments(family, "backbone", skip={"name"}, help="the network that is pre-trained")
    return parser


def _instantiate(parser: ArgumentParser, values: Namespace) -> RunConfig:
    tree = values.as_dict()
    for group in tree.values():
        if isinstance(group, dict):
            group.pop("__path__", None)  # jsonargparse adds it if a file was given for the group, as in --data FILE
    check_limits(flatten(tree))
    name = tree["method"].pop("name")
    parts = {
        "data": DataConfig,
        "augment": AugmentConfig,
        "optimizer": OptimizerConfig,
        "schedule": ScheduleConfig,
        "log": LogConfig,
    }
    scalars = {
        key: value for key, value in tree.items() if key not in {*parts, "method", "backbone", "config", "debug"}
    }
    resnet = tree["backbone"].get("name", RESNET) == RESNET
    fields = {key: value for key, value in tree["backbone"].items() if not resnet or key != "name"}
    return RunConfig(
        method=MethodConfig(name, METHODS[name].Config(**tree["method"])),
        backbone=BackboneSpec(**fields) if resnet else NamedSpec(**fields),
        **{key: part(**tree[key]) for key, part in parts.items()},
        **scalars,
    )


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = explain(error) if isinstance(error, OSError) else _one_line(error)
        raise UserError(f"config {path} cannot be read ({reason})") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"config {path} must contain settings as `key: value` lines, not a {type(content).__name__}")
    return content


def _check_keys(content: dict[str, Any], parser: ArgumentParser, name: str, path: str) -> None:
    """Check that every key of ``content`` is a setting of method ``name``.

    Raises:
        UserError: A key is unknown. The message names the first one and the most similar setting.
    """
    settings = _settings(parser)
    groups = {setting.partition(".")[0] for setting in settings if "." in setting}
    keys: list[str] = []
    for key, value in content.items():
        if key not in groups:
            keys.append(str(key))
        elif isinstance(value, dict):
            keys += [f"{key}.{inner}" for inner in value]
        else:
            raise UserError(
                f"config {path}: {key} is {value!r}, but it is a group of settings; write them indented below it"
            )
    for key in keys:
        if key not in settings:
            what = "a network by name" if parser.get_default("backbone.name") != RESNET else "a ResNet"
            owner = what if key.startswith("backbone.") else f"method {name}"
            raise UserError(f"config {path}: {key} is not a setting of {owner}; {_hint(key, settings, name)}")


def _settings(parser: ArgumentParser) -> list[str]:
    return [action.dest for action in parser._actions if action.dest not in {"help", "config", "debug"}]


RESNETS, NAMED = (
    {field.name for field in fields(mine)} - {field.name for field in fields(other)}
    for mine, other in ((BackboneSpec, NamedSpec), (NamedSpec, BackboneSpec))
)
"""Names of the settings of a backbone that only a ResNet has, and that only a network by name has."""
RENAMED = {"trunk": "backbone"}
"""Groups of settings that had another name before version 0.2 -> their name."""


def _hint(key: str, settings: list[str], name: str, dashes: str = "") -> str:
    """Name the setting that ``key`` probably means, or the command that lists the settings of method ``name``."""
    if (renamed := RENAMED.get(key.partition(".")[0])) is not None:
        return f"since version 0.2 it is called {dashes}{renamed}{key[len(key.partition('.')[0]) :]}"
    if key.removeprefix("backbone.") in RESNETS:
        return (
            f"it belongs to a ResNet; leave it out, or name the backbone after it: {dashes}backbone.name NAME, or a later config "
            "that does, such as mini_vit.yaml after mini.yaml"
        )
    if key.removeprefix("backbone.") in NAMED:
        return f"it belongs to a network by name; give one with {dashes}backbone.name"
    near = difflib.get_close_matches(key, settings, n=1, cutoff=0.8)
    near += [setting for setting in settings if setting.endswith(f".{key}")]
    if near:
        return f"did you mean {dashes}{near[0]}?"
    if key.startswith("method."):
        return f"pixbench methods {name} lists them"
    return f"{PROG} --method.name {name} --help lists them"


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dicts into one dict with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _check_range(said: str) -> None:
    """Replace what jsonargparse says of some settings, a list of all types that it tried, by one sentence."""
    if said.startswith('"data.pixel_range"'):
        raise UserError(f"data.pixel_range is {said.rpartition('Given value: ')[2]}; {RANGE}")
    if said.startswith('"data.mixture"'):
        raise UserError(f"data.mixture cannot be read; {ROOTS}")


def _one_line(error: BaseException) -> str:
    """Return a message of jsonargparse or PyYAML without line breaks and without Python types in angle brackets."""
    text = re.sub(r"<class '(\w+)'>", r"\1", str(error).replace("Parser key ", "").replace("typing.Literal", "one of "))
    text = text.replace("Expected a tuple", "Expected a list in brackets, such as '[A, B]' (a shell needs the quotes)")
    return " ".join(text.split())

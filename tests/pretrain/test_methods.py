"""What all methods have in common, and the command that lists them."""

from __future__ import annotations

import argparse
from dataclasses import FrozenInstanceError, fields, is_dataclass
from importlib import import_module
from pathlib import Path

import pytest
import torch
from tiny import ON_RESNETS, views

from benchmarks.commands.methods import register
from pixbench.errors import UserError
from pixbench.paths import CONFIGS
from pretrain import methods
from pretrain.method_descriptions import config_files, setting_descriptions
from pretrain.methods import METHODS
from pretrain.methods.base import Method
from pretrain.models.backbone_spec import BackboneSpec
from pretrain.models.resnet import build_resnet


def run(*words: str) -> None:
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers())
    args = parser.parse_args(["methods", *words])
    args.run(args)


def test_names() -> None:
    wanted = {"pixpro", "pixcontrast", "moco_v1", "moco_v2", "simclr", "byol", "densecl", "supervised", "cds"}
    assert wanted <= METHODS.keys()
    titles = [method.title for method in METHODS.values()]
    assert len(set(titles)) == len(titles)
    assert all("\n" not in title and len(title) < 100 for title in titles)


def test_every_method_that_is_written_is_in_the_table() -> None:
    files = {path.stem for path in Path(methods.__file__).parent.glob("*.py")}
    written = {
        value
        for file in files
        for value in vars(import_module(f"pretrain.methods.{file}")).values()
        if isinstance(value, type) and issubclass(value, Method) and "title" in vars(value)
    }
    assert written == set(METHODS.values())


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_has_a_default_and_a_line_of_its_own(name: str) -> None:
    config = METHODS[name].Config
    assert is_dataclass(config)
    described = setting_descriptions(config)
    assert list(described) == [f.name for f in fields(config)]
    assert all(described.values())
    settings = config()
    with pytest.raises(FrozenInstanceError):
        setattr(settings, next((f.name for f in fields(config)), "new"), 1)


def test_the_list_names_every_method_setting_and_config(capsys: pytest.CaptureFixture[str]) -> None:
    run()
    text = capsys.readouterr().out
    for name, method in METHODS.items():
        assert f"{name} – {method.title}\n" in text
    assert "moco_v2_200ep.yaml, moco_v2_800ep.yaml" in text
    assert "threshold: 0.7 " in text
    for path in (CONFIGS / "pretrain").glob("*.yaml"):
        assert path.name.startswith("mini") or path.name in text


def test_one_method(capsys: pytest.CaptureFixture[str]) -> None:
    run("simclr")
    assert capsys.readouterr().out.splitlines() == [
        "simclr – SimCLR: contrastive loss within the batch",
        f"  configs: {', '.join(config_files('simclr'))}",
        "  temperature: 0.1  softmax temperature.",
        "  hidden: 2048      width of the projector's hidden layer.",
        "  dim: 128          width of the projector's output.",
        "  q_weight: 0.0     λ, weight of the Q-score regulariser; 0 leaves it out. Its paper fine-tunes pre-trained networks "
        "with 1e-4.",
    ]


def test_unknown_method() -> None:
    with pytest.raises(UserError, match=r"there is no method pixpo; did you mean pixpro\? \(known: pixpro"):
        run("pixpo")


@pytest.mark.parametrize(
    "spec", [BackboneSpec(18, 1 / 16), BackboneSpec(50, 1 / 16, groups=4, width_per_group=16)], ids=["basic", "groups"]
)
@pytest.mark.parametrize("name", ON_RESNETS)
def test_every_method_takes_every_kind_of_block(name: str, spec: BackboneSpec) -> None:
    sizes = {"hidden": 8, "dim": 8, "queue_size": 8, "channels": 32, "classes": 4}
    config = METHODS[name].Config(**{f.name: sizes[f.name] for f in fields(METHODS[name].Config) if f.name in sizes})
    torch.manual_seed(0)
    method = METHODS[name](build_resnet(spec), config, total_steps=10).train()
    loss = method(views())["loss"]
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None for p in method.backbone.parameters())

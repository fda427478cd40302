"""The `transfer` and `protocols` commands, as far as they go before a framework is needed."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import pytest
import torch

from benchmarks import protocol_facts
from benchmarks.commands import PIXBENCH
from benchmarks.commands.main import build_parser, main
from benchmarks.commands.protocols import register as register_protocols
from benchmarks.commands.transfer import parse_settings, register, torchrun_command
from pixbench.errors import UserError
from transfer.protocols import protocols


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    register(commands)
    register_protocols(commands)
    return parser.parse_args(words)


def test_settings_are_yaml_and_numbers_may_be_written_as_people_do() -> None:
    pairs = ["A.B=1", "C=[2, 3]", "LR=1e-3", "ON=false", "NAME=SyncBN", "EMPTY=", "EQ=a=b"]
    values = parse_settings(pairs)
    assert values == {"A.B": 1, "C": [2, 3], "LR": 0.001, "ON": False, "NAME": "SyncBN", "EMPTY": None, "EQ": "a=b"}


@pytest.mark.parametrize("pair", ["SOLVER.BASE_LR", "=3", "A=[1"])
def test_a_setting_that_is_none_is_named(pair: str) -> None:
    with pytest.raises(UserError, match="--set"):
        parse_settings([pair])


def test_weights_or_init_must_be_said_and_not_both(capsys: pytest.CaptureFixture[str]) -> None:
    for start in ((), ("--init", "random", "--weights", "x.pth")):
        with pytest.raises(SystemExit):
            parse("transfer", "voc_c4", *start, "--data-root", "d", "--out", "o")
    assert "--weights" in capsys.readouterr().err


def test_a_wrong_protocol_or_seed_stops_at_once(tmp_path: Path) -> None:
    common = ("--init", "random", "--data-root", str(tmp_path), "--out", str(tmp_path / "run"))
    args = parse("transfer", "voc_c5", *common)
    with pytest.raises(UserError, match="did you mean voc_c4"):
        args.run(args)
    args = parse("transfer", "voc_c4", *common, "--seed", "-1")
    with pytest.raises(UserError, match="--seed -1 is not possible; choose a number from 0 to 4294967295"):
        args.run(args)
    for option in ("--gpus", "--accumulate"):
        args = parse("transfer", "voc_c4", *common, option, "-3")
        with pytest.raises(UserError, match=f"{option} -3 is not possible; choose 1 or more"):
            args.run(args)
    for option, value in (("--like", "x.pth"), ("--cache", "c"), ("--workers", "2")):
        args = parse("transfer", "voc_c4", *common, option, value)
        with pytest.raises(UserError, match=f"{option} has no effect on voc_c4; leave it out"):
            args.run(args)
    assert not (tmp_path / "run").exists()


def test_several_gpus_start_the_same_command_under_torchrun() -> None:
    words = ["transfer", "voc_c4", "--init", "random", "--data-root", "data", "--out", "run", "--gpus", "8"]
    command = torchrun_command(8, words)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=8"]
    assert command == [*launcher, PIXBENCH[1], *words]


def test_too_many_gpus_are_refused(tmp_path: Path) -> None:
    args = parse("transfer", "voc_c4", "--init", "random", "--data-root", "d", "--out", str(tmp_path), "--gpus", "99")
    with pytest.raises(UserError, match="--gpus 99"):
        args.run(args)


def say(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    args = parse(*words)
    args.run(args)
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "continues"),
    [
        ("transfer coco_fpn_1x --init random --data-root D --out R", True),
        ("probe F --data-root D --out R", True),
        ("suite S", True),
        ("suite S --check", False),
        ("suite S --dry-run", False),
        ("data prepare cityscapes --root D --write", True),
        ("data prepare cityscapes --root D", False),
        ("data mini --root D", False),
        ("data broken --root D", False),
        ("weights inspect F", False),
        ("convert F --to timm -o G", False),
        ("protocols show coco_fpn_1x", False),
        ("table R", False),
        ("doctor", False),
    ],
)
def test_commands_that_go_on_after_an_interruption_are_known(line: str, continues: bool) -> None:
    args = build_parser().parse_args(line.split())
    assert args.continues(args) is continues


def test_protocols_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    listing = say(capsys, "protocols")
    for word in ("voc_c4", "coco_fpn_1x_2fc", "cityscapes_fcn16s", "VOC2007, VOC2012", "AP75", "74 V100"):
        assert word in listing
    one = say(capsys, "protocols", "show", "coco_fpn_1x")
    for word in (
        "4conv1fc",
        "detectron2",
        "zdaxie/PixPro",
        "90000 iterations of 0.371 s on 8 V100",
        "mask_AP (segm/AP)",
    ):
        assert word in one
    with pytest.raises(UserError, match="did you mean coco_fpn_2x"):
        say(capsys, "protocols", "show", "coco_fpn_3x")


def test_a_frozen_protocol_is_shown_with_settings_data_and_published_numbers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = say(capsys, "protocols", "show", "ade20k_knn")
    assert "data: ADEChallengeData2016: 20,210 for train, 2,000 for test pictures" in one
    assert "classes: 150; ignored: 0 and 255" in one
    assert "compare with: CAPI ViT-L/14, Places205: mIoU 35.2 [CAPI repository, README" in one
    assert re.search(r"settings.neighbours +1, 3, 10, 30 +1, 3, 10, 30 +Values of k", one)
    assert re.search(r"images.size +224 +128 +", one)
    assert re.search(r"settings.subsampling +1 +4 ", one)
    assert protocol_facts.NO_NUMBER in say(capsys, "protocols", "show", "voc12aug_knn")
    table = say(capsys, "protocols", "diff", "voc12aug_incontext", "voc12aug_incontext_public")
    assert re.search(r"settings.passes +\| +2 +\| +1|settings.passes +2 +1", table)


def test_each_protocol_says_its_data_and_each_frozen_one_its_settings() -> None:
    for protocol in protocols().values():
        assert dict(protocol_facts.facts(protocol))["data"]
        assert protocol_facts.settings(protocol) or protocol.framework != "frozen"


@pytest.mark.frameworks
def test_two_protocols_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    table = say(capsys, "protocols", "diff", "coco_fpn_1x", "coco_fpn_1x_2fc")
    assert [line.split()[0] for line in table.splitlines()[2:]] == [
        *("MODEL.ROI_BOX_HEAD.NORM", "MODEL.ROI_BOX_HEAD.NUM_CONV", "MODEL.ROI_BOX_HEAD.NUM_FC"),
        "MODEL.ROI_MASK_HEAD.NORM",
    ]
    assert "do not differ" in say(capsys, "protocols", "diff", "voc_c4", "voc_c4")
    with pytest.raises(UserError, match="voc_c4 is a protocol of detectron2, cityscapes_fcn16s of mmseg"):
        say(capsys, "protocols", "diff", "voc_c4", "cityscapes_fcn16s")


def test_the_supervised_backbone_comes_from_torchs_cache_or_says_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import resnet50

    from transfer.initial_weights import supervised_file
    from transfer.weights import load

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(
        UserError, match=r"https://\S+resnet50-0676ba61\.pth cannot be downloaded .* put it at (\S+)"
    ) as error:
        supervised_file()
    path = Path(str(error.value).rpartition(" ")[2])
    torch.save(resnet50().state_dict(), path)
    assert supervised_file() == path
    assert load(path).spec.width == 1


def arguments(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.Action]]:
    """Yield the command and each argument of ``parser`` and of the parsers below it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            assert {listed.dest for listed in action._choices_actions if listed.help} == set(action.choices), (
                parser.prog
            )
            for below in action.choices.values():
                yield from arguments(below)
        else:
            yield parser.prog, action


def test_every_argument_has_a_help_text() -> None:
    found = list(arguments(build_parser()))
    assert len(found) > 50
    assert [(command, action.dest) for command, action in found if not action.help] == []


def test_errors_begin_with_the_command_that_was_started(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "--epochs", "1"]) == 2
    assert capsys.readouterr().err.startswith("pixbench pretrain: error: method.name is not set")


def test_help_of_pretrain_shows_the_settings_of_the_given_method(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["pretrain", "--method.name", "moco_v2", "--help"])
    said = capsys.readouterr().out
    assert "--method.queue_size" in said
    assert "settings of another method: pixbench pretrain --method.name NAME --help" in " ".join(said.split())


@pytest.mark.parametrize("value", ["nan", "inf", "many"])
@pytest.mark.parametrize(
    "words",
    [
        ("transfer", "imagenet_probe", "--cache-gb"),
        ("transfer", "imagenet_probe", "--process-timeout"),
        ("probe", "backbone.pth", "--cache-gb"),
        ("suite", "suite.yaml", "--stall-minutes"),
        ("data", "broken", "--pixel_range", "0"),
    ],
)
def test_a_number_must_be_finite(words: tuple[str, ...], value: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No comparison with a limit refuses nan."""
    with pytest.raises(SystemExit) as ended:
        main([*words, value])
    assert ended.value.code == 2
    option = next(word for word in words if word.startswith("--"))
    assert f"argument {option}: '{value}' is not a finite number" in capsys.readouterr().err

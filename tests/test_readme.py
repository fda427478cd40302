"""What the README tells people to type is understood, and the files it links are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from benchmarks.commands.main import build_parser
from benchmarks.tables import BEGIN, END
from pretrain.config import parse

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINES = [
    line.split("  #")[0].split(" # ")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.S)
    for line in block.splitlines()
]


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("pixbench ")])
def test_pixbench_commands_are_understood(line: str) -> None:
    args = build_parser().parse_args(shlex.split(line)[1:])
    if hasattr(args, "suite"):
        assert (ROOT / args.suite).is_file()


@pytest.mark.parametrize("line", [line for line in LINES if "-m pretrain" in line])
def test_pretrain_commands_are_understood(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert parse(shlex.split(line.partition("-m pretrain")[2])).out


def test_make_has_the_two_commands() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for line in (line for line in LINES if line.startswith("make ")):
        assert re.search(rf"^{line.split()[1]}:", makefile, re.M)


def test_links_lead_somewhere_and_the_table_is_filled() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
    table = README.partition(BEGIN)[2].partition(END)[0]
    assert "| PixPro" in table
    assert "Not comparable with any published number" in table
    assert len(table.splitlines()) <= 75
    assert max(len(line) for line in table.splitlines() if line.startswith("|")) <= 125

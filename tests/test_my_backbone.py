"""The way from `my_backbone.py` to a table in docs/methods/backbones.md, as a reader types it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.commands import PIXBENCH
from benchmarks.commands.main import build_parser
from benchmarks.suite import read_suite
from pretrain.config import parse
from pretrain.models.named_network import look
from pretrain.models.named_spec import NamedSpec

PAGE = (Path(__file__).parents[1] / "docs" / "methods" / "backbones.md").read_text(encoding="utf-8")
WAY = PAGE.partition("### From my backbone to a table\n")[2].partition("\n### ")[0]
FEW = "64"
"""Number of pre-training images of the world; the others are as many as the page says."""


def block(kind: str, number: int = 0) -> str:
    return re.findall(rf"```{kind}\n(.*?)```", WAY, re.S)[number]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files of the page, and a command `pixbench`."""
    (tmp_path / "my_backbone.py").write_text(block("python"), encoding="utf-8")
    (tmp_path / "my_suite.yaml").write_text(block("yaml"), encoding="utf-8")
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "pixbench"
    command.write_text(f'#!/bin/sh\nexec {shlex.join(PIXBENCH)} "$@"\n')
    command.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_backbone", raising=False)
    return tmp_path


def run(folder: Path, script: str) -> str:
    """Run the shell lines ``script`` and return what they print."""
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    environment.pop("PIXBENCH_NETWORKS", None)
    done = subprocess.run(
        ["bash", "-e", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_network_and_the_commands_are_understood(folder: Path) -> None:
    seen = look(NamedSpec("my_backbone:Net"))
    assert [*seen.stage_strides.values()] == [4, 8, 16, 32]
    for line in (block("sh") + block("sh", 1)).replace("\\\n", "").splitlines():
        words = shlex.split(line.partition("pixbench ")[2])
        if words[:1] == ["pretrain"]:
            assert parse(words[1:]).backbone == NamedSpec("my_backbone:Net")
        elif words:
            assert build_parser().parse_args(words)
    assert read_suite("my_suite.yaml").rows["my_net"].set["backbone.name"] == "my_backbone:Net"


@pytest.mark.e2e
@pytest.mark.frameworks
def test_from_a_file_to_a_table(folder: Path) -> None:
    first = block("sh").replace("--root data", f"--root data --images {FEW}")
    table = run(folder, first)
    rows = [line for line in table.splitlines() if line.startswith("| my_net ")]
    assert len(rows) == 2, table  # frozen, and fine-tuned


@pytest.mark.e2e
@pytest.mark.frameworks
def test_as_a_suite(folder: Path) -> None:
    run(folder, f"pixbench data mini --root data --images {FEW}\n{block('sh', 1)}")
    table = (folder / "runs" / "suite" / "table.md").read_text(encoding="utf-8")
    assert {"my_net", "resnet"} <= {line.split()[1] for line in table.splitlines() if line.startswith("| ")}

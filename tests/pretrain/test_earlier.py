"""The newest checkpoints of a run: how many there are, and which one is taken when files are damaged."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pixbench.errors import UserError
from pixbench.file_versions import CHECKPOINT_FILE
from pretrain import checkpoint, earlier
from transfer.weights.sources.folders import in_folder


def content(step: int) -> dict[str, Any]:
    return {"config": {"epochs": 3}, "model": {"backbone.weight": torch.arange(40.0) + step}, "step": step}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Checkpoints of four steps, of which the last three are kept."""
    path, before = tmp_path / "run" / CHECKPOINT_FILE, None
    for step in (5, 10, 15, 20):
        earlier.save(path, content(step), 3, before)
        before = step
    return path.parent


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def flip(path: Path) -> None:
    """Change one bit of a weight in the middle of the file: `torch.load` does not notice."""
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"archive/data/0") + 200 if b"archive/data/0" in whole else whole.index(b"/data/0") + 200] ^= 1
    path.write_bytes(bytes(whole))


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES = [truncate, flip, empty]


def test_the_last_ones_are_kept(folder: Path) -> None:
    names = [path.name for path in earlier.earlier(folder)]
    assert names == ["checkpoint_step000000015.pth", "checkpoint_step000000010.pth"]
    assert [checkpoint.load(path)["step"] for path in earlier.earlier(folder)] == [15, 10]
    found = earlier.find(folder)
    assert found is not None
    assert (found.path, found.content["step"], found.note) == (folder / CHECKPOINT_FILE, 20, "")


def test_one_alone_needs_no_folder(tmp_path: Path) -> None:
    for step in (5, 10):
        earlier.save(tmp_path / CHECKPOINT_FILE, content(step), 1, step - 5 or None)
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT_FILE]


def test_a_smaller_number_removes_the_rest(folder: Path) -> None:
    earlier.save(folder / CHECKPOINT_FILE, content(25), 1, 20)
    assert earlier.earlier(folder) == []


def test_other_readers_of_the_folder_take_the_newest(folder: Path) -> None:
    assert in_folder("run", folder).files == (folder / CHECKPOINT_FILE,)


@pytest.mark.parametrize("harm", DAMAGES)
def test_a_damaged_newest_one(folder: Path, harm: Callable[[Path], None]) -> None:
    newest = folder / CHECKPOINT_FILE
    harm(newest)
    damaged = newest.read_bytes()
    found = earlier.find(folder)
    assert found is not None
    assert found.content["step"] == 15
    assert f"{newest} is damaged (" in found.note
    assert "after step 15" in found.note
    earlier.put_back(folder, found.path)
    assert checkpoint.load(newest, verify=True)["step"] == 15
    assert (folder / earlier.DAMAGED).read_bytes() == damaged
    earlier.save(newest, content(20), 3, 15)
    assert [checkpoint.load(path)["step"] for path in earlier.earlier(folder)] == [15, 10]
    assert in_folder("run", folder).files == (newest,)


@pytest.mark.parametrize("harm", DAMAGES)
def test_the_next_is_taken_until_one_is_good(folder: Path, harm: Callable[[Path], None]) -> None:
    newest, *before = folder / CHECKPOINT_FILE, *earlier.earlier(folder)
    harm(newest)
    harm(before[0])
    found = earlier.find(folder)
    assert found is not None
    assert found.content["step"] == 10
    harm(before[1])
    with pytest.raises(UserError, match=r"checkpoint\.pth cannot be read, it may be truncated \("):
        earlier.find(folder)


def test_a_missing_newest_one_is_not_taken_for_a_new_run(folder: Path) -> None:
    (folder / CHECKPOINT_FILE).unlink()
    with pytest.raises(UserError, match=r"checkpoint\.pth is missing, but .*step000000015\.pth is there"):
        earlier.find(folder)
    shutil.rmtree(folder / "earlier")
    assert earlier.find(folder) is None


def test_a_file_of_something_else_is_not_damage(folder: Path) -> None:
    torch.save({"state_dict": {}}, folder / CHECKPOINT_FILE)
    with pytest.raises(UserError, match="not a pre-training checkpoint"):
        earlier.find(folder)

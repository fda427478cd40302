"""Files appear whole, in folders that can be made."""

from __future__ import annotations

from pathlib import Path

import pytest

from pixbench.errors import UserError
from pixbench.files import make_folder, write_json, write_text


@pytest.mark.parametrize("place", ["file/x.txt", "file/deeper/x.txt"])
def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=f"{tmp_path / 'file'} is a file, so the folder"):
        write_text(tmp_path / place, "x")
    assert (tmp_path / "file").read_text() == "mine"


def test_folders_are_made_once(tmp_path: Path) -> None:
    assert make_folder(tmp_path / "a" / "b") == make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_numbers_that_json_does_not_know_become_null(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": [float("nan"), float("inf"), 1.5]})
    assert (tmp_path / "x.json").read_text().split() == ["{", '"a":', "[", "null,", "null,", "1.5", "]", "}"]

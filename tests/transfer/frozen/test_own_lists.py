"""Lists of training pictures of a user's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from pixbench.errors import UserError
from transfer.frozen.published_lists import own_list
from transfer.frozen.scenes import Scenes


def test_names_are_lines_and_may_have_blanks(tmp_path: Path) -> None:
    names = ["a picture of a cat", "2007_000032", "b"]
    pictures = tuple(tmp_path / f"{name}.jpg" for name in (*names, "picture"))
    (tmp_path / "list.txt").write_text("\n".join(["", f"{names[0]}  ", names[1], "", f"{names[2]}\r\n"]))
    found = own_list(tmp_path / "list.txt")
    assert found == names
    assert Scenes("photos, train", pictures, pictures).take(found).pictures == pictures[:3]


@pytest.mark.parametrize("content", ["", " \n\t\n"])
def test_an_empty_list_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "list.txt").write_text(content)
    with pytest.raises(UserError, match=r"list.txt is empty; give the names of pictures, one a line"):
        own_list(tmp_path / "list.txt")
    with pytest.raises(UserError, match=r"no.txt cannot be read"):
        own_list(tmp_path / "no.txt")

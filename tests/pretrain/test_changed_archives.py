"""An archive or an index that is not what was listed any more is an error that names it, never other images without a word."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from pixbench.errors import UserError
from pretrain.data.sources import open_source

COUNT = 24


def shard(path: Path, numbers: list[int]) -> Path:
    """All members are of one size, so the shard has one size, whatever their order."""
    with tarfile.open(path, "w") as archive:
        for number in numbers:
            picture = io.BytesIO()
            Image.new("RGB", (20, 20), (number * 10, 0, 0)).save(picture, "BMP")
            for kind, content in (("bmp", picture.getvalue()), ("cls", b"%d" % (number % 10))):
                info = tarfile.TarInfo(f"{number:04}.{kind}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def prepared(tmp_path: Path) -> Path:
    path = tmp_path / "s.index"
    open_source(str(shard(tmp_path / "s.tar", [*range(COUNT)]))).index.write(path)
    return path


def test_a_shard_that_was_packed_again_in_another_order(tmp_path: Path) -> None:
    path = prepared(tmp_path)
    size = (tmp_path / "s.tar").stat().st_size
    source = open_source(str(path))
    assert source.load(3).getpixel((0, 0)) == (30, 0, 0)
    other = shard(tmp_path / "new.tar", [*range(COUNT)][::-1])
    assert other.stat().st_size == size
    other.rename(tmp_path / "s.tar")
    assert source.load(3).getpixel((0, 0)) == (30, 0, 0)  # a run that has begun keeps the old one open
    sub = tmp_path / "moved"
    sub.mkdir()
    (tmp_path / "s.tar").rename(sub / "s.tar")
    (tmp_path / "s.tar").symlink_to(sub / "s.tar")
    from pretrain.data.sources import storage

    storage._open.clear()  # as in another process
    with pytest.raises(UserError, match=r"s\.tar has other content than when its images were listed; put the old file"):
        source.load(3)


def test_a_shard_that_is_cut_off_while_it_is_read(tmp_path: Path) -> None:
    source = open_source(str(prepared(tmp_path)))
    source.load(0)
    with open(tmp_path / "s.tar", "r+b") as stream:
        stream.truncate(20_000)
    with pytest.raises(UserError, match=r"s\.tar has 20000 bytes, but it had \d+ when its images were listed"):
        source.load(COUNT - 1)


def test_a_flipped_bit_in_an_index(tmp_path: Path) -> None:
    path = prepared(tmp_path)
    content = bytearray(path.read_bytes())
    offset = content.find((0).to_bytes(4, "little") + (1).to_bytes(4, "little") + (2).to_bytes(4, "little"))  # labels
    assert offset > 0
    content[offset] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        UserError, match=r"s\.index is damaged \(the checksum of .* is wrong\); make it again with pixbench"
    ):
        open_source(str(path))

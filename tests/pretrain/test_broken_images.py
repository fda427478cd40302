"""What people have among their images: read as documented, or skipped with a reason; never a warning on the terminal."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pretrain.data import pixels
from pretrain.data.pixels import BrokenImage, decode
from pretrain.data.sources import open_source
from pretrain.data.two_views import TooManyBroken, TwoViews

GRADIENT = np.linspace(0, 255, 40 * 30 * 3).astype(np.uint8).reshape(30, 40, 3)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims width × height pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.fixture(autouse=True)
def _no_warnings() -> None:
    warnings.simplefilter("error")


PLAIN = Image.fromarray(GRADIENT)
JPEG = encoded(PLAIN, "JPEG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (JPEG[: len(JPEG) // 2], "Truncated File Read"),
        (JPEG[:-40], "image file is truncated"),
        (b"this is no image, whatever its name says\n" * 20, "cannot identify image file"),
        (b"\0" * 5000, "cannot identify image file"),
        (bomb(20_000, 20_000), "could be decompression bomb"),
        (bomb(12_000, 12_000), "truncated"),  # not too large, but there is nothing in it
    ],
)
def test_broken_images_have_a_reason(data: bytes, reason: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BrokenImage, match=r"image a\.jpg is broken") as caught:
        decode(data, "a.jpg")
    assert reason in caught.value.reason
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_the_size_is_checked_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "MOST_PIXELS", 1000)
    with pytest.raises(BrokenImage, match="it has 40 × 30 pixels, more than 1000"):
        decode(JPEG, "a.jpg")


def test_unusual_images_are_read(capfd: pytest.CaptureFixture[str]) -> None:
    assert decode(encoded(PLAIN.convert("CMYK"), "JPEG"), "a").mode == "RGB"
    wide = Image.fromarray(GRADIENT[..., 0].astype(np.uint16) * 257)
    assert (np.asarray(decode(encoded(wide, "PNG"), "a")) == GRADIENT[..., :1]).all()
    palette = PLAIN.quantize(16)
    assert decode(encoded(palette, "PNG", transparency=bytes(range(16))), "a").mode == "RGB"
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        first = decode(encoded(frames[0], kind, save_all=True, append_images=frames[1:]), "a")
        assert np.abs(np.asarray(first).astype(int) - (255, 0, 0)).max() < 12
    assert capfd.readouterr().err == ""


def test_an_orientation_is_not_applied() -> None:
    """As in the published pipelines. The boxes are those of the stored pixels."""
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encoded(PLAIN, "JPEG", exif=exif), "a").size == (40, 30)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (20_000, 20), (20, 20_000)])
def test_extreme_shapes_have_views(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, (9, 99, 199)).save(tmp_path / "a.png")
    views = TwoViews(open_source(tmp_path, "flat"), size=16, scale=(0.08, 1.0), recipe="byol", seed=0, cache=False)
    for epoch in range(20):
        sample = views.sample(epoch, 0)
        assert sample.view1.shape == sample.view2.shape == (16, 16, 3)
        assert all(0 <= edge <= 1 for box in (sample.box1, sample.box2) for edge in box)


def test_the_next_image_is_taken(tmp_path: Path) -> None:
    for number in range(6):
        Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(tmp_path / f"{number}.png")
    for number in (2, 3, 5):
        (tmp_path / f"{number}.png").write_bytes(b"")
    source = open_source(tmp_path, "flat")
    for cache in (False, True):
        views = TwoViews(source, size=8, scale=(0.5, 1), recipe="plain", seed=0, cache=cache, most_skipped=3)
        taken = [views.sample(0, index) for index in range(6)]
        assert [sample.index for sample in taken] == [0, 1, 4, 4, 4, 0]
        empty = "it is empty"
        assert [dict(sample.skipped) for sample in taken[2:]] == [{2: empty, 3: empty}, {3: empty}, {}, {5: empty}]
        assert taken[2].box1 != taken[4].box1  # the crops are those of the broken image


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("most_skipped", [1, 3, 100])
def test_no_image_is_left(tmp_path: Path, cache: bool, most_skipped: int) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(b"")
    source = open_source(tmp_path, "flat")
    views = TwoViews(source, size=8, scale=(0.5, 1), recipe="plain", seed=0, cache=cache, most_skipped=most_skipped)
    error = views[0, 1]
    assert isinstance(error, TooManyBroken)
    assert set(error.skipped) == ({1, 2} if most_skipped == 1 else {0, 1, 2})

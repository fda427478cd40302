"""Pictures: every kind of damage, and sizes and orientations as Detectron2 reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mutations_pictures import bomb, turned, wide
from PIL import Image

from transfer.datasets.pictures import BROKEN, SMALL, Wanted, check_pictures, look_at


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A JPEG of 60 × 40 pixels."""
    path = tmp_path / "a.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def large(path: Path, ending: str, **options: object) -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, ending, **options)
    assert path.stat().st_size > SMALL
    return path.read_bytes()


def test_a_whole_picture(picture: Path) -> None:
    found = look_at(picture)
    assert (found.width, found.height, found.mode, found.orientation) == (60, 40, "RGB", 1)


@pytest.mark.frameworks
@pytest.mark.parametrize("orientation", [*range(10), 77, 65535])
def test_the_size_is_that_which_detectron2_reads(picture: Path, orientation: int) -> None:
    from detectron2.data.detection_utils import read_image

    turned(orientation)(picture)
    found = look_at(picture)
    assert (found.height, found.width) == read_image(str(picture), "BGR").shape[:2]
    assert found.orientation == (orientation if orientation in range(1, 9) else 1)


@pytest.mark.parametrize(("ending", "size"), [("JPEG", 1), ("JPEG", 0.5), ("PNG", 0.5), ("PNG", 1), ("BMP", 0.5)])
def test_a_truncated_file_is_broken(tmp_path: Path, ending: str, size: float) -> None:
    path = tmp_path / "a.jpg"
    data = large(path, ending)
    look_at(path)
    path.write_bytes(data[: int(len(data) * size) - 20])
    with pytest.raises(BROKEN):
        look_at(path)


def test_a_preview_is_not_the_end_of_the_picture(tmp_path: Path) -> None:
    """A JPEG that is cut off behind the small picture in its EXIF data ends with that one's end mark."""
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x010E] = "x" * 20_000 + "\u00ff\u00d9"
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, exif=exif.tobytes()[:-2] + b"\xff\xd9")
    data = path.read_bytes()
    end = data.index(b"\xff\xd9")
    assert end > SMALL
    path.write_bytes(data[: end + 1000])
    with pytest.raises(BROKEN):
        look_at(path)


def test_a_changed_byte_in_a_png_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    data = bytearray(large(path, "PNG"))
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BROKEN):
        look_at(path)


@pytest.mark.parametrize(
    "data", [b"", bytes(5000), b"<html>404 Not Found</html>", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]
)
def test_what_is_no_picture_is_broken(picture: Path, data: bytes) -> None:
    picture.write_bytes(data)
    (problem,) = check_pictures([Wanted(picture, 60, 40, "a.json")]).problems
    assert problem.startswith(f"{picture}: cannot be read (")
    assert problem.endswith("; replace it")
    assert problem.isprintable()


def test_a_header_of_a_very_large_picture_is_refused(picture: Path) -> None:
    bomb(picture)
    assert "cannot be read" in check_pictures([Wanted(picture, 60_000, 60_000, "a.json")]).problems[0]


def test_bytes_behind_the_end_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    data = large(path, "JPEG")
    for more in (b"", b"camera", b"camera" * 5000):
        path.write_bytes(data + more)
        assert check_pictures([Wanted(path, 300, 200, "a.json")]).problems == []


def test_more_than_8_bits_would_be_clipped(picture: Path) -> None:
    with Image.open(picture) as image:
        image.load()
    wide(image).save(picture, "PNG")
    (problem,) = check_pictures([Wanted(picture, 60, 40, "a.json")]).problems
    assert "has more than 8 bits per pixel (mode I;16), which would be clipped; save it with 8 bits" in problem


def test_sizes_are_compared(picture: Path) -> None:
    def found(width: int | None, height: int | None) -> tuple[list[str], list[str]]:
        report = check_pictures([Wanted(picture, width, height, "a.json (image 7)")])
        return report.problems, report.notes

    assert found(60, 40) == found(None, None) == ([], [])
    assert "has 60 × 40 pixels, but a.json (image 7) says 61 × 40; use the picture that was" in found(61, 40)[0][0]
    turned(3)(picture)
    assert "1 × picture with an EXIF orientation, turned upright" in found(60, 40)[1][0]
    turned(6)(picture)
    assert found(40, 60)[0] == []
    assert "is turned to 40 × 60 by its EXIF orientation 6, but a.json (image 7) says 60 × 40" in found(60, 40)[0][0]


def test_a_missing_picture_says_who_names_it(tmp_path: Path) -> None:
    (problem,) = check_pictures([Wanted(tmp_path / "a.jpg", 1, 1, "a.json (image 7)")]).problems
    assert problem.endswith("a.jpg: is missing, but a.json (image 7) names it; restore it, or take it out there")

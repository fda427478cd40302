"""Check pictures: that they are whole, in 8 bits, and of the size that their annotations say. Large ones are not decoded."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import ExifTags, Image

from transfer.datasets.report import Report

WIDE = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's modes of pixels with more than 8 bits. Detectron2 clips them to white."""
FORMATS = ("JPEG", "MPO", "PNG", "BMP", "DIB", "TIFF", "WEBP", "PPM", "GIF", "JPEG2000")
"""Pillow's names of the formats that OpenCV reads too."""
THIN = 300
"""Longest side of a picture, as a multiple of its shortest."""
END = b"\xff\xd9"
"""How a JPEG ends."""
ORIENTED = {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"}
"""Entries of a PNG that may hold an orientation. Without any, Pillow's ``getexif`` would decode all pixels to search on."""
TAIL = 4096
"""Bytes at the end of a JPEG in which its end mark must lie; some cameras write more behind it."""
SMALL, PREVIEW = 16_384, 80_000
"""Bytes of a JPEG that is always decoded, and of one whose EXIF data may hold a small picture with an end mark of its own."""
BROKEN = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # Pillow raises SyntaxError for a broken PNG


class Wanted(NamedTuple):
    """A picture, and the size in pixels that its annotations are made for (None if they do not say)."""

    path: Path
    width: int | None
    height: int | None
    source: str
    """The file that says so."""


@dataclass(frozen=True)
class Picture:
    """What the header of a picture says. The size is that of the upright picture."""

    width: int
    height: int
    mode: str
    format: str
    """Pillow's name of the file format."""
    orientation: int
    """EXIF orientation: 1 upright; 2 to 4 mirrored or upside down; 5 to 8 turned by a quarter."""


def look_at(path: Path) -> Picture:
    """Return what the header says. A JPEG is decoded only if it is small or its end is not sure; a PNG has checksums.

    Raises:
        OSError, SyntaxError, ValueError, DecompressionBombError: it is not a whole picture.
    """
    with Image.open(path) as image:
        (width, height), mode, form, tail = image.size, image.mode, str(image.format), _tail(path)
        png = form == "PNG"
        bare = png and ORIENTED.isdisjoint(image.info) and b"eXIf" not in tail
        orientation = 1 if bare else _orientation(image)
        large = path.stat().st_size >= (PREVIEW if "exif" in image.info else SMALL)
        if png:
            with Image.open(path) as again:  # only possible before anything else is read
                again.verify()
        elif not (image.format == "JPEG" and large and END in tail):
            image.load()
    return Picture(*((height, width) if orientation > 4 else (width, height)), mode, form, orientation)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation. As in Detectron2, 1 if there is none, or none that can be read."""
    with suppress(Exception):
        found = image.getexif().get(ExifTags.Base.Orientation)
        return found if type(found) is int and 1 <= found <= 8 else 1
    return 1


def _tail(path: Path) -> bytes:
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - TAIL))
        return stream.read()


def reason(error: Exception) -> str:
    """Return Pillow's message without addresses of objects in memory."""
    return str(error).replace("\n", " ").partition(" <_io.")[0].partition(" '/")[0] or type(error).__name__


def check_pictures(wanted: Sequence[Wanted]) -> Report:
    """Check each picture of ``wanted``."""
    report = Report()
    for item in wanted:
        try:
            picture = look_at(item.path)
        except FileNotFoundError:
            report.problem(
                "picture missing",
                str(item.path),
                f"is missing, but {item.source} names it",
                "restore it, or take it out there",
            )
        except BROKEN as error:
            report.problem("picture broken", str(item.path), f"cannot be read ({reason(error)})", "replace it")
        else:
            compare(item, picture, report)
    return report


def compare(item: Wanted, picture: Picture, report: Report) -> None:
    """Report a picture that frameworks would read wrongly, or that does not have the size that ``item`` says."""
    where, size = str(item.path), (picture.width, picture.height)
    if picture.mode in WIDE:
        report.problem(
            "picture wide",
            where,
            f"has more than 8 bits per pixel (mode {picture.mode}), which would be clipped",
            "save it with 8 bits",
        )
    if picture.format not in FORMATS:
        what = f"is a {picture.format} file, which not all frameworks read"
        report.problem("picture format", where, what, "save it as JPEG or PNG")
    if picture.format == "TIFF" and picture.orientation > 1:
        what = "is a TIFF with an EXIF orientation, which Pillow and the frameworks would both apply"
        report.problem("picture TIFF", where, what, "save it upright as PNG")
        return
    if max(size) > THIN * min(size):
        what = f"has {size[0]} × {size[1]} pixels: made smaller, nothing is left of its short side"
        report.problem("picture thin", where, what, "take it out, or cut it")
    if None not in (item.width, item.height) and (item.width, item.height) != size:
        given = f"{item.width} × {item.height}"
        turned = picture.orientation > 4 and (item.height, item.width) == size
        what = (
            f"is turned to {size[0]} × {size[1]} by its EXIF orientation {picture.orientation}, but {item.source} says {given}"
            if turned
            else f"has {size[0]} × {size[1]} pixels, but {item.source} says {given}"
        )
        remedy = (
            "remove its EXIF orientation, or annotate the upright picture"
            if turned
            else "use the picture that was annotated, or annotate this one"
        )
        report.problem("picture size", where, what, remedy)
    elif picture.orientation > 1:
        report.note(
            "picture EXIF",
            where,
            "picture with an EXIF orientation, turned upright as the frameworks do: check that its annotations fit",
        )

"""Draw label maps and objects over pictures.

Shapes: a drawn picture has H × W pixels, a label map h × w; K classes; n objects.
"""

from __future__ import annotations

import base64
import colorsys
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from transfer.datasets.mask_numbers import IGNORED

SIDE = 320
"""Longest side of a drawn picture in pixels."""
COVER = 0.62
"""Share of the colour of a class in its pixels."""
OVER_OBJECT = 0.4
"""Share of the colour of an object in its mask."""
QUALITY = 72
DASH = 5
"""Length in pixels of the dashes around an object that is wrong, and of the gaps between them."""
LETTERS = 13

Colour = tuple[int, int, int]


def enlarged(picture: Image.Image) -> Image.Image:
    """Return ``picture`` with a longest side of `SIDE` pixels."""
    scale = SIDE / max(picture.size)
    width, height = (max(1, round(scale * side)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def uri(picture: Image.Image, lossless: bool = False) -> str:
    """Return ``picture`` as the address of an image that holds its own content."""
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=QUALITY, lossless=lossless, method=4)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"


def jpeg_uri(content: bytes) -> str:
    """Return the address of a JPEG file."""
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"


def with_labels(picture: Image.Image, labels: np.ndarray, colours: np.ndarray) -> Image.Image:
    """Return ``picture`` under its label map (h, w) in the ``colours`` (K, 3) of the classes, with white borders between them.

    Pixels that are ignored keep the colours of the picture.
    """
    shown = enlarged(picture)
    known = np.array(Image.fromarray(labels).resize(shown.size, Image.Resampling.NEAREST))
    pixels = np.asarray(shown, np.float32)
    grey = pixels.mean(2, keepdims=True)
    table = np.zeros((256, 3), np.float32)
    table[: len(colours)] = colours
    drawn = np.where((known != IGNORED)[..., None], (1 - COVER) * grey + COVER * table[known], pixels)
    border = np.zeros(known.shape, bool)
    border[:, 1:] |= known[:, 1:] != known[:, :-1]
    border[1:] |= known[1:] != known[:-1]
    drawn[border] = 255
    return Image.fromarray(drawn.round().astype(np.uint8))


def with_objects(
    picture: Image.Image,
    boxes: np.ndarray,
    words: Sequence[str],
    colours: Sequence[Colour],
    right: Sequence[bool],
    masks: np.ndarray | None = None,
    keypoints: np.ndarray | None = None,
) -> Image.Image:
    """Return ``picture`` with objects: solid boxes around those that are right, dashed ones around the others.

    Args:
        picture: the picture.
        boxes: (n, 4), x1, y1, x2, y2 in shares of its sides.
        words: what is written at each box.
        colours: of each object.
        right: whether each object is right.
        masks: (n, h, w) bool.
        keypoints: (n, J, 3), x and y in shares of the sides; what is not above 0 in the last number is not drawn.
    """
    shown = enlarged(picture)
    for mask, colour in () if masks is None else zip(masks, colours, strict=True):
        cover = Image.fromarray(mask.astype(np.uint8) * round(255 * OVER_OBJECT)).resize(shown.size)
        shown.paste(Image.new("RGB", shown.size, colour), (0, 0), cover)
    pen, font, scale = ImageDraw.Draw(shown), ImageFont.load_default(LETTERS), np.array(shown.size * 2)
    for number in reversed(range(len(boxes))):  # the first one is drawn last, over the others
        x1, y1, x2, y2 = (boxes[number] * scale).round().tolist()
        x2, y2 = max(x1, min(x2, shown.width - 1)), max(y1, min(y2, shown.height - 1))
        _frame(pen, (x1, y1, x2, y2), colours[number], right[number])
        for x, y, visible in keypoints[number] if keypoints is not None else ():
            if visible > 0:
                place = x * shown.width, y * shown.height
                pen.circle(place, 3, fill=colours[number], outline="white")
        *_, across, below = pen.textbbox((0, 0), words[number], font)
        corner = min(x1, max(0, shown.width - across - 4)), max(0, y1 - below - 4)
        pen.rectangle((*corner, corner[0] + across + 4, corner[1] + below + 4), fill=colours[number])
        pen.text((corner[0] + 2, corner[1] + 2), words[number], fill=_readable(colours[number]), font=font)
    return shown


def _frame(pen: ImageDraw.ImageDraw, box: tuple[float, float, float, float], colour: Colour, solid: bool) -> None:
    if solid:
        pen.rectangle(box, outline=colour, width=3)
        return
    x1, y1, x2, y2 = box
    for start, end, fixed, across in ((x1, x2, (y1, y2), True), (y1, y2, (x1, x2), False)):
        for at in np.arange(start, end + 1, 2 * DASH):
            until = min(at + DASH, end)
            for side in fixed:
                pen.line((at, side, until, side) if across else (side, at, side, until), fill=colour, width=3)


def _readable(colour: Colour) -> str:
    """Return black or white, whichever differs more from ``colour``."""
    red, green, blue = colour
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"


def object_colour(kind: int) -> Colour:
    """Return a bright colour for class number ``kind``; neighbours differ by the golden ratio of the hues."""
    red, green, blue = colorsys.hsv_to_rgb(0.13 + kind * 0.618034, 0.85, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)

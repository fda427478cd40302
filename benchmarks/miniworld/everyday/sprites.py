"""Draw an object as a cut-out: its parts with their materials, shaded, with soft edges."""

from __future__ import annotations

import cv2
import numpy as np

from benchmarks.miniworld.cutout import Cutout
from benchmarks.miniworld.everyday.figures import Figure
from benchmarks.miniworld.everyday.materials import Palette
from benchmarks.miniworld.everyday.textures import Grey

BITS = 4  # corners are drawn at fractions of a pixel: 1 / 2 ** BITS
TEXTURE = 1 / 50  # a texture of scale 1 has its own size on an object 50 pixels long
DARKEST = 0.45  # brightness of a surface that is turned away from the light
BRIGHTEST = 1.25


def area(figure: Figure) -> float:
    """Return the area of a figure, in its own units."""
    low = figure.points.min(0)
    scale = 48 / float((figure.points.max(0) - low).max())
    sheet = np.zeros((50, 50), np.uint8)
    corners = np.rint((figure.points - low) * np.float32(scale)).astype(np.int32)
    start = 0
    for part in figure.parts:
        for polygon in part.polygons:
            cv2.fillPoly(sheet, [corners[start : start + len(polygon)]], 1)
            start += len(polygon)
    return cv2.countNonZero(sheet) / scale**2


def draw(figure: Figure, palette: Palette, scale: float, light: tuple[float, float]) -> Cutout:
    """Draw a figure enlarged by ``scale``, in pixels; ``light`` (x, y) is where the light comes from, at most 1 long."""
    low, high = figure.points.min(0), figure.points.max(0)
    width, height = (int(np.ceil(n * scale)) + 3 for n in high - low)
    zoom = scale * float((high - low).max()) * TEXTURE
    colours, shades = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)
    alpha = np.zeros((height, width), np.uint8)
    pixels = (figure.points - low) * np.float32(scale) + np.float32(1)
    starts = figure.starts
    corners = np.rint(pixels * np.float32(1 << BITS)).astype(np.int32)
    firsts = np.maximum(np.minimum.reduceat(corners, starts, 0) // (1 << BITS) - 1, 0).tolist()
    lasts = (np.maximum.reduceat(corners, starts, 0) // (1 << BITS) + 2).tolist()
    start = 0
    for part, (left, top), (right, bottom) in zip(figure.parts, firsts, lasts, strict=True):
        right, bottom = min(right, width), min(bottom, height)
        polygons = []
        for polygon in part.polygons:
            polygons.append(corners[start : start + len(polygon)])
            start += len(polygon)
        mask = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillPoly(mask, polygons, 255, cv2.LINE_AA, BITS, (-left << BITS, -top << BITS))
        place = np.s_[top:bottom, left:right]
        cv2.copyTo(palette.surface(part.material, right - left, bottom - top, zoom), mask, colours[place])
        cv2.copyTo(shading(mask, light), mask, shades[place])
        cv2.max(alpha[place], mask, alpha[place])
    brightness = shades.astype(np.float32) * np.float32((BRIGHTEST - DARKEST) / 255) + np.float32(DARKEST)
    brightness *= alpha.astype(np.float32) * np.float32(1 / 255)
    return Cutout(colours * cv2.merge([brightness] * 3), alpha)


def shading(mask: Grey, light: tuple[float, float]) -> Grey:
    """Return the brightness (H, W) uint8 of a rounded surface: a blurred mask, moved towards the light."""
    side = max(3, int(0.8 * min(mask.shape)) | 1)
    middle = side // 2
    x, y = (int(middle - 0.4 * side * direction) for direction in light)
    return cv2.blur(mask, (side, side), anchor=(x, y), borderType=cv2.BORDER_CONSTANT)

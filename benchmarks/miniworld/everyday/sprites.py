"""Draw an object as a sprite: its parts with their materials, shaded, at twice the size and then reduced."""

from __future__ import annotations

import cv2
import numpy as np

from benchmarks.miniworld.cutout import Cutout
from benchmarks.miniworld.everyday.figures import Part
from benchmarks.miniworld.everyday.materials import Palette

FINE = 2  # drawn so many times as large
TEXTURE = 1 / 50  # a texture of scale 1 has its own size on an object 50 pixels long
DARKEST = 0.45  # brightness of a surface that is turned away from the light


def extent(parts: list[Part]) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and the upper corner of the bounding box of a figure."""
    points = np.concatenate([polygon for _, contours in parts for polygon in contours])
    return points.min(0), points.max(0)


def area(parts: list[Part]) -> float:
    """Return the area of a figure, in its own units."""
    low, high = extent(parts)
    scale = 48 / (high - low).max()
    sheet = np.zeros((50, 50), np.uint8)
    for _, contours in parts:
        for polygon in contours:
            cv2.fillPoly(sheet, [np.rint((polygon - low) * scale).astype(np.int32)], 1)
    return cv2.countNonZero(sheet) / scale**2


def draw(parts: list[Part], palette: Palette, length: float, light: tuple[float, float]) -> Cutout:
    """Draw a figure whose longer side has ``length`` pixels.

    ``light`` (x, y) is the direction from which the light comes; its length is at most 1.
    """
    low, high = extent(parts)
    scale = FINE * length / (high - low).max()
    width, height = (int(np.ceil(n * scale / FINE)) + 2 for n in high - low)
    size = (width, height)
    colours = np.zeros((FINE * height, FINE * width, 3), np.uint8)
    alpha = np.zeros((FINE * height, FINE * width), np.uint8)
    shades = np.full((height, width), 128, np.uint8)
    for material, contours in parts:
        polygons = [np.rint((polygon - low) * scale).astype(np.int32) + FINE for polygon in contours]
        everything = np.concatenate(polygons)
        left, top = everything.min(0) // FINE
        right, bottom = everything.max(0) // FINE + 1
        wide, tall = FINE * int(right - left), FINE * int(bottom - top)
        mask = np.zeros((tall, wide), np.uint8)
        for polygon in polygons:
            cv2.fillPoly(mask, [polygon], 255, offset=(-FINE * int(left), -FINE * int(top)))
        place = np.s_[FINE * top : FINE * bottom, FINE * left : FINE * right]
        cv2.copyTo(palette.surface(material, wide, tall, length * TEXTURE * FINE), mask, colours[place])
        cv2.bitwise_or(alpha[place], mask, alpha[place])
        coarse = cv2.resize(mask, (wide // FINE, tall // FINE), interpolation=cv2.INTER_AREA)
        cv2.copyTo(shading(coarse, light), coarse, shades[top:bottom, left:right])
    brightness = cv2.merge([shades] * 3).astype(np.float32) * np.float32((1.25 - DARKEST) / 255) + np.float32(DARKEST)
    shaded = cv2.resize(colours, size, interpolation=cv2.INTER_AREA) * brightness
    return Cutout(shaded, cv2.resize(alpha, size, interpolation=cv2.INTER_AREA))


def shading(mask: np.ndarray, light: tuple[float, float]) -> np.ndarray:
    """Return the brightness (H, W) uint8 of a rounded surface: a blurred mask, moved towards the light."""
    side = max(3, int(0.8 * min(mask.shape)) | 1)
    middle = side // 2
    x, y = (int(middle - 0.4 * side * direction) for direction in light)
    return cv2.blur(mask, (side, side), anchor=(x, y), borderType=cv2.BORDER_CONSTANT)

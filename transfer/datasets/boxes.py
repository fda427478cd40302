"""Check where boxes lie in their pictures."""

from __future__ import annotations

from transfer.datasets.report import Report

Box = tuple[float, float, float, float]
FRAYED = 2
"""Pixels by which a box may reach out of its picture without a word."""
FAR = 0.1
"""Part of the picture's side by which a box may reach out of it with a note."""


def check_place(box: Box, size: tuple[int, int], where: str, shown: str, report: Report) -> None:
    """Report a box that is not in its picture, or not completely.

    Args:
        box: (x1, y1, x2, y2) in pixels, from 0 to the width or height.
        size: width and height of the picture.
        where: the annotation, for messages.
        shown: the box as the file has it.
        report: gets what was found.
    """
    (x1, y1, x2, y2), (width, height) = box, size
    out = max(-x1 / width, -y1 / height, x2 / width - 1, y2 / height - 1)
    of = f"the picture of {width} × {height}"
    if 0 < x2 <= 1 and 0 < y2 <= 1:
        what = f"its box {shown} lies in one pixel of {of}: is it in parts of the picture's size?"
        report.problem("box in a pixel", where, what, "write it in pixels", "taken as it is")
    elif x2 < 0 or y2 < 0 or x1 > width or y1 > height:
        report.problem("box outside", where, f"its box {shown} lies outside {of}", "correct it")
    elif out > FAR:
        remedy = "correct it: is the order of its numbers right, and are they for this picture?"
        report.problem("box beyond", where, f"its box {shown} reaches far out of {of}", remedy, "cut at the border")
    elif out * max(size) > FRAYED:
        report.note("box beyond", where, "box that reaches out of its picture, cut at the border")

"""Matches of detections as results store them, without a run."""

from __future__ import annotations

import numpy as np

IMAGES, CLASSES = 30, 4


def matches(rule: str, draw: np.random.Generator, images: int = IMAGES) -> dict[str, np.ndarray]:
    """Matches of a run: few different scores, so that many are equal; the last class has no object in most images."""
    truths = draw.integers(0, 4, (images, CLASSES)) * (draw.random((images, CLASSES)) < (1, 1, 1, 0.1))
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("image", "class", "score", "right")}
    for kind in range(CLASSES):
        for image in range(images):
            count = int(truths[image, kind]) + int(draw.integers(0, 4))
            right = np.zeros((count, 10), bool)
            for at in range(10):
                right[: min(count, int(truths[image, kind])), at] = (
                    draw.random(min(count, truths[image, kind])) > at / 12
                )
            found["image"].append(np.full(count, image))
            found["class"].append(np.full(count, kind))
            found["score"].append(np.sort(np.round(draw.random(count), 2))[::-1])
            found["right"].append(right[draw.permutation(count)])
    joined = {name: np.concatenate(parts) for name, parts in found.items()}
    joined["ignored"] = ~joined["right"] & (draw.random((len(joined["right"]), 1)) < 0.1)
    about = {"images": np.array([f"{n}.jpg" for n in range(images)]), "classes": np.array(list("abcd"))}
    return {**about, "rule": np.array(rule), "thresholds": np.arange(50, 100, 5) / 100, "truths": truths, **joined}

"""Laws of the photometric augmentation: which random changes the colours of a view get after it is cropped and flipped.

A recipe has one `Photometric` for each of the two views. The order is colour jitter, greyscale, blur, solarise (official
PixPro code, `contrast/data/transform.py`). What is drawn depends on the given generator alone. A backend applies it
(`pretrain.data.pil`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal, NamedTuple

MEAN = (0.485, 0.456, 0.406)
"""ImageNet mean of red, green and blue, in 0..1."""
STD = (0.229, 0.224, 0.225)
"""ImageNet standard deviation of red, green and blue, in 0..1."""
BLUR_RADIUS = (0.1, 2.0)
"""Range of the blur radius in pixels. It does not depend on the view size, as in the official code."""


Jitter = Literal["brightness", "contrast", "saturation", "hue"]


class Changes(NamedTuple):
    """Changes that were drawn for one view, in the order in which they are applied."""

    jitter: tuple[tuple[Jitter, float], ...] = ()
    """Changes of colour in their random order, with their factors; for "hue" a shift as a fraction of the colour circle."""
    grey: bool = False
    blur: float = 0.0
    """Standard deviation of the blur in pixels; 0 for none."""
    solarise: bool = False


@dataclass(frozen=True)
class Photometric:
    """Strengths and probabilities of the colour changes of one view."""

    brightness: float
    contrast: float
    saturation: float
    hue: float
    jitter: float = 0.8
    """Probability of the four changes above, which are applied together in random order."""
    grey: float = 0.2
    blur: float = 0.5
    solarise: float = 0.0

    def draw(self, rng: random.Random) -> Changes:
        """Draw the changes of one view."""
        return Changes(
            jitter=self._jitter(rng) if rng.random() < self.jitter else (),
            grey=rng.random() < self.grey,
            blur=rng.uniform(*BLUR_RADIUS) if rng.random() < self.blur else 0.0,
            solarise=rng.random() < self.solarise,
        )

    def _jitter(self, rng: random.Random) -> tuple[tuple[Jitter, float], ...]:
        """Draw factors uniformly from 1 ± strength (at least 0), and the hue shift from ± strength of the colour circle."""
        strengths: dict[Jitter, float] = {
            "brightness": self.brightness,
            "contrast": self.contrast,
            "saturation": self.saturation,
        }
        changes = [(name, rng.uniform(max(0.0, 1 - by), 1 + by)) for name, by in strengths.items()]
        changes.append(("hue", rng.uniform(-self.hue, self.hue)))
        rng.shuffle(changes)
        return tuple(changes)


_PLAIN = Photometric(0.0, 0.0, 0.0, 0.0, jitter=0.0, grey=0.0, blur=0.0)
_MOCO_V1 = Photometric(0.4, 0.4, 0.4, 0.4, jitter=1.0, blur=0.0)
_MOCO_V2 = Photometric(0.4, 0.4, 0.4, 0.1)
_SIMCLR = Photometric(0.8, 0.8, 0.8, 0.2)

Recipe = Literal["byol", "plain", "moco_v1", "moco_v2", "simclr", "cds"]
"""Names of the recipes."""
RECIPES: dict[Recipe, tuple[Photometric, Photometric]] = {
    # BYOL appendix B, as in the official PixPro code: the two views differ.
    "byol": (Photometric(0.4, 0.4, 0.2, 0.1, blur=1.0), Photometric(0.4, 0.4, 0.2, 0.1, blur=0.1, solarise=0.2)),
    # Only crop and flip, as in supervised training.
    "plain": (_PLAIN, _PLAIN),
    # MoCo v1, main_moco.py without --aug-plus (there, greyscale comes before the jitter).
    "moco_v1": (_MOCO_V1, _MOCO_V1),
    # MoCo v2, main_moco.py --aug-plus.
    "moco_v2": (_MOCO_V2, _MOCO_V2),
    # SimCLR appendix A, colour strength 1.0.
    "simclr": (_SIMCLR, _SIMCLR),
    # Contrastive Deep Supervision, ImageNet main.py: the view for the classifier is plain, the other is not.
    "cds": (_PLAIN, Photometric(0.4, 0.4, 0.4, 0.1, blur=0.0)),
}
LOCAL: dict[Recipe, Photometric] = {
    **{name: second for name, (_, second) in RECIPES.items()},
    # DINO and iBOT, whose two views are those of BYOL: DataAugmentationiBOT in main_ibot.py.
    "byol": Photometric(0.4, 0.4, 0.2, 0.1),
}
"""What local crops get: as the second view, but half of them are blurred in "byol", and none is solarised."""

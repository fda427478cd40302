"""Photometric augmentation: what happens to the colours of a view after it is cut and flipped.

A recipe is one `Photometric` for each of the two views. Order: colour jitter, grey, blur, solarise (official PixPro
code, `contrast/data/transform.py`). All randomness comes from the generator passed in, none from global state.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image, ImageFilter, ImageOps
from torchvision.transforms import functional as F

MEAN = (0.485, 0.456, 0.406)
"""ImageNet mean of red, green, blue in 0..1."""
STD = (0.229, 0.224, 0.225)
BLUR_RADIUS = (0.1, 2.0)
"""Pixels; not scaled with the view size, as in the official code."""


@dataclass(frozen=True)
class Photometric:
    """Strengths and probabilities for one view."""

    brightness: float
    contrast: float
    saturation: float
    hue: float
    jitter: float = 0.8
    """Probability of the four changes above, applied together in random order."""
    grey: float = 0.2
    blur: float = 0.5
    solarise: float = 0.0

    def __call__(self, view: Image.Image, rng: random.Random) -> Image.Image:
        if rng.random() < self.jitter:
            view = self._jitter(view, rng)
        if rng.random() < self.grey:
            view = view.convert("L").convert("RGB")
        if rng.random() < self.blur:
            view = view.filter(ImageFilter.GaussianBlur(rng.uniform(*BLUR_RADIUS)))
        if rng.random() < self.solarise:
            view = ImageOps.solarize(view)
        return view

    def _jitter(self, view: Image.Image, rng: random.Random) -> Image.Image:
        """Factors uniform in 1 ± strength (from 0), hue shift uniform in ± strength of the colour circle."""
        changes = [
            (F.adjust_brightness, rng.uniform(max(0.0, 1 - self.brightness), 1 + self.brightness)),
            (F.adjust_contrast, rng.uniform(max(0.0, 1 - self.contrast), 1 + self.contrast)),
            (F.adjust_saturation, rng.uniform(max(0.0, 1 - self.saturation), 1 + self.saturation)),
            (F.adjust_hue, rng.uniform(-self.hue, self.hue)),
        ]
        rng.shuffle(changes)
        for change, amount in changes:
            view = change(view, amount)
        return view


_PLAIN = Photometric(0.0, 0.0, 0.0, 0.0, jitter=0.0, grey=0.0, blur=0.0)
_MOCO_V1 = Photometric(0.4, 0.4, 0.4, 0.4, jitter=1.0, blur=0.0)
_MOCO_V2 = Photometric(0.4, 0.4, 0.4, 0.1)
_SIMCLR = Photometric(0.8, 0.8, 0.8, 0.2)

RECIPES: dict[str, tuple[Photometric, Photometric]] = {
    # BYOL appendix B, as the official PixPro code applies it: the views differ.
    "byol": (Photometric(0.4, 0.4, 0.2, 0.1, blur=1.0), Photometric(0.4, 0.4, 0.2, 0.1, blur=0.1, solarise=0.2)),
    # Crop and flip alone, as supervised training does.
    "plain": (_PLAIN, _PLAIN),
    # MoCo v1, main_moco.py without --aug-plus (where grey comes before the jitter).
    "moco_v1": (_MOCO_V1, _MOCO_V1),
    # MoCo v2, main_moco.py --aug-plus.
    "moco_v2": (_MOCO_V2, _MOCO_V2),
    # SimCLR appendix A, colour strength 1.0.
    "simclr": (_SIMCLR, _SIMCLR),
    # Contrastive Deep Supervision, ImageNet main.py: the view to classify is plain, the other is not.
    "cds": (_PLAIN, Photometric(0.4, 0.4, 0.4, 0.1, blur=0.0)),
}

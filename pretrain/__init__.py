"""Self-supervised pre-training of dense backbones: PixPro and the baselines it is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pretrain.pixel_learner import PixelLearner

__all__ = ["PixelLearner"]


def __getattr__(name: str) -> Any:
    if name == "PixelLearner":  # when first asked for: `import pretrain` alone does not wait for PyTorch
        from pretrain.pixel_learner import PixelLearner

        return PixelLearner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Settings that have no effect beside the other settings: they would be recorded as deviations that change nothing."""

from __future__ import annotations

from typing import Any

from pixbench.errors import UserError
from pretrain.models.families import is_plain
from transfer.frozen.methods import METHODS
from transfer.frozen.views import Images
from transfer.job import TransferJob
from transfer.weights.spec import Spec
from transfer.weights.vit_spec import VitSpec


def without_effect(method: str, images: Images, settings: Any, spec: Spec | None = None) -> dict[str, str]:
    """Return the keys of a config without effect, each with the reason.

    Args:
        method: a key of `METHODS`.
        images: the part "images" of the config.
        settings: the part "settings".
        spec: the backbone, if it is known.
    """
    own = getattr(METHODS[method], "without_effect", None)
    found: dict[str, str] = own(images, settings) if own else images.without_effect()
    if isinstance(spec, VitSpec) or (spec is not None and is_plain(spec)):
        found = {**found, "images.output_stride": "the cells of a ViT are its patches"}
    return found


def refuse_without_effect(job: TransferJob, published: dict[str, Any], idle: dict[str, str]) -> None:
    """Raise UserError if ``job`` sets one of the keys ``idle`` to another value than the ``published`` one (by dotted key)."""
    for key, why in idle.items():
        if key in job.overrides and job.overrides[key] != published.get(key):
            raise UserError(f"{key} has no effect on {job.protocol.name}, because {why}; leave it out")

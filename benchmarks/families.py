"""Which protocol takes a backbone of which family. The answers are those of the code that refuses a run, see `refusal`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pixbench.errors import UserError
from pretrain.models.backbone_spec import BackboneSpec
from pretrain.models.named_spec import NamedSpec
from transfer.job import TransferJob, unpublished
from transfer.protocols import Protocol
from transfer.weights.backbone import Backbone
from transfer.weights.spec import Spec
from transfer.weights.vit_spec import VitSpec

FAMILIES: dict[str, tuple[Spec, ...]] = {
    "ResNet": (BackboneSpec(),),
    "hierarchical, by name": tuple(
        NamedSpec(f"timm:{name}") for name in ("convnext_tiny", "swin_tiny_patch4_window7_224", "pvt_v2_b0")
    ),
    "plain ViT, by name": tuple(
        NamedSpec(f"timm:{name}") for name in ("vit_base_patch16_224", "vit_small_patch14_reg4_dinov2")
    ),
    "plain ViT, recognised": (VitSpec(),),
    "own module, hierarchical": (NamedSpec("benchmarks.own_networks:Hierarchical"),),
    "own module, plain": (NamedSpec("benchmarks.own_networks:Plain"),),
}
"""Each family -> examples of it: with channels last, with class token, with registers. ViTs that are recognised by their weights
are those of `transfer.weights.vit_spec`."""


class Answer(NamedTuple):
    """Whether a protocol takes a family."""

    verdict: str
    """"yes"; "yes, not published": for this kind of network; "some": of the examples; "no"."""
    reason: str
    """Why it refuses the first example that it refuses; "" if it takes all."""


def answers(protocol: Protocol) -> dict[str, Answer]:
    """Return for each family whether a run of ``protocol`` at paper scale takes it."""
    found = {}
    for family, examples in FAMILIES.items():
        reasons = [refusal(protocol, spec) for spec in examples]
        published = any(not unpublished(_job(protocol), spec) for spec in examples)
        taken = "some" if any(reasons) else "yes" if published else "yes, not published"
        found[family] = Answer("no" if all(reasons) else taken, next(filter(None, reasons), ""))
    return found


def refusal(protocol: Protocol, spec: Spec) -> str:
    """Return why a run of ``protocol`` from a FILE with a backbone of ``spec`` ends before it starts; "" if it does not.

    The config is resolved as in a run. It knows the network from one without values, so no weights are needed.
    """
    job, backbone = _job(protocol), Backbone(spec, {}, "FILE")
    try:
        _resolve(job, backbone)
    except UserError as error:
        return str(error)
    return ""


def _job(protocol: Protocol) -> TransferJob:
    return TransferJob(protocol, Path("DATA"), Path("RUN"), weights=Path("FILE"))


def _resolve(job: TransferJob, backbone: Backbone) -> None:
    if job.protocol.framework == "detectron2":
        from transfer.detection.config import build_config

        build_config(job, backbone)
    elif job.protocol.framework == "frozen":
        from transfer.frozen.config import resolve as frozen
        from transfer.frozen.methods import METHODS
        from transfer.frozen.network import check_inputs

        config = frozen(job, backbone.spec)
        whole = getattr(METHODS[config.method], "WHOLE_CELLS", False)
        check_inputs(backbone, config.images, whole, job.protocol.datasets[0])
    else:
        from transfer.segmentation.config import check_pixels, resolve

        check_pixels(resolve(job, backbone.spec), job, backbone.pixels)

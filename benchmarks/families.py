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

FAMILIES: dict[str, Spec] = {
    "ResNet": BackboneSpec(),
    "ConvNeXt": NamedSpec("timm:convnext_tiny"),
    "Swin": NamedSpec("timm:swin_tiny_patch4_window7_224"),
    "PVT": NamedSpec("timm:pvt_v2_b0"),
    "ViT": NamedSpec("timm:vit_base_patch16_224"),
    "DINOv2": NamedSpec("timm:vit_small_patch14_reg4_dinov2"),
    "ViT without a name": VitSpec(),
    "own, hierarchical": NamedSpec("benchmarks.own_networks:Hierarchical"),
    "own, plain": NamedSpec("benchmarks.own_networks:Plain"),
}
"""Each family -> an example. DINOv2 has patches of 14 pixels; ViTs without a name are those of `transfer.weights.vit_spec`."""
OWN = "my_backbone:Net"
"""Name of a user's network in texts, in the place of the examples in `benchmarks.own_networks`."""
FILE = "your file"
"""What texts call the file of the backbone."""


class Answer(NamedTuple):
    """Whether a protocol takes a family."""

    verdict: str
    """"yes"; "yes, not published": for this kind of network; "no"."""
    reason: str
    """Why it refuses the example; "" if it takes it."""


def answers(protocol: Protocol) -> dict[str, Answer]:
    """Return for each family whether a run of ``protocol`` at paper scale takes it."""
    found = {}
    for family, spec in FAMILIES.items():
        reason = refusal(protocol, spec).replace(spec.title, example(family))
        taken = "yes, not published" if unpublished(_job(protocol), spec) else "yes"
        found[family] = Answer("no" if reason else taken, reason)
    return found


def example(family: str) -> str:
    """Return the example of ``family`` as texts name it."""
    return OWN if family.startswith("own") else FAMILIES[family].title


def refusal(protocol: Protocol, spec: Spec) -> str:
    """Return why a run of ``protocol`` from a file with a backbone of ``spec`` ends before it starts; "" if it does not.

    The config is resolved as in a run. It knows the network from one without values, so no weights are needed.
    """
    job, backbone = _job(protocol), Backbone(spec, {}, FILE)
    try:
        _resolve(job, backbone)
    except UserError as error:
        return str(error)
    return ""


def _job(protocol: Protocol) -> TransferJob:
    return TransferJob(protocol, Path("DATA"), Path("RUN"), weights=Path(FILE))


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

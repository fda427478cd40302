"""Which protocol takes which family of networks: the answers of the code that refuses runs."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch

from benchmarks.commands.main import build_parser, main
from benchmarks.families import FAMILIES, Answer, answers, refusal
from pixbench.errors import UserError
from pretrain.models.named_spec import NamedSpec
from transfer.initial_weights import random_backbone
from transfer.job import TransferJob
from transfer.protocols import find_protocol

pytestmark = pytest.mark.frameworks
HIERARCHICAL, PLAIN = (FAMILIES[f"own, {kind}"] for kind in ("hierarchical", "plain"))


def verdicts(protocol: str) -> list[str]:
    return [answer.verdict for answer in answers(find_protocol(protocol)).values()]


def test_each_family_is_taken_or_refused_with_the_reason() -> None:
    new = "yes, not published"
    assert verdicts("voc_c4") == ["yes", *["no"] * 8]
    assert verdicts("coco_fpn_1x") == ["yes", new, new, new, "no", "no", "no", new, "no"]
    assert verdicts("ade20k_upernet") == ["yes", *[new] * 5, "no", new, new]
    assert verdicts("ade20k_incontext") == [*["yes"] * 5, "no", *["yes"] * 3]
    assert verdicts("coco_convnext_t_fpn_3x")[:4] == ["no", "yes", "no", "no"]
    found = answers(find_protocol("coco_fpn_1x"))
    assert found["ResNet"] == Answer("yes", "")
    assert found["ViT"].reason.startswith(
        "a feature pyramid needs maps of several strides (4, 8, 16, 32 pixels), but this backbone has maps of stride 16 only"
    )
    assert "14_reg4_dinov2 does not take images of 512" in answers(find_protocol("ade20k_incontext"))["DINOv2"].reason


@pytest.mark.parametrize("name", ["voc_c4", "coco_convnext_t_fpn_3x", "ade20k_upernet_swin", "ade20k_incontext"])
def test_what_is_shown_names_what_a_user_can_type(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["protocols", "show", name]) == 0
    said = capsys.readouterr().out
    lines = [line.strip() for line in said.partition("networks, with an example of each family:\n")[2].splitlines()]
    assert [line.partition(" (")[0] for line in lines[: len(FAMILIES)]] == [*FAMILIES]
    assert "FILE" not in said
    assert "benchmarks." not in said
    (command,) = (line.partition("pixbench ")[2] for line in lines if line.startswith("start it with: "))
    args = build_parser().parse_args(shlex.split(command.replace("[", "").replace("]", "")))
    assert args.scale == "mini"
    assert str(args.weights) == "checkpoint.pth"


@pytest.mark.parametrize("spec", [HIERARCHICAL, PLAIN], ids=["hierarchical", "plain"])
@pytest.mark.parametrize("name", ["coco_fpn_1x", "coco_retinanet_1x", "voc_c4"])
def test_a_detector_is_built_exactly_if_the_answer_is_yes(name: str, spec: NamedSpec, tmp_path: Path) -> None:
    from benchmarks.check import detection

    job = TransferJob(find_protocol(name), tmp_path, tmp_path, weights=Path("FILE"), scale="mini")
    backbone = random_backbone(spec, 0)
    if said := refusal(job.protocol, spec):
        with pytest.raises(UserError) as caught:
            detection.resolve(job, backbone, 1)
        assert str(caught.value) == said
        return
    resolved = detection.resolve(job, backbone, 1)
    assert detection.build(job, resolved.config, backbone).trained > 0


@pytest.mark.parametrize("spec", [HIERARCHICAL, PLAIN], ids=["hierarchical", "plain"])
@pytest.mark.parametrize("name", ["ade20k_upernet", "voc12aug_linear_dinov3"])
def test_a_segmentor_of_an_own_network_is_built_as_the_answer_says(name: str, spec: NamedSpec, tmp_path: Path) -> None:
    from benchmarks.check import segmentation

    job = TransferJob(find_protocol(name), tmp_path, tmp_path, weights=Path("FILE"), scale="mini")
    assert refusal(job.protocol, spec) == ""
    backbone = random_backbone(spec, 0)
    assert segmentation.build(job, segmentation.resolve(job, backbone, 1).config, backbone).activations


PATCHES_OF_14 = NamedSpec("timm:vit_tiny_patch16_224", {"patch_size": 14, "embed_dim": 32, "depth": 4, "num_heads": 2})


@pytest.mark.parametrize(("spec", "stride"), [(HIERARCHICAL, 16), (PATCHES_OF_14, 14)], ids=["stages", "patches"])
def test_cells_of_a_plain_network_stay_its_patches(spec: NamedSpec, stride: int) -> None:
    from transfer.frozen.network import for_images
    from transfer.frozen.views import Images

    assert refusal(find_protocol("voc12aug_overcluster"), spec) == ""
    network = for_images(random_backbone(spec, 0), Images(size=448, output_stride=16))
    assert 112 // network(torch.zeros(1, 3, 112, 112)).shape[1] == network.stride == stride


def test_patches_that_a_run_resizes_are_no_reason_to_refuse() -> None:
    assert refusal(find_protocol("coco_vitdet"), NamedSpec("timm:vit_small_patch14_reg4_dinov2")) == ""

"""The table of protocols: each entry whole, its mini overrides of sizes only, and documented."""

from __future__ import annotations

from pathlib import Path

import pytest

from pixbench.errors import UserError
from transfer.job import TransferJob
from transfer.protocols import KINDS, PROTOCOL_FRAMEWORKS, SCALES, Protocol, find_protocol, leaves, protocols
from transfer.published_config import published_config
from transfer.weights import FRAMEWORKS

DOCS = Path(__file__).parents[2] / "docs" / "protocols"
SIZES = (  # what the mini overrides of Detectron2's protocols may change: sizes, iterations, width
    *("INPUT.M", "MODEL.RESNETS.", "MODEL.FPN.OUT_CHANNELS", "MODEL.RPN.BATCH", "MODEL.RPN.P", "MODEL.ROI_HEADS.BATCH"),
    *("MODEL.ANCHOR_GENERATOR.SIZES", "MODEL.ROI_BOX_HEAD.CONV_DIM", "MODEL.ROI_BOX_HEAD.FC_DIM"),
    *(
        "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION",
        "MODEL.ROI_MASK_HEAD.CONV_DIM",
        "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS",
        "SOLVER.IMS_PER_BATCH",
    ),
    *("SOLVER.MAX_ITER", "SOLVER.STEPS", "SOLVER.WARMUP_ITERS", "SOLVER.CHECKPOINT_PERIOD", "TEST.PRECISE_BN.NUM_ITER"),
    *("DATALOADER.NUM_WORKERS", "VITDET.MODEL.", "MODEL.NAMED.", "TRAIN.CROP"),
)

EVALUATED = {  # what the evaluators give, apart from the AP and IoU of single classes
    "detectron2": {
        f"{task}/AP{which}" for task in ("bbox", "segm", "keypoints") for which in ("", *"smlrcf", "50", "75")
    },
    "mmseg": {"aAcc", "mIoU", "mAcc", "fgIoU", "boundary_mIoU"},
}

every = pytest.mark.parametrize("protocol", protocols().values(), ids=lambda protocol: protocol.name)


def test_the_four_of_the_paper_are_there() -> None:
    assert {"voc_c4", "coco_c4_1x", "coco_fpn_1x", "cityscapes_fcn16s"} <= set(protocols())


@every
def test_entry_is_whole(protocol: Protocol) -> None:
    assert protocol.config.is_file()
    assert protocol.framework in PROTOCOL_FRAMEWORKS
    if protocol.framework == "frozen":
        assert not protocol.weights_framework, "it needs no conversion"
    else:
        assert protocol.weights_framework in FRAMEWORKS
        assert protocol.weights_framework.startswith(protocol.framework)
    assert protocol.datasets
    assert protocol.source
    assert set(protocol.columns) <= set(protocol.metrics)
    assert protocol.mini
    if protocol.framework in EVALUATED:
        assert set(protocol.metrics.values()) <= EVALUATED[protocol.framework], "names that no evaluator gives"


@every
def test_has_a_page(protocol: Protocol) -> None:
    page = (DOCS / f"{protocol.name}.md").read_text(encoding="utf-8")
    assert f"# {protocol.title}" in page
    assert f"pixbench transfer {protocol.name}" in page


@every
def test_mini_changes_sizes_only(protocol: Protocol) -> None:
    if protocol.framework == "detectron2":
        assert [key for key in protocol.mini if not key.startswith(SIZES)] == []


@every
def test_a_frozen_config_can_be_resolved_at_both_scales(protocol: Protocol) -> None:
    assert protocol.kind in KINDS
    if protocol.framework == "frozen":
        from transfer.frozen.config import published, resolve

        paper, mini = (resolve(TransferJob(protocol, Path(), Path(), scale=scale)) for scale in SCALES)
        assert paper == published(protocol)
        assert dict(leaves(paper.as_dict())).keys() == dict(leaves(mini.as_dict())).keys()


def test_the_name_of_the_fpn_column_says_which_box_head() -> None:
    assert "4conv1fc" in find_protocol("coco_fpn_1x").title
    assert all("4conv1fc" in head for head in find_protocol("coco_fpn_1x").columns.values())


def test_a_misspelt_name_gets_the_nearest() -> None:
    with pytest.raises(UserError, match="no protocol 'coco_fcos'; did you mean coco_fcos_1x"):
        find_protocol("coco_fcos")


def test_protocols_of_different_heads_share_no_column() -> None:
    heads = [head for protocol in protocols().values() for head in protocol.columns.values()]
    assert len(heads) == len(set(heads))


@pytest.mark.frameworks
@every
def test_the_cost_is_that_of_the_iterations_in_the_config(protocol: Protocol) -> None:
    if not protocol.cost:
        unknown = protocol.kind == "frozen" or "u2pl" in protocol.name or protocol.networks
        assert unknown, "others have published seconds"
        assert protocol.gpu_hours is None
        return
    config = dict(leaves(published_config(protocol)))
    assert protocol.cost["iterations"] == config.get("SOLVER.MAX_ITER", config.get("train_cfg.max_iters"))
    assert protocol.gpu_hours
    assert protocol.cost["source"]

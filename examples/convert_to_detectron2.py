"""Load a published checkpoint into a Detectron2 model in memory, and write it as a file for Detectron2's commands.

This works with every ResNet that `pixbench weights inspect FILE` recognises: MoCo, PixPro, BYOL, torchvision, ... The
format of the file and the depth and width of the backbone are found out from the file. Start it with

    python examples/convert_to_detectron2.py moco_v2_800ep_pretrain.pth.tar --image street.jpg --out moco_v2.pkl

It builds a Mask R-CNN with a feature pyramid, loads the backbone, runs the image through the model, and writes a file
for Detectron2's setting `MODEL.WEIGHTS`. The pyramid and the heads are random until you train them, so the boxes mean
nothing yet. Weights that do not fit exactly are an error that names them. The example needs Detectron2
(`scripts/install.sh`).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data.detection_utils import read_image
from detectron2.modeling import build_model

from transfer.weights import Backbone, convert, load_into, read

FRAMEWORK = "detectron2_fpn"
"""How the weights are named: for an R-CNN with a feature pyramid. For one without, use "detectron2_c4"."""


def mask_rcnn_fpn(backbone: Backbone) -> CfgNode:
    """Return the config of a Mask R-CNN FPN with a backbone of the same shape and the same pixel statistics."""
    cfg, spec = get_cfg(), backbone.resnet
    cfg.MODEL.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    cfg.MODEL.MASK_ON = True
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0  # train all stages

    resnet = cfg.MODEL.RESNETS
    resnet.DEPTH = spec.depth
    resnet.STEM_OUT_CHANNELS, resnet.RES2_OUT_CHANNELS = int(64 * spec.width), spec.channels // 8
    resnet.NUM_GROUPS, resnet.WIDTH_PER_GROUP = spec.groups, spec.group_channels
    resnet.STRIDE_IN_1X1 = spec.stride_in_1x1  # False for PyTorch's ResNets; Detectron2's default is True
    resnet.NORM = "BN"  # "SyncBN" on several GPUs; Detectron2's default keeps the statistics frozen
    resnet.OUT_FEATURES = ["res2", "res3", "res4", "res5"]

    cfg.MODEL.FPN.IN_FEATURES = resnet.OUT_FEATURES
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    box, mask = cfg.MODEL.ROI_BOX_HEAD, cfg.MODEL.ROI_MASK_HEAD
    box.NAME, box.NUM_FC, box.POOLER_RESOLUTION = "FastRCNNConvFCHead", 2, 7
    mask.NAME, mask.NUM_CONV, mask.POOLER_RESOLUTION = "MaskRCNNConvUpsampleHead", 4, 14

    pixels = backbone.pixels  # Detectron2's defaults are BGR and other statistics
    cfg.INPUT.FORMAT = pixels.order
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = list(pixels.mean), list(pixels.std)
    return cfg


def main() -> None:
    """Read, build, load, run one image, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="file of any format that `pixbench weights formats` lists")
    parser.add_argument("--branch", help='"momentum_encoder" for the other backbone, if the checkpoint holds two')
    parser.add_argument("--image", type=Path, required=True, help="image to run through the model")
    parser.add_argument("--out", type=Path, required=True, help="file for Detectron2's MODEL.WEIGHTS, ending in .pkl")
    args = parser.parse_args()

    reading = read(args.checkpoint, args.branch)  # `load` returns only reading.backbone
    print(f"{reading.format}, {reading.branch}: {reading.backbone.spec.title}; {reading.counts}")

    cfg = mask_rcnn_fpn(reading.backbone)
    model = build_model(cfg).eval()
    print(f"into the model: {load_into(model, reading.backbone, FRAMEWORK)}")

    image = torch.as_tensor(read_image(str(args.image), cfg.INPUT.FORMAT).copy()).permute(2, 0, 1)
    with torch.no_grad():
        instances = model([{"image": image, "height": image.shape[1], "width": image.shape[2]}])[0]["instances"]
    print(f"{args.image}: {len(instances)} instances of untrained heads, masks {tuple(instances.pred_masks.shape)}")

    done = convert(args.checkpoint, args.out, FRAMEWORK, args.branch)  # proves that the maps are the same
    assert done.parity is not None
    print(f"{done.output}: {done.written}; {done.parity.verdict}")


if __name__ == "__main__":
    main()

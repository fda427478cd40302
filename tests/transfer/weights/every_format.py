"""A small file of every format that is read, laid out as the real ones are, with what must come out of it."""

from __future__ import annotations

import argparse
import re
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pretrain.models.backbone_spec import BackboneSpec
from transfer.weights.file_format import Pixels
from transfer.weights.models.networks import build_network
from transfer.weights.naming import is_counter
from transfer.weights.vit_spec import VitSpec

State = dict[str, Tensor]
MSRA = Pixels("BGR", (103.53, 116.28, 123.675), (1.0, 1.0, 1.0))
OPT = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
ARGS = argparse.Namespace(arch="resnet50", lr=0.3, data="/data", crops=[224, 96])


class Case(NamedTuple):
    """One file: what is in it, and what becomes of it."""

    content: dict[str, Any]
    dropped: dict[str, int]
    spec: BackboneSpec | VitSpec = BackboneSpec(50, 1 / 16)
    pixels: Pixels = Pixels()
    forced: bool = False
    """Whether the keys do not tell and --from must."""
    branches: tuple[str, ...] = ("student",)


def behind(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def parts(*names: str) -> State:
    return {name: torch.ones(2) for name in names}


def linear(*names: str) -> State:
    return parts(*(f"{name}.{leaf}" for name in names for leaf in ("weight", "bias")))


def norm(*names: str) -> State:
    return parts(*(f"{name}.{leaf}" for name in names for leaf in ("weight", "bias", "running_mean", "running_var")))


def last(name: str) -> State:
    """The last layer of DINO's head, under weight norm."""
    return parts(f"{name}.last_layer.weight_g", f"{name}.last_layer.weight_v")


def detectron2(state: State, counters: bool = True) -> dict[str, np.ndarray]:
    """As `tools/convert-torchvision-to-d2.py` and its many copies rename."""
    found = {}
    for name, tensor in state.items():
        name = name if "layer" in name else f"stem.{name}"
        for stage in (1, 2, 3, 4):
            name = name.replace(f"layer{stage}", f"res{stage + 1}")
        for i in (1, 2, 3):
            name = name.replace(f"bn{i}", f"conv{i}.norm")
        name = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        if counters or not is_counter(name):
            found[name] = tensor.numpy()
    return found


def caffe2(state: State) -> dict[str, np.ndarray]:
    """As MSRA's files of the Caffe2 era name what `detectron2/checkpoint/c2_model_loading.py` renames."""
    found = {}
    for name, array in detectron2(state, counters=False).items():
        if "running" in name:
            continue
        name = re.sub(r"^stem\.conv1\.norm", "res_conv1_bn", name).replace("stem.conv1", "conv1")
        name = name.replace("shortcut", "branch1")
        for i, letter in enumerate("abc", 1):
            name = re.sub(rf"(res\d\.\d+\.)conv{i}", rf"\1branch2{letter}", name)
        name = name.replace(".norm.weight", "_bn_s").replace(".norm.bias", "_bn_b").replace("_bn.weight", "_bn_s")
        found[name.replace("_bn.bias", "_bn_b").replace(".weight", "_w").replace(".", "_")] = array
    return found


def folded(state: State) -> State:
    """What is left of a backbone once its statistics are folded into weight and bias."""
    fills = {"running_mean": 0.0, "running_var": 1.0, "num_batches_tracked": 0}
    return {
        n: t.new_full(t.shape, fills[n.rpartition(".")[2]]) if n.rpartition(".")[2] in fills else t
        for n, t in state.items()
    }


def without_counters(state: State) -> State:
    return {name: torch.zeros_like(t) if is_counter(name) else t for name, t in state.items()}


def sequential(state: State) -> State:
    table = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    return {".".join([table[name.split(".")[0]], *name.split(".")[1:]]): tensor for name, tensor in state.items()}


def shortcut(state: State) -> State:
    return {name.replace("downsample", "shortcut"): tensor for name, tensor in state.items()}


def feature_blocks(state: State) -> State:
    """As OBoW numbers the layers of torchvision's ResNet."""
    found = {}
    for name, tensor in state.items():
        name = re.sub(r"^conv1", "0.Conv", re.sub(r"^bn1", "0.bn", name)).removeprefix("layer")
        found[f"_feature_blocks.{name}"] = tensor
    return found


def huggingface(state: State) -> State:
    found = {}
    for name, tensor in state.items():
        name = re.sub(r"^conv1", "embedder.embedder.convolution", name)
        name = re.sub(r"^bn1", "embedder.embedder.normalization", name)
        name = re.sub(r"layer(\d)\.(\d+)", lambda m: f"encoder.stages.{int(m[1]) - 1}.layers.{m[2]}", name)
        name = name.replace("downsample.0", "shortcut.convolution").replace("downsample.1", "shortcut.normalization")
        name = re.sub(r"\.conv(\d)", lambda m: f".layer.{int(m[1]) - 1}.convolution", name)
        found[re.sub(r"\.bn(\d)", lambda m: f".layer.{int(m[1]) - 1}.normalization", name)] = tensor
    return found


def timm_c(state: State) -> State:
    return {name.replace("stem.7", "bn1").replace("stem.", "conv1."): tensor for name, tensor in state.items()}


def averaging(state: State) -> State:
    return {re.sub(r"downsample\.(\d)", lambda m: f"downsample.{int(m[1]) + 1}", n): t for n, t in state.items()}


def vit(seed: int, spec: VitSpec | None = None) -> State:
    random = torch.Generator().manual_seed(seed)
    return {name: torch.randn(t.shape, generator=random) for name, t in build_network(spec or VIT).state_dict().items()}


VIT = VitSpec(width=32, depth=2, heads=1, patch=4, image=8)
MOCO_VIT = VitSpec(width=384, depth=1, heads=12, patch=16, image=32)
HEADS_FPN = behind("roi_heads.", linear("box_head.fc1", "box_predictor.cls_score")) | linear(
    "proposal_generator.rpn_head.conv"
)
PYRAMID = linear(*(f"backbone.fpn_{kind}{i}" for kind in ("lateral", "output") for i in (2, 3, 4, 5)))


def fpn(state: State, extra: State) -> dict[str, Any]:
    return {**behind("backbone.bottom_up.", detectron2(state, False)), **extra}  # type: ignore[arg-type]


def c4(state: State, extra: State) -> dict[str, Any]:
    named = detectron2(state, False)
    return {("roi_heads." if name.startswith("res5") else "backbone.") + name: t for name, t in named.items()} | extra


def mm(state: State, **extra: Any) -> dict[str, Any]:
    return {
        "meta": {"epoch": 12, "config": "model = dict(type='X')"},
        "state_dict": behind("backbone.", state),
        **extra,
    }


def lightning(state: State) -> dict[str, Any]:
    """A checkpoint as Lightning's trainer writes it."""
    return {
        "epoch": 99,
        "pytorch-lightning_version": "2.0",
        "state_dict": state,
        "hyper_parameters": {"lr": 0.3},
        "optimizer_states": [OPT],
    }


DETECTOR = parts("neck.lateral_convs.0.conv.weight", "rpn_head.rpn_conv.weight") | linear("roi_head.bbox_head.fc_cls")
DETECTOR_DROPPED = {"pyramid": 1, "region proposals": 1, "heads": 2}
TWO = ("student", "momentum_encoder")


def cases(s: State, t: State, deep: State, neck: State) -> dict[str, Case]:
    """By format; s is the student's state, t the target's, deep that with a deep stem, neck SoCo's pyramid and head."""
    q, k = behind("module.encoder_q.", s), behind("module.encoder_k.", t)
    queue = parts("module.queue", "module.queue_ptr")
    spec = BackboneSpec(50, 1 / 16, 16)
    run = {"epoch": 5, "optimizer": OPT}
    zoo = BackboneSpec(50, 1 / 16, stride_in_1x1=True)

    def ours(spec: BackboneSpec | VitSpec) -> dict[str, Any]:
        about = {"backbone": spec.as_dict(), "pixels": vars(Pixels())}
        return {"__author__": "PixBench", "matching_heuristics": False, "pixbench": about}

    lateral = PYRAMID | HEADS_FPN
    detector = {"pyramid": 16, "region proposals": 2, "heads": 4}
    c4_heads = linear("roi_heads.box_predictor.cls_score", "proposal_generator.rpn_head.conv", "roi_heads.res5.norm")
    v, w, d_spec = vit(0), vit(1), BackboneSpec(50, 1 / 16, stem="deep", avg_down=True)
    tokens = parts("cls_token") | {"norm.weight": torch.ones(32), "norm.bias": torch.zeros(32)}
    wide = parts("cls_token") | {"norm.weight": torch.ones(384), "norm.bias": torch.zeros(384)}
    tokens_dropped = {"class token (ViTDet has none)": 1, "last norm (ViTDet has none)": 2}
    four = {reason: 2 * number for reason, number in tokens_dropped.items()}
    c4_dropped = {"region proposals": 2, "heads": 2, "norm after res5": 2}
    pixpro_heads = linear("projector.linear1", "projector_k.linear1", "value_transform", "predictor.linear1")
    return {
        "pixbench": Case(
            {"format": "pixbench-pretrain", "version": 1, "backbone": spec.as_dict()}
            | {
                "model": behind("backbone.", s)
                | behind("momentum_encoder.backbone.", t)
                | parts("projector.linear1.weight", "momentum_encoder.step")
            },
            {"momentum encoder backbone": 318, "projector": 1, "EMA counter": 1},
            spec,
            branches=TWO,
        ),
        "pixbench_learner": Case(
            behind("backbone.net.", s | linear("fc"))
            | behind("momentum_encoder.backbone.net.", t)
            | linear(
                "projector.linear1", "predictor.linear1", "propagation.transform", "momentum_encoder.projector.linear1"
            )
            | {"momentum_encoder.step": torch.tensor(3)},
            {
                "momentum encoder backbone": 318,
                "classifier": 2,
                "projector": 4,
                "predictor": 2,
                "propagation": 2,
                "EMA counter": 1,
            },
            branches=TWO,
        ),
        "caffe_in_torchvision": Case(s | linear("fc"), {"classifier": 2}, zoo, MSRA, forced=True),
        "pixpro": Case(
            {
                "opt": ARGS,
                "model": behind("module.", behind("encoder.", s) | behind("encoder_k.", t) | pixpro_heads),
                **run,
            },
            {"momentum encoder backbone": 318, "projector": 4, "propagation": 2, "predictor": 2},
            branches=TWO,
        ),
        "soco": Case(
            {"opt": ARGS, "epoch": 400}
            | {
                "model": behind("module.encoder.", s)
                | behind("module.encoder_k.", t)
                | linear("module.projector.linear1", "module.projector_k.linear1", "module.predictor.linear1")
                | parts("module.queue", "module.queue_ptr")
            },
            {"momentum encoder backbone": 318, "projector": 4, "predictor": 2, "queue": 2},
            branches=TWO,
        ),
        "detectron2_soco": Case(
            {
                "model": detectron2(s)
                | {n.replace("fpn.", "fpn_").replace("box.", "box_head."): t.numpy() for n, t in neck.items()},
                "__author__": "Yue",
                "matching_heuristics": True,
            },
            {},
        ),
        "slotcon": Case(
            {"args": ARGS, "epoch": 200}
            | {
                "model": q
                | k
                | linear("module.projector_q.mlp.0", "module.projector_k.mlp.0", "module.predictor_slot.mlp.0")
                | parts("module.grouping_q.slot_embed.weight", "module.grouping_k.slot_embed.weight", "module.center")
            },
            {"momentum encoder backbone": 318, "projector": 4, "predictor": 2, "prototypes": 2, "center": 1},
            branches=TWO,
        ),
        "moco_v1": Case(
            {
                "arch": "resnet50",
                "state_dict": q | k | queue | linear("module.encoder_q.fc", "module.encoder_k.fc"),
                **run,
            },
            {"momentum encoder backbone": 318, "queue": 2, "projector": 4},
            branches=TWO,
        ),
        "moco_v2": Case(
            {"arch": "resnet50", "state_dict": q | linear("module.encoder_q.fc.0", "module.encoder_q.fc.2"), **run},
            {"projector": 4},
        ),
        "moco_v3": Case(
            {"scaler": {"scale": 65536.0}, **run}
            | {
                "state_dict": behind("module.base_encoder.", s)
                | behind("module.momentum_encoder.", t)
                | parts(
                    "module.base_encoder.fc.0.weight", "module.momentum_encoder.fc.1.bias", "module.predictor.0.weight"
                )
            },
            {"momentum encoder backbone": 318, "projector": 2, "predictor": 1},
            branches=TWO,
        ),
        "moco_v3_vit": Case(
            {"arch": "vit_small", **run}
            | {
                "state_dict": behind("module.base_encoder.", vit(0, MOCO_VIT) | wide)
                | behind("module.momentum_encoder.", vit(1, MOCO_VIT) | wide)
                | parts("module.base_encoder.head.0.weight", "module.predictor.0.weight")
            },
            {"momentum encoder backbone": 15, **four, "projector": 1, "predictor": 1},
            MOCO_VIT,
            branches=TWO,
        ),
        "simsiam": Case(
            {"state_dict": behind("module.encoder.", s) | linear("module.encoder.fc.0", "module.predictor.0"), **run},
            {"projector": 2, "predictor": 2},
        ),
        "simclr_sthalles": Case(
            {
                "arch": "resnet50",
                "state_dict": behind("backbone.", s) | linear("backbone.fc.0", "backbone.fc.2"),
                **run,
            },
            {"projector": 4},
        ),
        "simclr_spijkervet": Case(
            behind("encoder.", s) | parts("projector.0.weight", "projector.2.weight"), {"projector": 2}
        ),
        "simclr_atanov": Case(
            {"hparams": ARGS, "opt_state_dict": OPT, "iter": 9}
            | {"state_dict": behind("model.module.convnet.", s) | parts("model.module.projection.fc1.weight")},
            {"projector": 1},
        ),
        "byol_lucidrains": Case(
            behind("net.", s)
            | behind("online_encoder.net.", s)
            | behind("target_encoder.net.", t)
            | linear("net.fc", "online_encoder.net.fc", "online_encoder.projector.0", "online_predictor.0"),
            {"second copy of the backbone": 320, "momentum encoder backbone": 318}
            | {"classifier": 2, "projector": 2, "predictor": 2},
            branches=TWO,
        ),
        "byol_sthalles": Case(
            {
                "online_network_state_dict": behind("encoder.", sequential(s)) | linear("projetion.net.0"),
                "encoder_state_dict": sequential(s),
                "target_network_state_dict": behind("encoder.", sequential(t)) | linear("projetion.net.0"),
                "optimizer_state_dict": OPT,
            },
            {"second copy of the backbone": 318, "momentum encoder backbone": 318, "projector": 4, "optimiser": 2},
            branches=TWO,
        ),
        "swav": Case(
            behind("module.", s) | linear("module.projection_head.0") | parts("module.prototypes.weight"),
            {"projector": 2, "prototypes": 1},
        ),
        "barlow_twins": Case(
            {
                "model": behind("module.backbone.", s) | parts("module.projector.0.weight", "module.bn.running_mean"),
                **run,
            },
            {"projector": 1, "batch norm of the loss": 1},
        ),
        "vicreg": Case(
            {"model": behind("module.backbone.", s) | linear("module.projector.0", "module.projector.1"), **run},
            {"projector": 4},
        ),
        "dino": Case(
            {
                "student": behind("module.backbone.", s) | linear("module.head.mlp.0"),
                "teacher": behind("backbone.", t) | linear("head.mlp.0"),
                "optimizer": OPT,
                "epoch": 800,
                "args": ARGS,
                "dino_loss": {"center": torch.zeros(1, 8)},
            },
            {"momentum encoder backbone": 318, "projector": 4, "center": 1, "training state": 7},
            branches=TWO,
        ),
        "openselfsup": Case(
            {"meta": {"epoch": 200}, "optimizer": OPT}
            | {
                "state_dict": behind("encoder_q.0.", s)
                | behind("backbone.", s)
                | behind("encoder_k.0.", t)
                | linear("encoder_q.1.mlp.0", "encoder_k.1.mlp2.0")
                | parts("queue", "queue_ptr", "queue2", "queue2_ptr")
            },
            {"second copy of the backbone": 318, "momentum encoder backbone": 318, "neck": 4, "queue": 4},
            branches=TWO,
        ),
        "detco": Case(
            {"meta": {"epoch": 200}}
            | {
                "state_dict": behind("encoder_q.0.", s)
                | behind("encoder_k.0.", t)
                | linear("encoder_q.1.mlp.0", "encoder_k.1.mlp.0")
                | parts("queue", "queue_ptr")
            },
            {"momentum encoder backbone": 318, "neck": 4, "queue": 2},
            branches=TWO,
        ),
        "mmpretrain": Case(
            mm(s)
            | {"message_hub": {"log_scalars": {}}}
            | {
                "state_dict": behind("backbone.", s)
                | behind("target_net.module.0.", t)
                | linear("neck.fc0", "head.predictor.fc0", "target_net.module.1.fc0")
                | parts("target_net.steps", "data_preprocessor.mean")
            },
            {"momentum encoder backbone": 318, "neck": 4, "head": 2, "EMA counter": 1, "preprocessor": 1},
            branches=TWO,
        ),
        "mmseg": Case(mm(s), {}),
        "mmseg_model": Case(
            mm(s) | {"state_dict": behind("backbone.", s) | linear("decode_head.conv_seg", "auxiliary_head.conv_seg")},
            {"decode head": 2, "auxiliary head": 2},
        ),
        "mmdet_model": Case(mm(s) | {"state_dict": behind("backbone.", s) | DETECTOR}, DETECTOR_DROPPED),
        "solo_learn": Case(
            lightning(
                behind("backbone.", s)
                | behind("momentum_backbone.", t)
                | linear("classifier", "projector.0", "momentum_projector.0", "predictor.0")
            ),
            {"momentum encoder backbone": 318, "classifier": 2, "projector": 4, "predictor": 2},
            branches=TWO,
        ),
        "lightly": Case(
            lightning(
                behind("backbone.", s)
                | behind("teacher_backbone.", t)
                | linear("projection_head.layers.0", "prediction_head.layers.0", "teacher_projection_head.layers.0")
                | linear("online_classifier.classification_head")
            ),
            {"momentum encoder backbone": 318, "projector": 4, "predictor": 2, "classifier": 2},
            branches=TWO,
        ),
        "lightly_dino": Case(
            lightning(
                behind("teacher_backbone.", t)
                | behind("student_backbone.", s)
                | linear("student_head.layers.0", "teacher_head.layers.0")
                | parts("criterion.center")
            ),
            {"momentum encoder backbone": 318, "projector": 4, "queue and loss": 1},
            branches=TWO,
        ),
        "lightly_teacher": Case(
            lightning(
                behind("backbone.", t)
                | behind("student_backbone.", s)
                | linear("projection_head.layers.0", "student_projection_head.layers.0")
                | last("projection_head")
                | last("student_projection_head")
                | linear("online_classifier.classification_head")
                | parts("criterion.center")
            ),
            {"momentum encoder backbone": 318, "projector": 8, "classifier": 2, "queue and loss": 1},
            branches=TWO,
        ),
        "lightly_vit": Case(
            lightning(
                behind("backbone.vit.", v | tokens | linear("head"))
                | parts("backbone.mask_token", "decoder.mask_token", "decoder.pos_embed", "decoder.norm.weight")
                | linear("decoder_embed", "prediction_head", "online_classifier.classification_head")
            ),
            {**tokens_dropped, "mask token": 1, "decoder": 7, "classifier": 4},
            VIT,
        ),
        "lightly_vit_teacher": Case(
            lightning(
                behind("backbone.vit.", w | tokens | linear("head"))
                | behind("student_backbone.vit.", v | tokens | linear("head"))
                | linear("projection_head.layers.0", "student_projection_head.layers.0")
                | last("projection_head")
                | last("student_projection_head")
                | parts("backbone.mask_token", "student_backbone.mask_token", "criterion.center")
                | linear("online_classifier.classification_head")
            ),
            {"momentum encoder backbone": len(v), **four, "mask token": 2, "projector": 8, "classifier": 6, "loss": 1},
            VIT,
            branches=TWO,
        ),
        "sequential": Case(sequential(s), {}),
        "pixelcl": Case(
            behind("online_encoder.net.", s)
            | behind("target_encoder.net.", t)
            | linear("online_encoder.net.fc", "target_encoder.net.fc")
            | linear("online_encoder.pixel_projector.net.0", "target_encoder.pixel_projector.net.0")
            | linear("online_encoder.instance_projector.net.3", "target_encoder.instance_projector.net.3")
            | linear("online_predictor.net.0", "propagate_pixels.transform_net")
            | parts("augment1.3._param_generator.thresholds", "augment2.3._param_generator.thresholds"),
            {"momentum encoder backbone": 318, "classifier": 4, "projector": 8}
            | {"predictor": 2, "propagation": 2, "augmentation": 2},
            branches=TWO,
        ),
        "vicregl": Case(
            {
                "model": behind("module.backbone.", s)
                | linear("module.maps_projector.0", "module.projector.0", "module.classifier")
                | norm("module.maps_projector.1", "module.projector.1")
                | parts("module.maps_projector.6.weight", "module.projector.6.weight"),
                **run,
            },
            {"projector": 14, "classifier": 2},
        ),
        "supcontrast": Case(
            {"opt": ARGS, "model": behind("encoder.module.", shortcut(s)) | linear("head.0", "head.2"), **run},
            {"projector": 4},
        ),
        "lightning_bolts": Case(
            lightning(
                behind("online_network.encoder.", s)
                | behind("target_network.encoder.", t)
                | linear("online_network.projector.model.3", "target_network.projector.model.3", "predictor.model.3")
                | norm("predictor.model.1")
            ),
            {"momentum encoder backbone": 318, "projector": 4, "predictor": 6},
            branches=TWO,
        ),
        "resim": Case(
            {
                "arch": "resnet50",
                "state_dict": q
                | k
                | queue
                | linear("module.encoder_q.fc.0", "module.encoder_k.fc.2", "module.encoder_q.fc.2")
                | linear("module.encoder_q.fpn_lateral5.0", "module.encoder_k.fpn_output4.0")
                | norm("module.encoder_q.fpn_lateral5.1"),
                **run,
            },
            {"momentum encoder backbone": 318, "queue": 2, "projector": 6, "pyramid": 8},
            branches=TWO,
        ),
        "msf": Case(
            {
                "opt": ARGS,
                "state_dict": behind("encoder_q.module.", s)
                | behind("encoder_t.module.", t)
                | linear("encoder_q.module.fc.0", "encoder_t.module.fc.3", "predict_q.module.0")
                | norm("encoder_q.module.fc.1")
                | parts("queue", "queue_ptr", "labels"),
                **run,
            },
            {"momentum encoder backbone": 318, "queue": 3, "projector": 8, "predictor": 2},
            branches=TWO,
        ),
        "ressl": Case(
            {
                "model": behind("module.encoder_q.net.", s)
                | behind("module.encoder_k.net.", t)
                | linear("module.encoder_q.head.linear1", "module.encoder_k.head.linear2")
                | queue,
                **run,
            },
            {"momentum encoder backbone": 318, "projector": 4, "queue": 2},
            branches=TWO,
        ),
        "cp2": Case(
            {
                "arch": "resnet50",
                "state_dict": behind("module.encoder_q.backbone.", s)
                | behind("module.encoder_k.backbone.", t)
                | parts("module.encoder_q.decode_head.bottleneck.conv.weight")
                | linear("module.encoder_q.decode_head.conv_seg", "module.encoder_k.decode_head.conv_seg")
                | queue,
                **run,
            },
            {"momentum encoder backbone": 318, "decode head": 5, "queue": 2},
            branches=TWO,
        ),
        "lewel": Case(
            {
                "arch": "resnet50",
                "state_dict": behind("module.online_net.backbone.", s)
                | behind("module.target_net.backbone.", t)
                | linear("module.online_net.neck.proj.mlp.0", "module.target_net.neck.proj_obj.mlp.0")
                | linear("module.predictor.mlp.0", "module.predictor_obj.mlp.3"),
                **run,
            },
            {"momentum encoder backbone": 318, "projector": 4, "predictor": 4},
            branches=TWO,
        ),
        "twist": Case(
            {
                "model": behind("backbone.", s) | linear("projection_heads.projection_head.0"),
                "backbone": s,
                "teacher": behind("backbone.", t) | linear("projection_heads.last_linear"),
                "teacher_backbone": t,
                "args": ARGS,
                **run,
            },
            {"momentum encoder backbone": 318, "projector": 4, "second copy of the backbone": 636}
            | {"training state": 7},
            branches=TWO,
        ),
        "paws": Case(
            {
                "encoder": behind("module.", s | linear("fc.fc1", "pred.fc1") | norm("fc.bn1", "pred.bn1")),
                "opt": OPT,
                "unlabel_prob": 0.9,
                "amp": {"scale": 65536.0},
            },
            {"projector": 6, "predictor": 6},
        ),
        "obow": Case(
            {
                "epoch": 200,
                "meters": None,
                "network": behind("feature_extractor.", feature_blocks(s))
                | behind("feature_extractor_teacher.", feature_blocks(t))
                | linear("bow_predictor.layers_w.0.1", "linear_classifier.layers.prediction_layer")
                | parts("bow_predictor.scale", "bow_extractor.bow_extractor.0._embedding", "_alpha", "_iteration"),
            },
            {"momentum encoder backbone": 318, "predictor": 3, "bag of words": 3, "classifier": 2},
            branches=TWO,
        ),
        "detcon_isaaccorley": Case(
            lightning(behind("network.encoder.", sequential(s)) | linear("network.projector.0", "predictor.3")),
            {"projector": 2, "predictor": 2},
        ),
        "vissl": Case(
            {"phase_idx": 99, "iteration": 7}
            | {
                "classy_state_dict": {
                    "base_model": {
                        "model": {"trunk": behind("_feature_blocks.", s), "heads": linear("0.clf.0")},
                        "meta": {},
                    }
                }
            },
            {"heads": 2},
        ),
        "pycontrast": Case(
            {
                "opt": ARGS,
                "model": behind("module.encoder.", s) | linear("module.head.0", "module.head_jig.fc1"),
                "contrast": parts("memory", "index"),
                "optimizer": OPT,
                "epoch": 800,
                "model_ema": behind("encoder.", t) | linear("head.0"),
            },
            {"momentum encoder backbone": 318, "projector": 6, "memory bank": 2, "training state": 7},
            branches=TWO,
        ),
        "torchvision": Case(s | linear("fc"), {"classifier": 2}),
        "torchvision_detection": Case(
            behind("backbone.body.", s)
            | linear("backbone.fpn.inner_blocks.0.0", "backbone.fpn.layer_blocks.3.0", "rpn.head.cls_logits")
            | linear("roi_heads.box_head.fc6", "roi_heads.box_predictor.cls_score", "roi_heads.mask_head.mask_fcn1"),
            {"pyramid": 4, "region proposals": 2, "heads": 6},
        ),
        "torchvision_segmentation": Case(
            {
                "model": behind("backbone.", s)
                | parts("classifier.0.convs.0.0.weight")
                | linear("classifier.4", "aux_classifier.4"),
                "args": ARGS,
                "scaler": None,
                **run,
            },
            {"heads": 5},
        ),
        "timm_d": Case(averaging(timm_c(deep)) | linear("fc"), {"classifier": 2}, d_spec),
        "timm_c": Case(timm_c(deep) | linear("fc"), {"classifier": 2}, BackboneSpec(50, 1 / 16, stem="deep")),
        "mmseg_pooled": Case({"state_dict": behind("backbone.", averaging(deep))}, {}, d_spec),
        "mmseg_model_pooled": Case(
            mm(s) | {"state_dict": behind("backbone.", averaging(deep)) | linear("decode_head.conv_seg")},
            {"decode head": 2},
            d_spec,
        ),
        "vit": Case(v | tokens | linear("head"), {**tokens_dropped, "classifier": 2}, VIT),
        "mae": Case(
            {"model": v | tokens | parts("mask_token", "decoder_pos_embed", "decoder_blocks.0.norm1.weight"), **run},
            {**tokens_dropped, "decoder": 3},
            VIT,
        ),
        "dino_vit": Case(
            {
                "student": behind("module.backbone.", v | tokens) | linear("module.head.mlp.0"),
                "teacher": behind("backbone.", w | tokens) | linear("head.mlp.0"),
                "epoch": 800,
                "args": ARGS,
                "dino_loss": {"center": torch.zeros(1, 8)},
            },
            {"momentum encoder backbone": len(v), **four, "projector": 4, "center": 1, "training state": 5},
            VIT,
            branches=TWO,
        ),
        "ibot": Case(
            {
                "student": behind("module.backbone.", v | tokens | parts("masked_embed")) | linear("module.head.mlp.0"),
                "teacher": behind("backbone.", w | tokens) | linear("head.mlp.0"),
                "ibot_loss": {"center": torch.zeros(1, 8), "center2": torch.zeros(1, 8)},
            },
            {"momentum encoder backbone": len(v), **four, "mask token": 1, "projector": 4, "center": 2},
            VIT,
            branches=TWO,
        ),
        "detectron2_vitdet": Case(
            {"model": {f"backbone.net.{name}": tensor.numpy() for name, tensor in v.items()}, **ours(VIT)}, {}, VIT
        ),
        "detectron2_backbone": Case(
            {
                "model": detectron2(s) | {"stem.fc.weight": np.ones(2)},
                "__author__": "MOCO",
                "matching_heuristics": True,
            },
            {"classifier": 1},
        ),
        "detectron2_caffe2": Case(
            caffe2(s)
            | {name: np.ones(2, np.float32) for name in ("conv1_b", "fc1000_w", "fc1000_b", "conv1_w_momentum")},
            {"classifier": 2, "bias of the stem convolution (Detectron2 drops it too)": 1}
            | {"momentum of the optimiser": 1},
            zoo,
            MSRA,
        ),
        "detectron2_c4": Case({"model": c4(s, {}), **ours(BackboneSpec(50, 1 / 16))}, {}),
        "detectron2_fpn": Case({"model": fpn(s, {}), **ours(BackboneSpec(50, 1 / 16))}, {}),
        "detectron2_c4_own": Case({"model": c4(s, c4_heads), "iteration": 23999}, c4_dropped, forced=True),
        "detectron2_c4_zoo": Case({"model": c4(s, c4_heads), "__author__": "X"}, c4_dropped, zoo, MSRA, True),
        "detectron2_fpn_own": Case({"model": fpn(s, lateral), "iteration": 89999}, detector, forced=True),
        "detectron2_fpn_zoo": Case({"model": fpn(s, lateral), "__author__": "X"}, detector, zoo, MSRA, True),
        "huggingface": Case(behind("resnet.", huggingface(s)) | linear("classifier.1"), {"classifier": 2}),
    }

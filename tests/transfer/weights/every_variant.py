"""Other layouts of the formats in `every_format`: one software writes several, by its methods, versions and examples."""

from __future__ import annotations

from typing import Any

import torch
from every_format import (
    DETECTOR,
    DETECTOR_DROPPED,
    MSRA,
    TWO,
    Case,
    State,
    behind,
    feature_blocks,
    last,
    lightning,
    linear,
    mm,
    norm,
    parts,
    sequential,
    shortcut,
)

from pretrain.models.backbone_spec import BackboneSpec
from transfer.weights.file_format import Pixels


def variants(s: State, t: State) -> dict[str, tuple[str, Case]]:
    """Other layouts of some formats: what the file is -> format and file; s is the student's state, t the target's."""
    b, seq, other = behind("backbone.", s), behind("backbone.", sequential(s)), sequential(t)
    momentum, ema = behind("momentum_backbone.", t), {"momentum encoder backbone": 318}
    both = behind("student_backbone.", s) | behind("backbone.", t)
    probe = linear("online_classifier.classification_head")
    heads = linear("projection_head.layers.0", "projection_head.layers.2") | norm("projection_head.layers.1")
    projection = linear("projection_head_momentum.layers.0")
    pixelcl = linear("online_encoder.instance_projector.net.0", "online_predictor.net.0")
    online, target = behind("online_encoder.net.", s), behind("target_encoder.net.", t)
    classifier = linear("classifier")
    mlp = linear("fc.0", "fc.3") | norm("fc.1")
    queue, counted = parts("queue", "queue_ptr"), {"averaging counter": 1}

    def small(state: State, **dropped: int) -> Case:
        return Case(lightning(state), {reason.replace("_", " "): number for reason, number in dropped.items()})

    def large(state: State, **dropped: int) -> Case:
        return Case(lightning(state), small({}, **dropped).dropped | ema, branches=TWO)

    def selfsup(online_net: str, target_net: str, extra: State, **dropped: int) -> Case:
        state = behind(f"{online_net}.0.", s) | b | behind(f"{target_net}.0.", t)
        state |= linear(f"{online_net}.1.fc0", "neck.fc0", f"{target_net}.1.fc0") | extra
        more = {"second copy of the backbone": 318, "neck": 6, **dropped}
        return Case(mm(s) | {"state_dict": state}, more | ema, branches=TWO)

    def published(state: State, reason: str = "classifier", container: str = "") -> Case:
        content: dict[str, Any] = {container: s | state} if container else s | state
        return Case(content, {reason: len(state)})

    zoo = BackboneSpec(50, 1 / 16, stride_in_1x1=True)
    inputs = "data_preprocessor=dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False)"
    caffe = f"backbone=dict(type='ResNet', style='caffe')), {inputs}"

    def openmmlab(extra: State, dropped: dict[str, int], configuration: str, pixels: Pixels) -> Case:
        return Case({"meta": {"cfg": configuration}, "state_dict": b | extra}, dropped, zoo, pixels)

    return {
        "MMDetection's detector of style caffe": (
            "mmdet_model",
            openmmlab(DETECTOR, DETECTOR_DROPPED, caffe, MSRA),
        ),
        "MMSegmentation's segmentor of style caffe on RGB pixels": (
            "mmseg_model",
            openmmlab(linear("decode_head.conv_seg"), {"decode head": 2}, "style = 'caffe'", Pixels()),
        ),
        "MMPretrain's classifier of style caffe": (
            "mmpretrain",
            openmmlab(linear("head.fc"), {"head": 2}, caffe, MSRA),
        ),
        "Lightly's benchmark of SimCLR": ("lightly", small(b | heads | probe, projector=8, classifier=2)),
        "Lightly's benchmark of SwAV": (
            "lightly",
            small(b | heads | probe | linear("prototypes.heads.0"), projector=8, classifier=2, prototypes=2),
        ),
        "Lightly's benchmark of MoCo v2": (
            "lightly",
            large(
                b
                | behind("key_backbone.", t)
                | heads
                | linear("key_projection_head.layers.0")
                | probe
                | parts("criterion.memory_bank.bank", "criterion.memory_bank.bank_ptr"),
                projector=10,
                classifier=2,
                queue_and_loss=2,
            ),
        ),
        "Lightly's benchmark of TiCo": (
            "lightly",
            large(b | behind("backbone_momentum.", t) | heads | projection | probe, projector=10, classifier=2),
        ),
        "Lightly's linear evaluation": (
            "lightly",
            small(behind("model.", b | heads | probe) | linear("classification_head"), projector=8, classifier=4),
        ),
        "Lightly's benchmark of BYOL before 2024": (
            "lightly_teacher",
            large(
                both | heads | probe | linear("student_projection_head.layers.0", "student_prediction_head.layers.0"),
                projector=10,
                predictor=2,
                classifier=2,
            ),
        ),
        "Lightly's benchmark of MoCo v2 before 2024": (
            "lightly_teacher",
            large(
                behind("query_", b) | behind("backbone.", t) | heads | linear("query_projection_head.layers.0"),
                projector=10,
            ),
        ),
        "Lightly's example of DINO": (
            "lightly_dino",
            large(
                behind("student_", seq)
                | behind("teacher_backbone.", other)
                | linear("student_head.layers.0", "teacher_head.layers.0")
                | last("student_head")
                | last("teacher_head")
                | parts("criterion.center"),
                projector=8,
                queue_and_loss=1,
            ),
        ),
        "Lightly's ImageNet-100 benchmark of DINO": (
            "lightly",
            large(
                seq
                | behind("teacher_backbone.", other)
                | linear("head.layers.0", "teacher_head.layers.0")
                | last("head")
                | last("teacher_head")
                | parts("criterion.center"),
                projector=8,
                queue_and_loss=1,
            ),
        ),
        "Lightly's example of SimSiam": (
            "lightly",
            small(seq | heads | linear("prediction_head.layers.0"), projector=8, predictor=2),
        ),
        "Lightly's example of DenseCL": (
            "lightly",
            large(
                seq
                | behind("backbone_momentum.", other)
                | linear("projection_head_global.layers.0", "projection_head_local.layers.0")
                | linear("projection_head_global_momentum.layers.0", "projection_head_local_momentum.layers.0")
                | parts("criterion_global.memory_bank.bank", "criterion_local.memory_bank.bank_ptr"),
                projector=8,
                queue_and_loss=2,
            ),
        ),
        "Lightly's example of SMoG": (
            "lightly",
            large(
                seq
                | behind("backbone_momentum.", other)
                | heads
                | projection
                | linear("prediction_head.layers.0")
                | parts("smog.group_features", "memory_bank.bank"),
                projector=10,
                predictor=2,
                prototypes=1,
                queue_and_loss=1,
            ),
        ),
        "Lightly's example of SwAV with a queue": (
            "lightly",
            Case(
                seq | heads | linear("prototypes.heads.0") | parts("queues.0.bank", "queues.1.bank_ptr"),
                {"projector": 8, "prototypes": 2, "queue and loss": 2},
            ),
        ),
        "Lightly's example of VICRegL": (
            "lightly",
            Case(seq | heads | linear("local_projection_head.layers.0"), {"projector": 10}),
        ),
        "the backbone of a Lightly example": ("sequential", Case(seq, {})),
        "solo-learn's DINO": (
            "solo_learn",
            large(
                b
                | momentum
                | classifier
                | linear("momentum_classifier", "head.mlp.0", "momentum_head.mlp.0")
                | last("head")
                | last("momentum_head")
                | parts("dino_loss_func.center"),
                classifier=4,
                projector=8,
                loss_state=1,
            ),
        ),
        "solo-learn's DeepCluster v2": (
            "solo_learn",
            small(
                b
                | classifier
                | linear("projector.0")
                | parts("prototypes.0.weight", "local_memory_index", "local_memory_embeddings"),
                classifier=2,
                projector=2,
                prototypes=1,
                queue_and_memory=2,
            ),
        ),
        "solo-learn's All4One": (
            "solo_learn",
            large(
                b
                | momentum
                | classifier
                | linear("projector.0", "momentum_projector.0", "predictor.0", "predictor2.0")
                | linear("transformer_encoder.layers.0.self_attn.out_proj")
                | parts("pos_enc.penc.penc.inv_freq", "queue", "queue_y", "queue_ptr", "queue_index"),
                classifier=2,
                projector=4,
                predictor=4,
                transformer=3,
                queue_and_memory=4,
            ),
        ),
        "solo-learn's SwAV": (
            "solo_learn",
            small(
                b | classifier | linear("projector.0") | parts("prototypes.weight_g", "prototypes.weight_v", "queue"),
                classifier=2,
                projector=2,
                prototypes=2,
                queue_and_memory=1,
            ),
        ),
        "solo-learn's linear evaluation": ("solo_learn", small(b | classifier, classifier=2)),
        "solo-learn's BYOL before 2022": (
            "solo_learn",
            large(
                behind("encoder.", s)
                | behind("momentum_encoder.", t)
                | classifier
                | linear("projector.0", "momentum_projector.0", "predictor.0"),
                classifier=2,
                projector=4,
                predictor=2,
            ),
        ),
        "PixelCL without propagation": (
            "pixelcl",
            Case(
                online | target | pixelcl | linear("online_encoder.pixel_projector.net.0"),
                {"projector": 4, "predictor": 2} | ema,
                branches=TWO,
            ),
        ),
        "PixelCL with two layers of propagation": (
            "pixelcl",
            Case(
                online | target | pixelcl | linear("propagate_pixels.transform_net.0"),
                {"projector": 2, "predictor": 2, "propagation": 2} | ema,
                branches=TWO,
            ),
        ),
        "SupContrast's cross-entropy": (
            "supcontrast",
            Case({"model": behind("module.encoder.", shortcut(s)) | linear("module.fc")}, {"classifier": 2}),
        ),
        "SupContrast with a linear head": (
            "supcontrast",
            Case({"model": behind("encoder.", shortcut(s)) | linear("head")}, {"projector": 2}),
        ),
        "the maps alone in VICRegL": (
            "vicregl",
            Case(
                {"model": behind("module.", b | classifier | linear("maps_projector.0"))},
                {"projector": 2, "classifier": 2},
            ),
        ),
        "Lightning Bolts' SimCLR": (
            "lightning_bolts",
            small(
                behind("encoder.", s | linear("fc"))
                | linear("projection.model.0", "non_linear_evaluator.block_forward.2")
                | norm("projection.model.1"),
                classifier=4,
                projector=6,
            ),
        ),
        "Lightning Bolts' SimSiam before 2023": (
            "lightning_bolts",
            large(
                behind("online_network.encoder.", s)
                | behind("target_network.encoder.", t)
                | linear("online_network.predictor.model.0", "target_network.predictor.model.0"),
                predictor=4,
            ),
        ),
        "Lightning Bolts' SwAV": (
            "swav",
            small(
                behind("model.", s | linear("projection_head.0") | parts("prototypes.weight")),
                projector=2,
                prototypes=1,
            ),
        ),
        "Lightning Bolts' MoCo": (
            "moco_v1",
            large(
                behind("encoder_q.", s | linear("fc"))
                | behind("encoder_k.", t | linear("fc"))
                | parts("queue.representations", "queue.pointer", "val_queue.representations", "val_queue.pointer"),
                projector=4,
                queue=4,
            ),
        ),
        "OBoW's feature extractor": ("obow", Case({"network": feature_blocks(s), "epoch": 200, "meters": None}, {})),
        "OBoW's file with torchvision's names": ("torchvision", published(linear("fc"), container="network")),
        "torchvision's FCN": (
            "torchvision_segmentation",
            Case(b | linear("classifier.0", "classifier.4", "aux_classifier.0"), {"heads": 6}),
        ),
        "torchvision's RetinaNet": (
            "torchvision_detection",
            Case(
                {
                    "model": behind("backbone.body.", s)
                    | linear("backbone.fpn.inner_blocks.0.0", "backbone.fpn.extra_blocks.p6")
                    | linear("head.classification_head.conv.0.0", "head.regression_head.bbox_reg"),
                    "epoch": 25,
                },
                {"pyramid": 4, "heads": 4},
            ),
        ),
        "MMSelfSup's SimSiam (0.x)": (
            "openselfsup",
            Case(
                mm(s)
                | {
                    "state_dict": behind("encoder.0.", s)
                    | b
                    | linear("encoder.1.fc0", "neck.fc0", "head.predictor.fc0")
                },
                {"second copy of the backbone": 318, "neck": 4, "head": 2},
            ),
        ),
        "MMSelfSup's MoCo v3 (0.x)": (
            "openselfsup",
            selfsup("base_encoder", "momentum_encoder", linear("head.predictor.fc0"), head=2),
        ),
        "MMSelfSup's InterCLR (0.x)": (
            "openselfsup",
            selfsup("encoder_q", "encoder_k", linear("inter_neck_q.mlp.0") | queue, queue=2, neck=8),
        ),
        "ORL": (
            "openselfsup",
            selfsup(
                "online_net",
                "target_net",
                linear("global_head.predictor.fc0", "local_intra_head.predictor.fc0"),
                head=4,
            ),
        ),
        "MMPretrain's MoCo v3": (
            "mmpretrain",
            Case(
                mm(s)
                | {
                    "state_dict": b
                    | behind("momentum_encoder.module.0.", t)
                    | linear("neck.fc0", "momentum_encoder.module.1.fc0", "head.predictor.fc0")
                    | parts("momentum_encoder.steps")
                },
                {"neck": 4, "head": 2, "EMA counter": 1} | ema,
                branches=TWO,
            ),
        ),
        "MMSelfSup's ODC (1.x)": (
            "mmpretrain",
            Case(
                mm(s)
                | {"state_dict": b | linear("neck.fc0", "head.fc_cls") | parts("memory_bank.centroids", "loss_weight")},
                {"neck": 2, "head": 2, "queue": 1, "class weights of the loss": 1},
            ),
        ),
        "an average of torch.optim.swa_utils": (
            "torchvision",
            Case({"n_averaged": torch.tensor(5), **behind("module.", s)}, counted),
        ),
        "an average of MMEngine": ("mmseg", Case({"state_dict": behind("module.", b) | parts("steps")}, counted)),
        "a head of three layers in fc": ("torchvision", published(mlp)),
        "a head called last_linear": ("torchvision", published(linear("last_linear"))),
        "a head called head": ("torchvision", published(linear("head.0", "head.2"), container="model")),
        "a head called heads": ("torchvision", published(linear("heads.head"), container="state_dict")),
        "a classifier of two layers": ("torchvision", published(linear("classifier.0", "classifier.2"))),
        "a head after nn.Sequential": ("sequential", Case(sequential(s) | linear("fc"), {"classifier": 2})),
    }

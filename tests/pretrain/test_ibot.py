"""iBOT against the authors' definition, written down once more in NumPy."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import VIT, backbone, views

from pixbench.errors import UserError
from pretrain import engine
from pretrain.config import from_dict
from pretrain.data.loader import collate
from pretrain.data.masks import draw_masks, places
from pretrain.data.sources import open_source
from pretrain.data.two_views import TwoViews
from pretrain.data.views import LocalCrops, Views
from pretrain.losses.self_distillation import class_token_loss, masked_cells_loss, sharpened
from pretrain.methods.ibot import IBOT
from pretrain.methods.simclr import SimCLR
from pretrain.models.named_network import NamedNetwork
from pretrain.models.named_spec import NamedSpec
from pretrain.run import setup
from pretrain.schedule import LRSchedule, ScheduleConfig, teacher_temperature
from pretrain.settings import RunConfig
from pretrain.step import train_step

SMALL: dict[str, Any] = {"hidden": 16, "bottleneck": 8, "dim": 12, "patch_dim": 10}


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def definition(student, patches, teacher, teacher_patches, masks, centre, patch_centre, temperatures):
    """``iBOTLoss.forward``: lists of views, each (B, K) or (B, N, K); masks are (B, N)."""
    of_student, of_class, of_patch = temperatures
    total, terms, total_patch = 0.0, 0, 0.0
    for q, target in enumerate(teacher):
        for v, prediction in enumerate(student):
            if v != q:
                entropy = -(softmax((target - centre) / of_class) * np.log(softmax(prediction / of_student))).sum(-1)
                total, terms = total + entropy.mean(), terms + 1
        target = softmax((teacher_patches[q] - patch_centre) / of_patch)
        entropy = -(target * np.log(softmax(patches[q] / of_student))).sum(-1)
        total_patch += ((entropy * masks[q]).sum(-1) / np.maximum(masks[q].sum(-1), 1)).mean()
    return total / terms, total_patch / len(teacher)


@pytest.mark.parametrize("local", [0, 3])
def test_both_losses_are_those_of_the_definition(local: int) -> None:
    rng = np.random.default_rng(local)
    student, teacher = rng.normal(size=(2 + local, 4, 6)), rng.normal(size=(2, 4, 6))
    patches, teacher_patches = rng.normal(size=(2, 2, 4, 9, 5))
    masks = rng.random((2, 4, 9)) < 0.4
    masks[0, 0] = False  # an image without masked cells counts as 0
    centre, patch_centre = rng.normal(size=6), rng.normal(size=5)
    wanted = definition(
        student, patches, teacher, teacher_patches, masks, centre, patch_centre, temperatures=(0.1, 0.05, 0.07)
    )
    target = sharpened(torch.tensor(teacher), torch.tensor(centre), 0.05)
    assert class_token_loss(torch.tensor(student), target, 0.1).item() == pytest.approx(wanted[0], abs=1e-9)
    masked, weights = places(masks.reshape(8, 3, 3))
    of_cells, of_teacher = (torch.tensor(x.reshape(-1, 5)[masked]) for x in (patches, teacher_patches))
    target = sharpened(of_teacher, torch.tensor(patch_centre), 0.07)
    loss = masked_cells_loss(of_cells, target, torch.tensor(weights), 0.1)
    assert loss.item() == pytest.approx(wanted[1], abs=1e-9)


def test_a_case_by_hand() -> None:
    """Targets are one-hot; the student's logits are 0, so its distribution is uniform, or ln 3 at one of two places."""
    targets = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    logits = torch.tensor([[[0.0, 0.0]], [[0.0, float(np.log(3))]]])  # the second view: 1/4, 3/4
    # view 2 follows target 1: -ln 1/4; view 1 follows target 2: -ln 1/2
    assert class_token_loss(logits, targets, 1.0).item() == pytest.approx((np.log(4) + np.log(2)) / 2)


def method(**settings: Any) -> IBOT:
    torch.manual_seed(0)
    return IBOT(NamedNetwork(VIT), IBOT.Config(**SMALL | settings), 10).double().train()


def batch(crops: int = 2) -> Views:
    local = torch.randn(4, crops, 3, 32, 32, dtype=torch.float64) if crops else None
    return views(4, dtype=torch.float64)._replace(local=local)


@pytest.mark.parametrize("shared", [True, False])
def test_the_method_is_the_definition_on_all_tokens(shared: bool) -> None:
    """Also that the logits of masked cells alone, and the mean before the linear layer, give the same."""
    built, images = method(shared_head=shared, fixed_lengths=not shared), batch()
    built.update_momentum_encoder()
    generator = torch.Generator().manual_seed(1)
    for name in ("centre", "patch_centre"):
        built.get_buffer(name).copy_(torch.randn(built.get_buffer(name).shape, generator=generator))
    before = {name: built.get_buffer(name).clone() for name in ("centre", "patch_centre")}
    torch.manual_seed(5)
    scalars = built(images)
    masks = draw_masks(random.Random(5), 8, 8, 8, built.config.ranges, "block")
    pixels = torch.cat([images.view1, images.view2])
    with torch.no_grad():
        head, teacher = built.head, built.momentum_encoder.get_submodule("head")
        tokens, cells = built.backbone.tokens(pixels, torch.tensor(masks), built.mask_token)
        local, _ = built.backbone.tokens(images.local.transpose(0, 1).flatten(0, 1))
        of_class = head.class_logits(head(torch.cat([tokens, local]))).unflatten(0, (4, 4)).numpy()
        of_cells = head.patch_logits(head(cells.flatten(0, 1))).unflatten(0, (2, 4, 64)).numpy()
        tokens, cells = built.momentum_encoder.backbone.tokens(pixels)
        target = teacher.class_logits(teacher(tokens)).unflatten(0, (2, 4)).numpy()
        of_patches = teacher.patch_logits(teacher(cells.flatten(0, 1))).unflatten(0, (2, 4, 64)).numpy()
    centre, patch_centre = (x.numpy() for x in before.values())
    loss, loss_patch = definition(
        of_class, of_cells, target, of_patches, masks.reshape(2, 4, 64), centre, patch_centre, (0.1, 0.04, 0.04)
    )
    assert masks.any()
    assert scalars["loss_class"].item() == pytest.approx(loss, abs=1e-9)
    assert scalars["loss_patch"].item() == pytest.approx(loss_patch, abs=1e-9)
    np.testing.assert_allclose(built.centre, 0.9 * centre + 0.1 * target.mean((0, 1)), atol=1e-12)
    np.testing.assert_allclose(built.patch_centre, 0.9 * patch_centre + 0.1 * of_patches.mean((0, 1, 2)), atol=1e-12)


def test_masked_patches_are_not_seen_and_the_others_are() -> None:
    network = NamedNetwork(VIT).eval()
    images, mask, token = torch.randn(1, 3, 64, 64), torch.zeros(1, 8, 8, dtype=torch.bool), torch.zeros(1, 32)
    mask[0, 2, 3] = True
    tokens, cells = network.tokens(images)
    torch.testing.assert_close(cells.transpose(1, 2).unflatten(2, (8, 8)), network(images))
    hidden, seen = images.clone(), images.clone()
    hidden[..., 16:24, 24:32] = 5
    seen[..., 0:8, 0:8] = 5
    first = network.tokens(images, mask, token)
    assert all(map(torch.equal, first, network.tokens(hidden, mask, token)))
    assert not torch.equal(first[0], network.tokens(seen, mask, token)[0])
    assert not torch.equal(first[0], tokens)
    assert torch.equal(tokens, network.tokens(images)[0])  # no hook is left


def test_the_fraction_of_masked_cells_is_in_its_range() -> None:
    """With one range of no spread, blocks stop below the number of cells, or reach it; without, half of the masks are empty."""
    masks = draw_masks(random.Random(0), 300, 14, 14, [(0.3, 0.0)], "block").sum((1, 2))
    assert masks.max() <= 0.3 * 196 + 1
    assert masks.mean() > 0.25 * 196
    masks = draw_masks(random.Random(0), 400, 14, 14, [(0.0, 0.0), (0.3, 0.2)], "block").sum((1, 2))
    assert 0.4 < (masks == 0).mean() < 0.6
    assert masks.max() <= 0.5 * 196 + 1
    exact = draw_masks(random.Random(0), 50, 8, 8, [(0.3, 0.0)], "random").sum((1, 2))
    assert (exact == int(0.3 * 64)).all()


def test_blocks_are_rectangles() -> None:
    """The first block of a mask that wants few cells is the only one."""
    found = 0
    for seed in range(100):
        mask = draw_masks(random.Random(seed), 1, 14, 14, [(17 / 196, 0.0)], "block")[0]
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        found += mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all() if mask.any() else 0
    assert found > 50


def test_nothing_is_masked_before_its_epoch() -> None:
    built = method(mask_start_epoch=1)
    built.steps_per_epoch = 2
    losses = []
    for _ in range(3):
        built.update_momentum_encoder()
        losses.append(float(built(batch(0))["loss_patch"]))
    assert losses[:2] == [0, 0]
    assert losses[2] > 0


@pytest.mark.parametrize("crops", [0, 1])
@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_no_patch_or_every_patch_may_be_masked(ratio: float, crops: int) -> None:
    """Every parameter gets a gradient in any case, without which several processes would wait for it."""
    built = method(mask_ratios=(ratio,), mask_spreads=(0.0,), mask_shape="random")
    built.update_momentum_encoder()
    scalars = built(batch(crops))
    scalars["loss"].backward()
    assert (scalars["loss_patch"] != 0) == (ratio > 0)
    trained = {name: x.grad for name, x in built.named_parameters() if x.requires_grad}
    assert all(grad is not None and grad.isfinite().all() for grad in trained.values())
    assert trained["mask_token"].any() == (ratio > 0)


def test_the_temperature_grows_epoch_by_epoch() -> None:
    wanted = [*np.linspace(0.04, 0.07, 30), 0.07, 0.07]
    assert [teacher_temperature(0.04, 0.07, epoch, 30) for epoch in range(32)] == pytest.approx(wanted)
    assert teacher_temperature(0.04, 0.07, -3, 30) == 0.04


def test_weight_decay_follows_a_cosine() -> None:
    schedule = LRSchedule(ScheduleConfig(final_weight_decay=0.4, warmup_epochs=0), 1.0, 10, 2)
    wanted = [0.4 + 0.5 * (0.04 - 0.4) * (1 + np.cos(np.pi * step / 20)) for step in range(20)]
    assert [schedule.weight_decay(0.04, step) for step in range(20)] == pytest.approx(wanted)
    assert LRSchedule(ScheduleConfig(warmup_epochs=0), 1.0, 10, 2).weight_decay(0.04, 7) == 0.04


def test_a_resnet_and_a_vit_without_class_token_are_refused() -> None:
    for network in (
        backbone(),
        NamedNetwork(NamedSpec(VIT.name, {**VIT.options, "class_token": False, "global_pool": "avg"})),
    ):
        with pytest.raises(UserError, match="IBOT needs the class token and the patch tokens of a Vision Transformer"):
            IBOT(network, IBOT.Config(**SMALL), 10)


def test_ranges_that_are_no_fractions_are_refused() -> None:
    with pytest.raises(UserError, match="same length"):
        IBOT.Config(mask_ratios=(0.1,))
    with pytest.raises(UserError, match="fractions of the cells"):
        IBOT.Config(mask_ratios=(0.1,), mask_spreads=(0.2,))


@pytest.fixture
def config(image_tree, tmp_path: Path):
    root = image_tree(2, 8, size=(80, 72))

    def make(out: str, name: str = "ibot", **changes: Any) -> RunConfig:
        content = {
            "method": {"name": name, **(SMALL if name == "ibot" else {"hidden": 8, "dim": 8})},
            "data": {"root": str(root), "image_size": 64, "workers": 0, "local_crops": 2, "local_size": 32},
            "backbone": VIT.as_dict(),
            "optimizer": {"name": "adamw", "base_lr": 0.01, "weight_decay": 0.04, "clip_norm": 3.0},
            "schedule": {"warmup_epochs": 0, "final_weight_decay": 0.4},
            **{"epochs": 2, "batch_size": 8, "out": str(tmp_path / out), "keep_every": 1},
        }
        return replace(from_dict(content), **changes)

    return make


def test_prototypes_are_frozen_in_the_first_epoch_and_weight_decay_grows(config) -> None:
    run = setup(config("run"), torch.device("cpu"))
    run.model.train()
    layer = {id(x) for x in run.method.head.last_layer()}
    moved = []
    for _ in range(2 * run.steps_per_epoch):
        before = [x.detach().clone() for x in run.method.parameters()]
        loader = engine.ViewLoader(
            engine.open_views(run), engine.batches(run.config, run.order, run.step, run.step + 1)
        )
        train_step(run, next(iter(loader)))
        run.step += 1
        changed = [not torch.equal(a, b) for a, b in zip(before, run.method.parameters(), strict=True)]
        moved.append(any(c for c, x in zip(changed, run.method.parameters(), strict=True) if id(x) in layer))
    assert moved == [False] * run.steps_per_epoch + [True] * run.steps_per_epoch
    decays = [group["weight_decay"] for group in run.optimizer.param_groups]
    assert decays == [run.schedule.weight_decay(0.04, run.step - 1), 0.0]


def test_a_continued_run_equals_an_uninterrupted_one(config, tmp_path: Path) -> None:
    engine.train(config("whole"))
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "checkpoint.pth").write_bytes((tmp_path / "whole" / "checkpoint_ep0001.pth").read_bytes())
    engine.train(config("half"))
    whole, half = (torch.load(tmp_path / name / "checkpoint.pth", weights_only=True) for name in ("whole", "half"))
    assert all(torch.equal(value, half["model"][name]) for name, value in whole["model"].items())


@pytest.mark.parametrize(("setting", "sides"), [("image_size", "60 × 60"), ("local_size", "30 × 30")])
def test_sizes_of_no_whole_patches_are_refused_before_training(config, setting: str, sides: str) -> None:
    run = config("run")
    changed = replace(run, data=replace(run.data, **{setting: int(sides[:2])}))
    with pytest.raises(UserError, match=f"does not take images of {sides} pixels"):
        setup(changed, torch.device("cpu"))


def test_local_crops_are_for_methods_that_use_them(config) -> None:
    assert not SimCLR.takes_local_crops
    with pytest.raises(UserError, match=r"data.local_crops is 2, but simclr does not use local crops; set it to 0"):
        setup(config("run", "simclr"), torch.device("cpu"))


def test_local_crops_come_after_the_views_and_change_nothing_of_them(image_tree) -> None:
    """With the colours left to the step, what is drawn is the same; the changed crops differ by rounding alone."""
    source = open_source(str(image_tree(1, 4, size=(80, 72))), "class_folder")
    made = {}
    for name, crops, colours in (("none", 0, True), ("applied", 3, True), ("left", 3, False)):
        local = LocalCrops(crops, 32, (0.05, 0.25))
        data = TwoViews(
            source, size=64, scale=(0.3, 1), recipe="byol", seed=0, cache=False, colours=colours, local=local
        )
        batch, _ = collate([data[0, number] for number in range(4)])
        made[name] = batch
    assert made["none"].local is None
    assert torch.equal(made["none"].view1, made["applied"].view1)
    assert torch.equal(made["none"].view2, made["applied"].view2)
    assert made["left"].changes.shape == (4, 5, 11)
    applied, left = (made[name].ready().local for name in ("applied", "left"))
    assert applied.shape == left.shape == (4, 3, 3, 32, 32)
    assert (applied - left).abs().mean() < 0.05
    assert not torch.equal(applied[:, 0], applied[:, 1])
    assert [part.local.shape[0] for part in made["left"].chunks(2)] == [2, 2]

"""The shipped configs of the further methods hold the published values. That each parses is in test_config.py."""

from __future__ import annotations

import pytest

from pixbench.paths import CONFIGS
from pretrain.config import parse
from pretrain.optim import scaled_lr
from pretrain.settings import RunConfig


def read(*names: str) -> RunConfig:
    return parse([word for name in names for word in ("--config", str(CONFIGS / "pretrain" / f"{name}.yaml"))])


def test_pixcontrast_differs_from_pixpro_in_the_method_alone() -> None:
    run, pixpro = read("pixcontrast_100ep"), read("pixpro_100ep")
    assert {**run.as_dict(), "method": None} == {**pixpro.as_dict(), "method": None}
    assert (run.method.settings.temperature, run.method.settings.threshold, run.method.settings.momentum) == (
        0.3,
        0.7,
        0.99,
    )
    assert run.method.settings.instance == "none"


@pytest.mark.parametrize(
    ("name", "instance", "plain"),
    [
        ("pixpro_instance_contrastive_100ep", "contrastive", "pixpro_100ep"),
        ("pixpro_instance_regression_100ep", "regression", "pixpro_100ep"),
        ("pixpro_instance_regression_400ep", "regression", "pixpro_400ep"),
    ],
)
def test_the_instance_branch_is_all_that_is_added(name: str, instance: str, plain: str) -> None:
    run, expected = read(name).as_dict(), read(plain).as_dict()
    assert run["method"]["alpha"] == 1.0
    assert run == {**expected, "method": {**expected["method"], "instance": instance}}


@pytest.mark.parametrize(("epochs", "lr", "decay", "momentum"), [(300, 0.3, 1e-6, 0.99), (1000, 0.2, 1.5e-6, 0.996)])
def test_byol(epochs: int, lr: float, decay: float, momentum: float) -> None:
    run = read(f"byol_{epochs}ep")
    assert (run.epochs, run.optimizer.base_lr, run.optimizer.weight_decay) == (epochs, lr, decay)
    assert (run.method.settings.momentum, run.method.settings.hidden, run.method.settings.dim) == (momentum, 4096, 256)
    assert (run.optimizer.name, run.batch_size, run.data.recipe, run.data.min_scale) == ("lars", 4096, "byol", 0.08)
    assert (run.schedule.name, run.schedule.warmup_epochs, run.schedule.min_lr) == ("cosine", 10, 0)


def test_densecl_differs_from_moco_v2_in_the_method_alone() -> None:
    run, moco = read("densecl_200ep"), read("moco_v2_200ep")
    assert {**run.as_dict(), "method": None} == {**moco.as_dict(), "method": None}
    assert (run.method.settings.weight, run.method.settings.queue_size, run.method.settings.temperature) == (
        0.5,
        65536,
        0.2,
    )


@pytest.mark.parametrize("name", ["densecl_200ep", "moco_v2_200ep"])
def test_queue_at_mini_scale(name: str) -> None:
    plain, run = read(name, "mini"), read(name, "mini", "mini_queue")
    assert run.as_dict() == {**plain.as_dict(), "method": {**plain.method.as_dict(), "queue_size": 4096}}
    assert run.method.settings.queue_size % run.batch_size == 0


def test_moco_v1() -> None:
    run = read("moco_v1_200ep")
    assert (run.method.settings.queue_size, run.method.settings.temperature, run.method.settings.momentum) == (
        65536,
        0.07,
        0.999,
    )
    assert (run.optimizer.name, run.optimizer.base_lr, run.optimizer.weight_decay) == ("sgd", 0.03, 1e-4)
    assert (run.schedule.name, run.schedule.warmup_epochs, run.schedule.gamma) == ("multistep", 0, 0.1)
    assert tuple(run.schedule.milestones) == (120, 160)
    assert (run.epochs, run.batch_size, run.data.recipe, run.data.min_scale) == (200, 256, "moco_v1", 0.2)


@pytest.mark.parametrize(("name", "recipe"), [("supervised_90ep", "plain"), ("cds_90ep", "cds")])
def test_methods_with_labels(name: str, recipe: str) -> None:
    run = read(name)
    assert (run.optimizer.name, run.optimizer.base_lr, run.optimizer.weight_decay) == ("sgd", 0.1, 1e-4)
    assert (run.schedule.name, run.schedule.warmup_epochs, tuple(run.schedule.milestones)) == ("multistep", 0, (30, 60))
    assert (run.epochs, run.batch_size, run.data.recipe, run.data.min_scale) == (90, 256, recipe, 0.08)
    assert run.method.settings.classes == 1000


def test_cds_of_the_authors_code() -> None:
    """ResNet-18 and the last stage, and with a teacher other weights; all else as in cds_90ep."""
    paper, run, distilled = read("cds_90ep"), read("cds_r18_90ep"), read("cds_kd_r18_90ep")
    assert (run.backbone.depth, run.method.settings.last_stage, run.method.settings.weight) == (18, True, 0.1)
    assert {**run.as_dict(), "backbone": None, "method": None} == {**paper.as_dict(), "backbone": None, "method": None}
    assert {**distilled.as_dict(), "method": None} == {**run.as_dict(), "method": None}
    settings = distilled.method.settings
    assert (settings.weight, settings.distill_weight, settings.distill_temperature) == (0.5, 0.5, 1.0)
    assert (settings.last_stage, settings.teacher) == (True, "runs/cds_r50/checkpoint.pth")


def test_cds_on_cifar() -> None:
    run, distilled, semi = (read(f"cds_{name}cifar_300ep") for name in ("", "kd_", "semi_"))
    assert (run.backbone.depth, run.backbone.stem, run.backbone.output_stride) == (18, "3x3", 8)
    assert (run.data.image_size, run.data.recipe, run.method.settings.classes) == (32, "cds", 100)
    assert (run.optimizer.name, run.optimizer.weight_decay, run.epochs, run.batch_size) == ("sgd", 5e-4, 300, 128)
    assert scaled_lr(run.optimizer, run.batch_size) == 0.1
    assert (tuple(run.schedule.milestones), run.schedule.gamma) == ((90, 180, 280), 0.1)
    assert distilled.as_dict()["method"] == run.as_dict()["method"] | {
        "teacher": "runs/cds_cifar_r50/checkpoint.pth",
        "distill_weight": 0.1,
        "distill_temperature": 3.0,
    }
    assert semi.as_dict()["method"] == run.as_dict()["method"] | {"contrast": "simclr", "semi_supervised": True}
    for other in (distilled, semi):
        assert {**other.as_dict(), "method": None} == {**run.as_dict(), "method": None}


def test_mini_linear_is_mini_without_the_method() -> None:
    """Read over PixPro, which has the settings that it leaves alone."""
    with_heads, linear, paper = read("pixpro_100ep", "mini"), read("pixpro_100ep", "mini_linear"), read("pixpro_100ep")
    assert linear.as_dict() == {**with_heads.as_dict(), "method": paper.method.as_dict()}

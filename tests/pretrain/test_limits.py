"""Numbers that make no sense are refused before a run starts."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from pixbench.errors import UserError
from pretrain.config import from_dict, parse
from pretrain.limits import LIMITS, OF_ONE_METHOD
from pretrain.methods import METHODS
from pretrain.optim import OptimizerConfig
from pretrain.schedule import ScheduleConfig

WORDS = {"name", "instance", "contrast", "head", "shared_head", "fixed_lengths", "mask_shape"}
WORDS |= {"teacher", "last_stage", "semi_supervised"}
"""Settings that are not numbers."""


def test_every_number_has_a_limit() -> None:
    groups: list[tuple[str, Any]] = [("optimizer", OptimizerConfig), ("schedule", ScheduleConfig)]
    groups += [("method", method.Config) for method in METHODS.values()]
    names = {f"{group}.{field.name}" for group, config in groups for field in fields(config) if field.name not in WORDS}
    assert names == set(LIMITS)
    assert {key for _, key in OF_ONE_METHOD} <= names
    assert {method for method, _ in OF_ONE_METHOD} <= set(METHODS)


@pytest.mark.parametrize(
    ("method", "key", "value", "words"),
    [
        ("pixpro", "optimizer.base_lr", "-1", "at least 0"),
        ("pixpro", "optimizer.momentum", "1", "at least 0 and below 1"),
        ("pixpro", "optimizer.momentum", "-0.1", "at least 0 and below 1"),
        ("pixpro", "optimizer.weight_decay", "-1e-5", "at least 0"),
        ("pixpro", "optimizer.trust_coefficient", "0", "above 0"),
        ("pixpro", "optimizer.eps", "0", "above 0"),
        ("pixpro", "schedule.min_lr", "-1", "at least 0"),
        ("pixpro", "schedule.milestones", "[3, 3]", "epochs above 0, each later than the one before"),
        ("pixpro", "schedule.milestones", "[0, 3]", "epochs above 0, each later than the one before"),
        ("pixpro", "schedule.milestones", "[5, 3]", "epochs above 0, each later than the one before"),
        ("pixpro", "schedule.warmup_epochs", "-1", "at least 0"),
        ("pixpro", "schedule.warmup_multiplier", "0.5", "at least 1"),
        ("pixpro", "schedule.gamma", "0", "above 0"),
        ("pixpro", "method.momentum", "1.01", "between 0 and 1"),
        ("moco_v2", "method.momentum", "-1", "between 0 and 1"),
        ("pixpro", "method.threshold", "-1", "above 0"),
        ("pixpro", "schedule.final_weight_decay", "-1", "at least 0"),
        ("ibot", "method.mask_ratios", "[0.3, 1.2]", "between 0 and 1 each"),
        ("pixpro", "method.threshold", "0", "above 0"),
        ("pixpro", "method.alpha", "-1", "at least 0"),
        ("pixpro", "method.instance_temperature", "0", "above 0"),
        ("simclr", "method.temperature", "-0.1", "above 0"),
        ("pixpro", "method.gamma", "-1", "at least 0"),
        ("pixpro", "method.clamp", "2", "between -1 and 1"),
        ("pixpro", "method.layers", "3", "0, 1 or 2"),
        ("pixpro", "method.layers", "-1", "0, 1 or 2"),
        ("pixpro", "method.hidden", "0", "between 1 and 1000000000"),
        ("byol", "method.dim", "-4", "between 1 and 1000000000"),
        ("moco_v1", "method.queue_size", "0", "between 1 and 1000000000"),
        ("pixpro_fpn", "method.channels", "0", "between 1 and 1000000000"),
        ("supervised", "method.classes", "1", "between 2 and 1000000000"),
        ("densecl", "method.weight", "1.5", "between 0 and 1"),
        ("cds", "method.weight", "-1", "at least 0"),
        ("pixpro", "optimizer.base_lr", ".nan", "a finite number"),
        ("pixpro", "optimizer.weight_decay", ".inf", "a finite number"),
        ("pixpro", "method.gamma", "1e999", "a finite number"),
        ("pixpro", "schedule.warmup_epochs", ".nan", "a finite number"),
    ],
)
def test_a_number_outside_its_limit_is_refused(method: str, key: str, value: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        parse([f"--method.name={method}", f"--{key}={value}"])
    said = str(caught.value)
    assert said.startswith(f"{key} is ")
    assert said.endswith(f"; it must be {words}")


def test_limits_themselves_are_allowed() -> None:
    words = ["--optimizer.momentum=0", "--optimizer.weight_decay=0", "--schedule.min_lr=0", "--schedule.milestones=[]"]
    for method in ("--method.momentum=1", "--method.momentum=0", "--method.layers=0", "--method.dim=1"):
        parse(["--method.name=pixpro", *words, method])
    parse(["--method.name=densecl", "--method.weight=1"])
    parse(["--method.name=cds", "--method.weight=1.5"])
    assert parse(["--method.name=pixpro", f"--seed={2**63 - 1}"]).seed == 2**63 - 1


@pytest.mark.parametrize("key", ["seed", "epochs", "data.limit"])
@pytest.mark.parametrize("value", [2**63, 2**70, 10**300])
def test_whole_numbers_have_a_largest_one(key: str, value: int) -> None:
    with pytest.raises(UserError, match=rf"^{key} is {str(value)[:15]}.*; whole numbers go up to 9223372036854775807"):
        parse(["--method.name=pixpro", f"--{key}={value}"])
    with pytest.raises(UserError, match=r"; whole numbers go up to 9223372036854775807"):
        from_dict({"method": {"name": "pixpro"}, "schedule": {"milestones": [3, value]}})


def test_a_number_too_large_for_a_float_is_refused() -> None:
    with pytest.raises(UserError, match="too large"):
        parse(["--method.name=pixpro", f"--optimizer.base_lr={10**400}"])
    with pytest.raises(UserError, match="too large"):
        from_dict({"method": {"name": "pixpro"}, "optimizer": {"base_lr": 10**400}})

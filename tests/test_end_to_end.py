"""The whole path as a user walks it: a suite from data to tables, at the smallest size that still is the whole path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from benchmarks.commands.main import main
from pixbench.paths import CONFIGS
from transfer.protocols import find_protocol

pytestmark = pytest.mark.slow

MINI = "pretrain/mini.yaml"
SHRUNKEN = {"epochs": 1, "batch_size": 4, "schedule.warmup_epochs": 0, "log_every": 1}
DETECTRON2 = {"SOLVER.MAX_ITER": 3, "SOLVER.STEPS": [2], "SOLVER.WARMUP_ITERS": 1, "SOLVER.CHECKPOINT_PERIOD": 3}
MMSEG = {"train_cfg.max_iters": 3, "train_cfg.val_interval": 3, "param_scheduler.0.milestones": [2]}
OVERRIDES = {"coco_fpn_1x": {**DETECTRON2, "TEST.PRECISE_BN.NUM_ITER": 2}, "cityscapes_fcn16s": MMSEG}


@pytest.mark.frameworks
@pytest.mark.parametrize(
    "protocols",
    [["coco_fpn_1x"], pytest.param(["coco_fpn_1x", "cityscapes_fcn16s"], marks=pytest.mark.e2e)],
    ids=["one framework", "both"],
)
def test_from_images_to_tables(
    protocols: list[str], mini_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pre-train, convert with parity, fine-tune, tabulate; then again, when nothing is left to do."""
    suite = tmp_path / "suite.yaml"
    content = {
        "scale": "mini",
        "rows": {"pixpro": {"pretrain": ["pretrain/pixpro_100ep.yaml", MINI], "set": SHRUNKEN}},
        "protocols": protocols,
        "overrides": {name: OVERRIDES[name] for name in protocols},
        "jobs_at_a_time": 2,
    }
    suite.write_text(yaml.safe_dump(content))
    command = ["suite", str(suite), "--data-root", str(mini_root), "--out", str(tmp_path / "out")]
    assert main(command) == 0, capsys.readouterr().out
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| PixPro" in table
    assert "Not comparable with any published number" in table
    assert "3 of 90,000 iterations" in table
    for protocol in protocols:
        result = json.loads((tmp_path / "out" / "runs" / "pixpro" / protocol / "seed0" / "result.json").read_text())
        assert result["status"] == "ok"
        assert result["iterations"] == 3
        converted = Path(result["weights"]["path"])
        record = json.loads(converted.with_name(converted.name + ".json").read_text())
        assert result["weights"]["sha256"] in json.dumps(record)
    capsys.readouterr()
    assert main(command) == 0
    jobs = 1 + 2 * len(protocols)
    assert f"{jobs} of {jobs} jobs were finished before" in capsys.readouterr().out


PRETRAINED = ("simclr", "moco_v2", "pixpro")


def above_random(table: Path) -> dict[tuple[str, str], list[bool]]:
    """Return column -> for each pre-trained row of a demo, whether its interval lies above that of the random row."""
    found: dict[tuple[str, str], dict[str, tuple[float, float]]] = {}
    for record in json.loads(table.read_text())["records"]:
        if record["metric"] in find_protocol(record["protocol"]).columns and record["low"] is not None:
            ends = record["low"], record["high"]
            found.setdefault((record["protocol"], record["metric"]), {})[record["label"]] = ends
    return {
        column: [rows[row][0] > rows["random"][1] for row in PRETRAINED]
        for column, rows in found.items()
        if {"random", *PRETRAINED} <= rows.keys()
    }


@pytest.mark.e2e
def test_the_demo(tmp_path: Path) -> None:
    """What `make demo` runs: its table shows what pre-training is worth."""
    assert main(["suite", str(CONFIGS / "suites" / "demo.yaml"), "--out", str(tmp_path)]) == 0
    table = (tmp_path / "table.md").read_text()
    report = (tmp_path / "report.html").read_text()
    assert all(f'id="{part}"' in report for part in ("views", "similarity", "pretraining", "bars"))
    assert all(f"| {row}" in table for row in ("Random initialisation", "MoCo v2", "SimCLR", "PixPro"))
    columns = above_random(tmp_path / "table.json")
    assert {protocol for protocol, _ in columns} >= {"voc_c4", "coco_c4_1x", "cityscapes_fcn16s", "imagenet_probe"}
    assert all(2 * sum(row) >= len(columns) for row in zip(*columns.values(), strict=True)), columns

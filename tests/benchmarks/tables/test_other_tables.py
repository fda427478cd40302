"""Ablations, joined seeds, classes, cost and agreement."""

from __future__ import annotations

import csv
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml
from tabled import HOST, frozen, pretraining, result, written

from benchmarks.commands.main import main
from benchmarks.tables.ablation import ablation
from benchmarks.tables.agreement import agreement_document
from benchmarks.tables.beside import beside
from benchmarks.tables.collected import collect
from benchmarks.tables.cost import cost_document
from benchmarks.tables.options import Options
from benchmarks.tables.pretraining import joined, settings_of
from pixbench.errors import UserError
from pixbench.files import write_json


def pretrained(root: Path, label: str, seed: int, gamma: float = 2.0, **more: Any) -> dict[str, Any]:
    """Write the folder of a pre-training run and return what results say of its weights."""
    folder = root / "pretrain" / label
    folder.mkdir(parents=True, exist_ok=True)
    config = {"method": {"name": "pixpro", "gamma": gamma}, "data": {"root": label}, "epochs": 3, "seed": seed, **more}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return {"path": str(folder / "checkpoint.pth"), "sha256": sha256(label.encode()).hexdigest()}


def rows(root: Path, gammas: tuple[float, ...] = (1.0, 2.0, 10.0), pre: int = 3, seeds: int = 2, **more: Any) -> Path:
    for gamma in gammas:
        for seed in range(pre):
            label = f"g{gamma:g}_s{seed}"
            weights = pretrained(root, label, seed, gamma, **more)
            for fine in range(seeds):
                numbers: dict[str, float | None] = {
                    "mIoU": 10 * gamma + seed + 0.01 * seed * gamma + 0.1 * fine * gamma
                }
                result(
                    root / "runs" / label / str(fine), label, "cityscapes_fcn16s", numbers, seed=fine, weights=weights
                )
    return root / "runs"


def lines(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]


def test_an_ablation_has_a_row_for_each_value_over_all_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = rows(tmp_path)
    assert main(["table", str(runs), "--by", "method.gamma", "--baseline", "method.gamma 2"]) == 0
    found = lines(capsys.readouterr().out.split("## Published")[0])
    assert [line[0] for line in found[2:]] == ["method.gamma 1", "method.gamma 2", "method.gamma 10"]
    assert found[2][1] == "11.1 ± 1.0 [8.6, 13.6] ↓"
    assert found[3][1] == "21.1 ± 1.0 [18.6, 23.7]"
    assert "n = 3 × 2." in (runs / "by_method.gamma.md").read_text()
    record = next(csv.DictReader((runs / "by_method.gamma.csv").open()))
    assert (record["n"], record["seeds"], record["test"]) == ("3", "6", "paired t")


def test_an_ablation_refuses_rows_that_differ_in_more(tmp_path: Path) -> None:
    (group,), _ = collect(rows(tmp_path))
    pretrained(tmp_path, "g10_s2", 2, 10.0, epochs=100)
    with pytest.raises(
        UserError, match=r"differ in more than method\.gamma: epochs \(3, 100\); name those settings in --by"
    ):
        ablation(group, ["method.gamma"])
    several = ablation(group, ["method.gamma", "epochs"])
    assert [*several.rows][-1] == "method.gamma 10, epochs 100"
    others = [label for label in group.rows if label != "g10_s2"]
    assert len(ablation(group, ["method.gamma"], others).rows) == 3
    with pytest.raises(UserError, match=r"method\.gama is no pre-training setting.*did you mean method\.gamma\?"):
        ablation(group, ["method.gama"])
    with pytest.raises(UserError, match="epochs is the same in all these rows"):
        ablation(group, ["epochs"], ["g1_s0", "g1_s1"])


def test_an_ablation_needs_the_folders_of_pre_training(tmp_path: Path) -> None:
    result(tmp_path, "a", "cityscapes_fcn16s", {"mIoU": 1.0}, weights={"path": "gone/checkpoint.pth"})
    (group,), _ = collect(tmp_path)
    with pytest.raises(UserError, match="pre-training settings of a are not known"):
        ablation(group, ["epochs"])


def test_settings_are_found_through_conversion_and_by_the_name_of_the_run(tmp_path: Path) -> None:
    weights = pretrained(tmp_path, "a", 0)
    write_json(tmp_path / "a.pkl.json", {"source": {"file": weights["path"]}})
    for where in (
        weights,
        {"path": str(tmp_path / "a.pkl")},
        {"pretraining": {"out": str(tmp_path / "pretrain" / "a")}},
    ):
        found = settings_of({"weights": where})
        assert found is not None
        assert found["method.gamma"] == 2
    assert settings_of({"weights": None}) is None
    (tmp_path / "a.pkl.json").write_text("[]")
    assert settings_of({"weights": {"path": str(tmp_path / "a.pkl")}}) is None


def test_rows_that_differ_in_the_seed_alone_are_joined(tmp_path: Path) -> None:
    runs = rows(tmp_path)
    result(runs / "r", "random", "cityscapes_fcn16s", {"mIoU": 1.0})
    (group,), _ = collect(runs)
    found = joined(group)
    assert [*found.rows] == ["g10", "g1", "g2", "random"]
    (entry,) = found.rows["g2"].values()
    assert (entry.seeds, len(entry.samples("mIoU"))) == ("3 × 2", 6)
    assert len(written(runs)) > 0  # unjoined rows are as they were
    pretrained(tmp_path, "g2_s1", 0)
    with pytest.raises(UserError, match="'g2_s0' and 'g2_s1' were pre-trained with the same settings and seed 0"):
        joined(group)


def test_numbers_of_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, road in enumerate((50.0, 52.0)):
        classes = {"mIoU": {"road": road, "train": None}}
        result(tmp_path / str(seed), "a", "cityscapes_fcn16s", {"mIoU": 1.0}, seed=seed, per_class=classes)
    assert main(["table", str(tmp_path), "--per-class", "cityscapes_fcn16s"]) == 0
    found = lines(capsys.readouterr().out)
    assert found[2:] == [["road", "51.0 ± 1.4"], ["train", "–"]]
    record = next(csv.DictReader((tmp_path / "per_class_cityscapes_fcn16s.csv").open()))
    assert (record["class"], record["mean"], record["n"]) == ("road", "51.0", "2")
    result(tmp_path / "p", "a", "cityscapes_fcn16s", {"mIoU": 1.0}, scale="paper", per_class=classes)
    assert main(["table", str(tmp_path), "--per-class", "cityscapes_fcn16s"]) == 2
    assert "paper scale, fine-tuned: a; mini scale, fine-tuned: a); choose one with --scale" in capsys.readouterr().err
    assert main(["table", str(tmp_path), "--per-class", "cityscapes_fcn16s", "--scale", "paper"]) == 0
    result(tmp_path / "v", "a", "voc_c4", {"AP": 1.0})
    assert main(["table", str(tmp_path), "--per-class", "voc_c4"]) == 2
    assert "no result of voc_c4 at mini scale has numbers of single classes" in capsys.readouterr().err


def test_cost_of_runs_and_of_pre_training(tmp_path: Path) -> None:
    host = {"device": "NVIDIA A100", "processes": 8}
    config = {"SOLVER": {"IMS_PER_BATCH": 16}}
    took = dict(wall_time_s=1800.0, host=host, config=config, iterations=900)
    for seed in range(2):
        result(tmp_path / str(seed), "a", "voc_c4", {"AP": 1.0}, seed=seed, **took)
    frozen(tmp_path / "f", "a", "voc12aug_knn", {"mIoU": 1.0}, wall_time_s=36.0, host={"device": "cpu"})
    pretraining(tmp_path / "pixpro", seconds=7200, host=HOST)
    log = "".join(json.dumps({"step": n, "images_per_s": rate}) + "\n" for n, rate in enumerate((1.0, 500.0, 510.0)))
    (tmp_path / "pixpro" / "log.jsonl").write_text(log)
    groups, _ = collect(tmp_path)
    found = {record["what"]: record for record in cost_document(groups, [tmp_path], Options()).records}
    assert found["voc_c4"]["gpu_hours"] == 2 * 8 * 0.5
    assert (found["voc_c4"]["images_per_s"], found["voc_c4"]["hours"], found["voc_c4"]["runs"]) == (8.0, 0.5, 2)
    assert found["voc_c4"]["device"] == "8 × NVIDIA A100"
    assert (found["voc12aug_knn"]["gpu_hours"], found["voc12aug_knn"]["images_per_s"]) == (None, None)
    pre = found["pre-training"]
    assert (pre["label"], pre["hours"], pre["images_per_s"], pre["device"]) == ("pixpro", 2.0, 500.0, "1 × cpu")


def test_agreement_of_ranks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, label in enumerate("abcdefg"):
        result(tmp_path / label, label, "cityscapes_fcn16s", {"mIoU": float(number)})
        value = float(number if label not in "ab" else 1 - number)  # the first two change places
        frozen(tmp_path / f"f{label}", label, "cityscapes_knn", {"mIoU": value})
    frozen(tmp_path / "only", "only_frozen", "cityscapes_knn", {"mIoU": 99.0})
    assert main(["table", str(tmp_path), "--agreement"]) == 0
    assert "0.90 (n = 7) [0.64, 0.98]" in capsys.readouterr().out
    record = next(csv.DictReader((tmp_path / "agreement.csv").open()))
    assert float(record["tau"]) == pytest.approx(1 - 2 / 21)
    assert record["rows"] == "a; b; c; d; e; f; g"


def test_agreement_needs_both_kinds_and_enough_rows(tmp_path: Path) -> None:
    for label in ("$\\frac{", "a_b", "c"):
        frozen(tmp_path / f"f{len(label)}", label, "cityscapes_knn", {"mIoU": float(len(label))})
    groups, _ = collect(tmp_path)
    with pytest.raises(UserError, match="there are only frozen ones"):
        agreement_document(beside(groups)[0])
    for label in ("$\\frac{", "a_b"):
        result(tmp_path / f"t{len(label)}", label, "cityscapes_fcn16s", {"mIoU": float(len(label))})
    groups, _ = collect(tmp_path)
    document = agreement_document(beside(groups)[0])
    assert "n = 2 rows are too few to say" in document.tables[0].sections[0][1][0]

"""Tables: what they show, what they never show, and what they refuse."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from tabled import result, written

from benchmarks.published import published
from benchmarks.tables import write_tables
from benchmarks.tables.collected import collect
from benchmarks.tables.formats.markdown import to_markdown
from benchmarks.tables.options import Options
from pixbench.errors import UserError
from transfer.protocols import protocols

COCO = {"box_AP": 21.0, "box_AP50": 40.0, "mask_AP": 20.0, "mask_AP50": 38.0}


def test_mini_numbers_never_stand_beside_published_ones(tmp_path: Path) -> None:
    result(tmp_path / "a", "pixpro_400ep", "voc_c4", {"AP": 11.5, "AP50": 20.0, "AP75": 3.0})
    text = written(tmp_path)
    measured, reference = text.split("## Published")
    assert "11.5" in measured
    assert "Not comparable" in measured
    assert "60.2" not in measured
    assert "60.2" in reference
    assert "11.5" not in reference


def test_paper_scale_shows_the_published_number_in_brackets(tmp_path: Path) -> None:
    metrics = {"AP": 59.9, "AP50": 83.0, "AP75": 67.0}
    result(tmp_path / "a", "pixpro_400ep", "voc_c4", metrics, scale="paper", deviations=[])
    text = written(tmp_path)
    assert "59.9 (60.2, −0.3)" in text
    assert "Deviations" not in text
    with (tmp_path / "table.csv").open() as stream:
        rows = {row["metric"]: row for row in csv.DictReader(stream)}
    assert rows["AP"]["published"] == "60.2"
    assert "PixPro" in rows["AP"]["source"]


def test_seeds_become_mean_and_standard_deviation(tmp_path: Path) -> None:
    for seed, value in enumerate((10.0, 12.0)):
        result(tmp_path / f"s{seed}", "random", "cityscapes_fcn16s", {"mIoU": value}, seed=seed)
    assert "11.0 ± 1.4" in written(tmp_path)


def test_shared_deviations_mark_the_column_and_others_the_cell(tmp_path: Path) -> None:
    result(tmp_path / "a", "random", "cityscapes_fcn16s", {"mIoU": 10.0})
    result(tmp_path / "b", "pixpro", "cityscapes_fcn16s", {"mIoU": 11.0})
    assert "mIoU [a]" in written(tmp_path)
    result(tmp_path / "b", "pixpro", "cityscapes_fcn16s", {"mIoU": 11.0}, deviations=["lr 1 instead of 2"])
    text = written(tmp_path)
    assert "mIoU [a]" not in text
    assert "10.0 [a]" in text
    assert "**11.0** [b]" in text  # the best of its column
    assert "- [b] cityscapes_fcn16s, mini scale: lr 1 instead of 2" in text


def test_own_classes_have_a_column_of_their_own(tmp_path: Path) -> None:
    numbers = {"AP": 11.5, "AP50": 20.0, "AP75": 3.0}
    result(tmp_path / "a", "pixpro_400ep", "voc_c4", numbers, scale="paper", deviations=[])
    own = {"scale": "paper", "deviations": ["2 classes (nut, plate) of its own instead of those of the protocol"]}
    result(tmp_path / "b", "pixpro_400ep", "voc_c4", {**numbers, "AP": 71.5}, classes=["nut", "plate"], **own)
    result(tmp_path / "c", "pixpro_400ep", "voc_c4", {**numbers, "AP": 81.5}, classes=["a", "b", "c", "d"], **own)
    head, _, row = written(tmp_path).split("## Published")[0].splitlines()[6:9]
    cells = dict(zip(*([cell.strip() for cell in line.split("|")[1:-1]] for line in (head, row)), strict=True))
    assert cells["VOC AP"] == "11.5 (60.2, −48.7)"
    assert cells["VOC AP on own classes (nut, plate) [b]"] == "71.5"
    assert cells["VOC AP on own classes (a, b, c and 1 more) [a]"] == "81.5"
    with (tmp_path / "table.csv").open() as stream:
        rows = {row["classes"]: row for row in csv.DictReader(stream) if row["metric"] == "AP"}
    assert rows[""]["published"] == "60.2"
    assert rows["nut; plate"]["published"] == ""


def test_a_table_of_own_classes_alone_has_no_published_numbers(tmp_path: Path) -> None:
    result(tmp_path / "b", "pixpro_400ep", "cityscapes_fcn16s", {"mIoU": 1.0}, classes=["nut", "plate"])
    assert "Published" not in written(tmp_path)
    assert "object_IoU" not in (tmp_path / "table.csv").read_text()


def test_a_deviation_that_protocols_share_is_explained_once(tmp_path: Path) -> None:
    for name in ("coco_fpn_1x", "coco_c4_1x"):
        result(tmp_path / name, "random", name, COCO, deviations=["batch 4 instead of 16", f"size of {name}"])
    document = write_tables(tmp_path, tmp_path, Options(full=True))
    appendix = to_markdown(document, full=True).split("All deviations:")[1]
    assert "- [a] [b]: batch 4 instead of 16" in appendix
    assert "- [a]: size of coco_fpn_1x" in appendix
    assert "- [b]: size of coco_c4_1x" in appendix
    assert "All deviations" not in to_markdown(document)


def test_nan_is_shown_and_failed_runs_are_left_out_by_name(tmp_path: Path) -> None:
    result(tmp_path / "a", "random", "coco_fpn_1x", {**COCO, "mask_AP": None})
    result(tmp_path / "b", "pixpro", "coco_fpn_1x", COCO, status="failed", reason="loss became NaN at iteration 3")
    text = written(tmp_path)
    assert "nan" not in text
    assert "undefined [b]" in text
    assert "Undefined numbers:\n\n- [b]: mask_AP: the evaluation gave no number\n" in text
    assert "- b: loss became NaN at iteration 3" in text
    assert "pixpro" not in text.split("## Published")[0].split("Runs left out")[0]


def test_a_protocol_that_is_no_longer_known_is_left_out_by_name(tmp_path: Path) -> None:
    result(tmp_path / "old", "random", "voc_c3", {"AP": 1.0})
    with pytest.raises(UserError, match="of a known protocol"):
        collect(tmp_path)
    result(tmp_path / "a", "random", "cityscapes_fcn16s", {"mIoU": 10.0})
    assert "- old: there is no protocol voc_c3 any more" in written(tmp_path)
    assert "voc_c3" not in (tmp_path / "table.csv").read_text()


def test_one_seed_counts_once(tmp_path: Path) -> None:
    for name in "ab":
        result(tmp_path / name, "random", "cityscapes_fcn16s", {"mIoU": 10.0})
    with pytest.raises(UserError, match="a seed counts once"):
        collect(tmp_path)


def weights(letter: str) -> dict[str, str]:
    return {"path": "x.pth", "sha256": letter * 64, "source": "x.pth"}


@pytest.mark.parametrize("other", [weights("b"), None])
def test_two_backbones_are_not_one_row(other: dict[str, str] | None, tmp_path: Path) -> None:
    cityscapes = "pixpro", "cityscapes_fcn16s", {"mIoU": 10.0}
    for seed in range(2):
        result(tmp_path / f"s{seed}", *cityscapes, seed=seed, weights=weights("a"))
    result(tmp_path / "coco", "pixpro", "coco_fpn_1x", COCO, weights=weights("c"))  # the same, in another layout
    result(tmp_path / "paper", *cityscapes, scale="paper", weights=weights("d"))
    collect(tmp_path)
    result(tmp_path / "s2", *cityscapes, seed=2, weights=other)
    with pytest.raises(UserError, match=r"s2/result\.json and .*s0/result\.json .*'pixpro'.*other weights.*--label"):
        collect(tmp_path)


def frozen(folder: Path, label: str, value: float, stride: int = 16, **changes: object) -> None:
    evaluation = {"stride": stride, **changes.pop("evaluation", {})}  # type: ignore[dict-item]
    metrics = {"knn_top1": value, "linear_top1": value + 1}
    about = {"kind": "frozen", "evaluation": evaluation, "deviations": []}
    result(folder, label, "imagenet_probe", metrics, **about | changes)


def test_frozen_results_have_a_table_of_their_own(tmp_path: Path) -> None:
    result(tmp_path / "a", "pixpro", "cityscapes_fcn16s", {"mIoU": 10.0})
    frozen(tmp_path / "b", "pixpro", 30.0)
    frozen(tmp_path / "c", "moco_v2", 31.0, seed=1)
    tuned, measured = written(tmp_path).split("## Published")[0].split("## Measured with frozen backbones")
    assert ("10.0" in tuned, "30.0" in tuned, "10.0" in measured, "30.0" in measured) == (True, False, False, True)
    assert "narrow backbone" in tuned
    assert "narrow backbone" not in measured
    assert "Notes:" not in measured
    with (tmp_path / "table.csv").open() as stream:
        kinds = {row["protocol"]: row["kind"] for row in csv.DictReader(stream)}
    assert kinds == {"cityscapes_fcn16s": "fine-tuned", "imagenet_probe": "frozen"}


def test_frozen_results_alone_have_no_other_table(tmp_path: Path) -> None:
    frozen(tmp_path / "b", "pixpro_400ep", 30.0, scale="paper")
    text = written(tmp_path)
    assert text.count("## ") == 1
    assert "## Measured with frozen backbones at full scale" in text


def test_different_strides_widths_and_random_rows_are_noted(tmp_path: Path) -> None:
    calibrated = {"backbone": "random initialisation, seed 0, BN statistics of 1024 training pictures"}
    frozen(tmp_path / "a", "pixpro", 30.0, evaluation={"spec": {"width": 0.25}})
    frozen(tmp_path / "b", "random", 20.0, 32, evaluation={**calibrated, "spec": {"width": 1.0}})
    text = written(tmp_path)
    assert "different widths (0.25: PixPro; 1.0: Random initialisation; 1: as published)" in text.replace(
        "pixpro", "PixPro"
    )
    assert (
        "- imagenet_probe: the backbones have cells of different sizes (16 pixels: pixpro; 32 pixels: "
        in text.replace("PixPro", "pixpro")
    )
    assert "the BN statistics were computed on 1024 training pictures" in text


def test_random_rows_that_are_like_different_backbones_are_not_one_row(tmp_path: Path) -> None:
    frozen(tmp_path / "a", "random", 20.0, like="a")
    frozen(tmp_path / "b", "random", 21.0, like="b", seed=1)
    with pytest.raises(UserError, match="start from other weights"):
        collect(tmp_path)


@pytest.mark.parametrize("measured", [result, frozen])
@pytest.mark.parametrize(
    ("one", "other", "sentence"),
    [
        ({"overrides": {"images.size": 128}}, {"overrides": {"images.size": 64}}, "images.size 64 instead of 128"),
        ({"overrides": {"images.size": 128}}, {"config": {"images": {"size": 224}}}, "images.size 224 instead of 128"),
        ({}, {"overrides": {"a": 1}, "config": {"a": 1}}, r"a 1 instead of \(not set\)"),
        ({}, {"freeze": "backbone"}, "freeze backbone instead of none"),
        ({}, {"scaling": {"accumulate": 2}}, "accumulate 2 instead of 1"),
        (
            {"overrides": {"list": "l.txt"}, "files": {"list": "a" * 64}},
            {"overrides": {"list": "l.txt"}, "files": {"list": "b" * 64}},
            "content of list bbbbbbbbbbbb… instead of aaaaaaaaaaaa…",
        ),
    ],
)
def test_seeds_with_other_settings_are_not_one_row(
    measured: Any, one: dict[str, Any], other: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    row = ("A", "cityscapes_fcn16s", {"mIoU": 1.0}) if measured is result else ("A", 1.0)
    measured(tmp_path / "s0", *row, **one)
    measured(tmp_path / "s1", *row, **other, seed=1)
    with pytest.raises(UserError, match=rf"s1/.* and .*s0/.*'A'.*other settings \({sentence}\).*--label"):
        collect(tmp_path)


def test_what_may_differ_between_seeds_is_no_other_setting(tmp_path: Path) -> None:
    same = {"images": {"size": 128}, "OUTPUT_DIR": "a"}
    runs: tuple[dict[str, Any], ...] = (
        {"overrides": {"images.size": 128, "settings.list_seed": 42}, "freeze": "backbone", "config": same},
        {"overrides": {"DATALOADER.NUM_WORKERS": 4}, "freeze": "backbone", "config": same | {"OUTPUT_DIR": "b"}},
        {"freeze": "backbone", "scaling": {"accumulate": 1}, "data": {"root": "/elsewhere"}, "config": same},
    )
    for seed, about in enumerate(runs):
        frozen(tmp_path / f"s{seed}", "A", 10.0 + seed, seed=seed, **about)
    for seed, name in enumerate("ab"):  # the same list in another place
        about = {"overrides": {"list": f"{name}.txt"}, "files": {"list": "a" * 64}}
        frozen(tmp_path / name, "B", 10.0, seed=seed, **about)
    frozen(tmp_path / "old", "B", 10.0, seed=2, overrides={"list": "a.txt"})  # of before contents were recorded
    assert "11.0 ± 1.0" in written(tmp_path)


def test_different_numbers_of_test_pictures_are_noted(tmp_path: Path) -> None:
    frozen(tmp_path / "a", "full", 30.0, evaluation={"pictures": {"train": 5, "test": 12}})
    frozen(tmp_path / "b", "other", 20.0, evaluation={"pictures": {"train": 4, "test": 12}})
    frozen(tmp_path / "d", "old", 20.0)
    assert "numbers of pictures" not in written(tmp_path)
    frozen(tmp_path / "c", "half", 40.0, evaluation={"pictures": {"train": 5, "test": 6}})
    note = "- imagenet_probe: the numbers were measured on different numbers of pictures (6: half; 12: full, other), "
    assert note in written(tmp_path)
    for name, number in (("e", 20), ("f", 10)):  # a protocol whose pictures have no other split
        about = {"pictures": {"train": number}}
        metrics = {"CorLoc": 1.0}
        result(tmp_path / name, name, "voc07_discovery", metrics, kind="frozen", evaluation=about)
    assert "- voc07_discovery: the numbers were measured on different numbers of pictures (10: f; 20: e), " in (
        written(tmp_path)
    )


def test_no_results_and_broken_results_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished transfer run"):
        collect(tmp_path)
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(UserError, match=r"no finished transfer run.*1 of 1 results left out: 1 damaged"):
        collect(tmp_path)


def test_a_file_that_cannot_be_used_is_named_and_the_others_stand_in_the_table(tmp_path: Path) -> None:
    for name in ("good", "damaged", "foreign", "older", "newer", "edited"):
        result(tmp_path / name, name, "cityscapes_fcn16s", {"mIoU": 10.0})
    files = {path.parent.name: path for path in tmp_path.glob("*/result.json")}
    content = files["good"].read_text()
    files["damaged"].write_text(content[:100])
    files["foreign"].write_text('{"accuracy": 0.5}')
    files["older"].write_text(content.replace('"schema": 2', '"schema": 1'))
    files["newer"].write_text(content.replace('"schema": 2', '"schema": 3'))
    files["edited"].write_text(content.replace('"mIoU": 10.0', '"mIoU": 99.0'))
    text = written(tmp_path)
    assert "| good " in text
    assert "99.0" not in text
    left_out = text.partition("## Runs left out\n\n")[2].splitlines()
    assert [line.partition(":")[0] for line in left_out[:-1]] == [f"- {name}" for name in sorted(set(files) - {"good"})]
    assert left_out[-1] == (
        "- 5 of 6 results left out: 1 damaged, 1 changed by hand, 1 not written by PixBench, 1 of a newer schema, "
        "1 of an older schema (`pixbench results upgrade`)"
    )


def test_published_numbers_belong_to_known_protocols_and_metrics_and_have_sources() -> None:
    for row in published().values():
        for name, values in row.values.items():
            assert set(values) <= set(protocols()[name].metrics), (row.label, name)
            assert row.sources[name]


def test_a_row_that_is_not_there_is_refused(tmp_path: Path) -> None:
    result(tmp_path / "a", "pixpro_400ep", "voc_c4", {"AP": 11.5, "AP50": 20.0, "AP75": 3.0})
    with pytest.raises(UserError, match=r"no row 'pixpro_40ep'.*did you mean pixpro_400ep\?.*rows: pixpro_400ep"):
        written(tmp_path, order=("pixpro_40ep",))
    assert not (tmp_path / "table.md").exists()

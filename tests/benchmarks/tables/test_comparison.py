"""Intervals, marks and footnotes of comparison tables."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from made_matches import matches
from made_results import made
from tabled import cells, frozen, result, seeds, written

from benchmarks.commands.main import main
from benchmarks.tables import compared, write_tables
from benchmarks.tables.beside import beside
from benchmarks.tables.brief import brief
from benchmarks.tables.collected import collect
from benchmarks.tables.formats.markdown import to_markdown
from benchmarks.tables.options import Options
from pixbench.errors import UserError
from pixbench.results import write_result
from transfer.detection.matches import averages
from transfer.protocols import protocols

BASE = [50.0, 51.0, 49.5, 50.5]
HEAD = {"MODEL": {"ROI_BOX_HEAD": {"NUM_CONV": 4, "NUM_FC": 1}}}


def three_rows(folder: Path) -> None:
    seeds(folder, "random", BASE)
    seeds(folder, "better", [value + 5 + shift for value, shift in zip(BASE, (0.1, 0, -0.1, 0.2), strict=True)])
    seeds(folder, "same", [value + shift for value, shift in zip(BASE, (0.5, -0.6, 0.2, -0.2), strict=True)])
    seeds(folder, "few", [60.0, 61.0])


def lines(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]


def rows_of(text: str) -> dict[str, str]:
    return {line[0]: line[1] for line in lines(text)}


def test_cells_have_intervals_and_marks_where_n_allows(tmp_path: Path) -> None:
    three_rows(tmp_path)
    text = written(tmp_path)
    rows = rows_of(text.split("## Published")[0])
    assert rows["Random initialisation"] == "50.2 ± 0.6 [49.2, 51.3]"
    assert rows["better"] == "55.3 ± 0.7 [54.2, 56.4] ↑"
    assert rows["same"] == "50.2 ± 0.4 [49.7, 50.8] ≈"
    assert rows["few"] == "**60.5 ± 0.7** ?"
    assert "n = 2 to 4." in text
    assert "?: n = 2 is too small to say (an interval of ± 12.7 standard errors" in text
    assert "Compared with Random initialisation: ↑ higher, ↓ lower, ≈ within noise, ? n too small to say" in text


def test_the_baseline_is_chosen(tmp_path: Path) -> None:
    three_rows(tmp_path)
    rows = rows_of(written(tmp_path, baseline="better").split("## Published")[0])
    assert rows["Random initialisation"].endswith("↓")
    assert not rows["better"].endswith(("↑", "↓", "≈"))
    assert "Compared with" not in written(tmp_path, baseline="none")
    with pytest.raises(UserError, match=r"no row 'better2'.*did you mean better"):
        written(tmp_path, baseline="better2")


def test_numbers_of_seeds_are_ordered_as_numbers(tmp_path: Path) -> None:
    seeds(tmp_path, "a", [1.0, 2.0])
    seeds(tmp_path, "b", [float(value) for value in range(10)])
    assert "n = 2 to 10." in written(tmp_path)


def test_one_seed_has_no_marks_but_a_sentence(tmp_path: Path) -> None:
    for label in ("random", "a"):
        seeds(tmp_path, label, [1.0])
    text = written(tmp_path)
    assert "- which differences are noise is unknown, because n = 1 is too small to say" in text
    assert "≈" not in text


def test_numbers_of_the_comparison_are_in_csv(tmp_path: Path) -> None:
    three_rows(tmp_path)
    write_tables(tmp_path, tmp_path)
    rows = {row["label"]: row for row in csv.DictReader((tmp_path / "table.csv").open()) if row["metric"] == "mIoU"}
    found = rows["better"]
    assert (found["baseline"], found["test"], found["mark"], found["n"]) == ("random", "paired t", "higher", "4")
    assert float(found["difference"]) == pytest.approx(5.05)
    assert float(found["difference_low"]) < 5.05 < float(found["difference_high"])
    assert float(found["p_holm"]) == pytest.approx(2 * float(found["p"]))
    assert float(found["effect"]) == pytest.approx(5.05 / 0.1291, rel=1e-3)
    assert (rows["few"]["mark"], rows["few"]["p"], rows["random"]["mark"]) == ("n too small to say", "", "")


def test_rows_with_weights_are_single_pre_training_runs(tmp_path: Path) -> None:
    three_rows(tmp_path)
    assert "--join-seeds" not in written(tmp_path)
    seeds(tmp_path, "better", [55.0, 56.0, 55.2, 55.8], weights={"path": "x.pth"})
    assert "one pre-training run each: intervals and marks hold for these runs, not for their methods" in written(
        tmp_path
    )


def test_rows_of_other_heads_share_no_column(tmp_path: Path) -> None:
    metrics: dict[str, float | None] = {"box_AP": 1.0, "mask_AP": 1.0}
    result(tmp_path / "a", "a", "coco_fpn_1x", metrics, config=HEAD)
    result(
        tmp_path / "b", "b", "coco_fpn_1x", metrics, config={"MODEL": {"ROI_BOX_HEAD": {"NUM_CONV": 0, "NUM_FC": 2}}}
    )
    expected = (
        r"'b' and 'a' of coco_fpn_1x.*NUM_CONV 0 instead of 4; MODEL\.ROI_BOX_HEAD\.NUM_FC 2 instead of 1.*one column"
    )
    with pytest.raises(UserError, match=expected):
        written(tmp_path)
    result(tmp_path / "b", "b", "coco_fpn_1x", metrics, config=HEAD)
    result(tmp_path / "c", "c", "coco_fpn_1x", metrics)  # before configs were recorded
    assert "COCO FPN 4conv1fc box AP" in written(tmp_path)


def test_frozen_stands_beside_fine_tuned_in_groups(tmp_path: Path) -> None:
    seeds(tmp_path, "a", [10.0])
    frozen(tmp_path / "f", "a", "cityscapes_knn", {"mIoU": 20.0})
    frozen(tmp_path / "p", "b", "cityscapes_knn", {"mIoU": 30.0}, scale="paper")
    groups, _ = collect(tmp_path)
    text = to_markdown(compared(groups, (), Options(), beside=True))
    assert len(beside(groups)) == 2
    row = cells(text.split("## Measured at mini scale")[1])
    assert row == {
        "Pre-training": "a",
        "fine-tuned: Cityscapes mIoU [a]": "10.0",
        "frozen: Cityscapes k-NN mIoU": "20.0",
    }
    assert "30.0" not in text.split("## Measured at mini scale")[1]


def test_only_the_first_metric_of_a_protocol(tmp_path: Path) -> None:
    result(tmp_path, "a", "voc_c4", {"AP": 1.0, "AP50": 2.0, "AP75": 3.0})
    assert [*cells(written(tmp_path, metrics="first"))] == ["Pre-training", "VOC AP [a]"]


MINI = [
    "INPUT.MAX_SIZE_TEST 192 instead of 1333",
    "INPUT.MIN_SIZE_TEST 128 instead of 800",
    "MODEL.RESNETS.RES2_OUT_CHANNELS 64 instead of 256",
    "MODEL.RESNETS.STEM_OUT_CHANNELS 16 instead of 64",
    "SOLVER.MAX_ITER 120 instead of 90000",
    "SOLVER.IMS_PER_BATCH 4 instead of 16",
    "SOLVER.STEPS (95, 110) instead of (60000, 80000)",
]


@pytest.mark.parametrize(
    ("protocol", "scale", "deviations", "line"),
    [
        (
            "coco_fpn_1x",
            "mini",
            MINI,
            "mini scale: 128-px images, quarter-width backbone, 120 of 90,000 iterations, batch 4 instead of 16, 3 more settings",
        ),
        (
            "cityscapes_fcn16s",
            "mini",
            [
                "model.data_preprocessor.size (129, 129) instead of (769, 769)",
                "model.backbone.base_channels 8 instead of 64",
            ],
            "mini scale: 129-px images, eighth-width backbone",
        ),
        ("voc_c4", "paper", ["SOLVER.MAX_ITER 48000 instead of 24000"], "48,000 instead of 24,000 iterations"),
        (
            "voc_c4",
            "paper",
            ["2 classes (nut, plate) of its own instead of those of the protocol", "TEST.X 1 instead of 2"],
            "2 classes (nut, plate) of its own instead of those of the protocol, TEST.X 1 instead of 2",
        ),
        ("voc12aug_knn", "paper", ["settings.neighbours 5 instead of 30"], "neighbours 5 instead of 30"),
        (
            "voc12aug_knn",
            "paper",
            ["settings.train_list a.txt (content 0123abc)"],
            "train_list a.txt (content 0123abc)",
        ),
    ],
)
def test_deviations_in_one_line(protocol: str, scale: str, deviations: list[str], line: str) -> None:
    assert brief(protocols()[protocol], scale, deviations) == line


def test_what_a_protocol_changes_itself_is_counted() -> None:
    protocol = protocols()["ade20k_incontext_public"]
    line = "differs from the public definition in 2 points (docs/protocols/ade20k_incontext_public.md)"
    assert brief(protocol, "paper", protocol.differs) == line


def test_full_lists_every_deviation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result(tmp_path, "a", "coco_fpn_1x", {"box_AP": 1.0, "mask_AP": 1.0}, deviations=MINI)
    assert main(["table", str(tmp_path)]) == 0
    assert "SOLVER.STEPS" not in capsys.readouterr().out
    assert "SOLVER.STEPS" in (tmp_path / "table.html").read_text()  # folded
    assert main(["table", str(tmp_path), "--full"]) == 0
    out = capsys.readouterr().out
    assert all(text in out for text in MINI)
    assert f"written: {tmp_path}/table.md, .csv, .tex, .html, .json" in out


def test_csv_has_one_line_for_each_number(tmp_path: Path) -> None:
    three_rows(tmp_path)
    text = (write_tables(tmp_path, tmp_path), (tmp_path / "table.csv").read_text())[1]
    assert (
        len({(row["label"], row["metric"]) for row in csv.DictReader(io.StringIO(text))}) == len(text.splitlines()) - 1
    )


def test_intervals_over_images_where_they_are_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = np.random.default_rng(0)
    for label in ("a", "b", "damaged"):
        union = draw.integers(50, 100, (40, 2))
        areas = {"intersection": (union * draw.random((40, 2))).astype(int), "union": union}
        arrays = {"images": np.array([f"{n}.png" for n in range(40)]), **areas}
        score = float(100 * np.mean(areas["intersection"].sum(0) / union.sum(0)))
        stored = {"file": "per_image.npz", "arrays": {name: name for name in arrays}}
        content = made("cityscapes_fcn16s", {"mIoU": score, "mAcc": 1.0}, label=label)
        content["per_image"] = {"mIoU": stored, "mAcc": stored}
        write_result(tmp_path / label, content, {"per_image": arrays})
    seeds(tmp_path, "c", [1.0])
    (tmp_path / "damaged" / "per_image.npz").write_bytes(b"cut off")
    assert main(["table", str(tmp_path), "--interval", "images", "--metrics", "all"]) == 0
    out = capsys.readouterr().out
    assert "95 % interval over the images of the test set" in out
    found = {line[0]: line for line in lines(out.split("## Published")[0])}
    low, high = map(float, found["b"][1].replace("*", "").partition("[")[2].partition("]")[0].split(","))
    assert low < score < high
    assert "[" not in found["b"][2].replace("[a]", "")  # mAcc is no mean IoU
    assert "," not in found["c"][1]
    assert "no interval over images: no values of single images are stored (Cityscapes mIoU" in out
    records = {
        (row["label"], row["metric"]): row for row in json.loads((tmp_path / "table.json").read_text())["records"]
    }
    assert records["b", "mIoU"]["low"] == pytest.approx(low, abs=0.06)  # the files have the same interval as the table
    assert (records["b", "mIoU"]["interval_over"], records["c", "mIoU"]["interval_over"]) == ("images", "")
    assert "is not the file that was written" in out  # the other rows have theirs


@pytest.mark.parametrize("protocol", ["voc_c4", "coco_fpn_1x"])
def test_average_precision_has_an_interval_over_images(protocol: str, tmp_path: Path) -> None:
    arrays = matches("voc12" if protocol == "voc_c4" else "coco", np.random.default_rng(0))
    prefix = "" if protocol == "voc_c4" else "box_"
    scores = {f"{prefix}{name}": value for name, value in averages(arrays).items()}
    stored = {"file": "detections.npz", "arrays": {name: name for name in arrays}}
    content = made(protocol, scores, label="a") | {"per_image": dict.fromkeys(scores, stored)}
    write_result(tmp_path, content, {"detections": arrays})
    write_tables(tmp_path, tmp_path, Options(interval="images"))
    found = {row["metric"]: row for row in json.loads((tmp_path / "table.json").read_text())["records"]}
    for metric, score in scores.items():
        assert found[metric]["low"] < score < found[metric]["high"]


def test_rows_with_the_same_title_are_told_apart_by_their_labels(tmp_path: Path) -> None:
    seeds(tmp_path, "PixPro", [1.0])
    seeds(tmp_path, "pixpro", [2.0])
    seeds(tmp_path, "simclr", [3.0])
    text = written(tmp_path)
    assert all(f"| {title} " in text for title in ("PixPro", "pixpro", "SimCLR"))

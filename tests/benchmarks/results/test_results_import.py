"""Results of runs that were made elsewhere: Detectron2's metrics.json and logs of MMSegmentation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.commands.main import main
from benchmarks.results.foreign import imported
from benchmarks.tables import write_tables
from benchmarks.tables.formats.markdown import to_markdown
from pixbench.errors import UserError
from pixbench.files import sha256
from pixbench.results import read_result
from transfer.protocols import find_protocol

VOC, CITYSCAPES = find_protocol("voc_c4"), find_protocol("cityscapes_fcn_d8_40k")
DETECTRON2 = [
    {"iteration": 19, "total_loss": 2.5, "lr": 0.001, "eta_seconds": 10.0, "rpn/num_pos_anchors": 4},
    {"iteration": 39, "total_loss": 1.5, "lr": 0.02, "bbox/AP": 40.0, "bbox/AP50": 70.0, "bbox/AP75": 41.0},
    {"iteration": 59, "total_loss": 1.0, "lr": 0.02, "bbox/AP": 57.5, "bbox/AP50": 82.4, "bbox/AP75": float("nan")},
]
MMSEG = """\
10:00 - mmengine - INFO - Iter(train) [   50/40000]  lr: 9.9890e-03  eta: 6:40:12  loss: 2.5000  decode.acc_seg: 40.0
10:01 - mmengine - INFO - Iter(val) [500/500]    aAcc: 90.1000  mIoU: 60.2500  mAcc: 70.5000  time: 0.1
10:02 - mmengine - INFO - Iter(train) [40000/40000]  lr: 1.0000e-04  eta: 0:00:00  time: 0.5  loss: 0.2500
10:03 - mmengine - INFO - Iter(val) [500/500]    aAcc: 95.9000  mIoU: 75.7500  mAcc: 83.5000  time: 0.1
"""


def detectron2_log(folder: Path) -> Path:
    path = folder / "metrics.json"
    path.write_text("".join(json.dumps(line) + "\n" for line in DETECTRON2))
    return path


def test_detectron2(tmp_path: Path) -> None:
    source = detectron2_log(tmp_path)
    result = read_result(imported(source, VOC, tmp_path / "run", "theirs", seed=4))
    assert result["metrics"] == {"AP": 57.5, "AP50": 82.4}  # of the last evaluation; it has no AP75
    assert (result["kind"], result["seed"], result["label"], result["iterations"]) == ("transfer", 4, "theirs", 59)
    assert [point["loss"] for point in result["curve"]] == [2.5, 1.5, 1.0]
    assert [point.get("AP") for point in result["curve"]] == [None, 40.0, 57.5]
    assert result["imported"] == {"tool": "detectron2", "file": str(source), "sha256": sha256(source)}
    assert "imported: the run was made elsewhere" in result["deviations"][0]


@pytest.mark.parametrize("kind", ["text", "json"])
def test_mmsegmentation(kind: str, tmp_path: Path) -> None:
    source = tmp_path / "run.log"
    source.write_text(MMSEG)
    if kind == "json":
        lines = [
            {"lr": 0.01, "loss": 2.5, "iter": 50, "step": 50},
            {"aAcc": 95.9, "mIoU": 75.75, "mAcc": 83.5, "step": 40000},
        ]
        source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = read_result(imported(source, CITYSCAPES, tmp_path / "run", "theirs"))
    assert result["metrics"] == {"mIoU": 75.75, "aAcc": 95.9, "mAcc": 83.5}
    assert result["seed"] is None
    assert result["iterations"] == 40000
    assert result["curve"][0]["loss"] == 2.5


def test_an_imported_result_stands_in_the_table_with_its_mark(tmp_path: Path) -> None:
    words = ("--protocol", "voc_c4", "--label", "theirs", "--seed", "0", "--out", str(tmp_path / "runs" / "a"))
    assert main(["results", "import", str(detectron2_log(tmp_path)), *words]) == 0
    text = to_markdown(write_tables(tmp_path / "runs", tmp_path))
    assert "57.5" in text
    assert "imported: the run was made elsewhere by detectron2" in text
    assert main(["results", "import", str(detectron2_log(tmp_path)), *words]) == 2  # there is one already
    assert main(["results", "verify", str(tmp_path / "runs")]) == 0


@pytest.mark.parametrize(
    ("content", "protocol", "message"),
    [
        (b"", "voc_c4", "holds none of the metrics of voc_c4 .*; it holds no numbers"),
        (b'{"iteration": 1, "total_loss": 2}\n', "voc_c4", "it holds iteration, total_loss"),
        (MMSEG.encode(), "voc_c4", "holds none of the metrics"),
        (b'{"bbox/AP": true}\n', "voc_c4", "holds none of the metrics"),
        (b'{"bbox/AP": Infinity}\n', "voc_c4", "holds none of the metrics"),
        (b"[" * 50000, "voc_c4", "holds none of the metrics"),
        (b"\xff\xfe\x00", "voc_c4", "cannot be read"),
        (b'{"mode": "val", "mIoU": 0.75}\n', "cityscapes_fcn_d8_40k", "fractions"),
        (b"{}", "ade20k_knn", "run by PixBench alone"),
    ],
)
def test_a_log_without_the_metrics_is_refused(content: bytes, protocol: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(content)
    with pytest.raises(UserError, match=message):
        imported(tmp_path / "log", find_protocol(protocol), tmp_path / "run", "theirs")
    assert not (tmp_path / "run").exists()


def test_logs_without_a_seed_are_runs_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They have no number in common, so none may take the place of another, and none is paired with another."""
    for run, ap in enumerate((50.0, 52.0, 54.0, 99.0)):
        log = tmp_path / f"{run}.json"
        log.write_text(json.dumps({"iteration": 1, "bbox/AP": ap, "bbox/AP50": 1.0, "bbox/AP75": 1.0}))
        imported(log, VOC, tmp_path / "runs" / str(run), "theirs" if run < 3 else "random")
    write_tables(tmp_path / "runs", tmp_path)
    record = next(
        row for row in json.loads((tmp_path / "table.json").read_text())["records"] if row["label"] == "theirs"
    )
    assert (record["mean"], record["std"], record["n"]) == (52.0, 2.0, 3)
    imported(tmp_path / "0.json", VOC, tmp_path / "runs" / "again", "theirs")
    assert main(["table", str(tmp_path / "runs")]) == 2
    assert "scale imported from the same log: remove one of them" in capsys.readouterr().err

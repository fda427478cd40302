"""Conditions on results, and what is printed and exported of those that fulfil them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import made_results
import pyarrow.parquet
import pytest

from benchmarks.commands.main import main
from benchmarks.results.query import Condition, chosen, parse
from benchmarks.results.reading import Found, read_all
from pixbench.errors import UserError

PRETRAINING = {
    **{"method": "pixpro", "seed": 3, "epochs": 100, "step": 5, "finished": True},
    **{"config_sha256": "0" * 64, "images": "abc", "out": "runs/pix pro"},
}
WEIGHTS = {"path": "a.pkl", "sha256": "1" * 64, "source": "a.pkl", "pretraining": PRETRAINING}


@pytest.fixture
def found(tmp_path: Path) -> list[Found]:
    made_results.write(tmp_path / "a", metrics={"AP": 55.5, "AP50": 80.0}, label="pixpro", weights=WEIGHTS)
    made_results.write(tmp_path / "b", metrics={"AP": 50.0, "AP50": None}, label="moco", seed=1, weights=None)
    made_results.write(tmp_path / "c", "ade20k_knn", scale="paper", classes=["nut", "plate"])
    pretrain = {"kind": "pretrain", "method": "simclr", "metrics": {"loss": 1.5}, "units": {"loss": "1"}}
    about = {**made_results.ABOUT, "config": {}, "config_sha256": "0" * 64}
    made_results.rewrite_result(tmp_path / "d" / "result.json", about | pretrain)
    return read_all(tmp_path).found


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("protocol~VOC", "ab"),
        ("protocol!~voc", "cd"),
        ("method=pixpro and protocol~voc", "a"),
        ("method=simclr", "d"),
        ("method=none", "bc"),
        ("AP>50", "a"),
        ("AP >= 50 AND AP50 < 1e9", "a"),
        ("AP=50", "b"),
        ("AP50=none", "bcd"),
        ("seed!=0", "b"),
        ("pretraining_seed<=3", "a"),
        ('pretraining = "runs/pix pro"', "a"),
        ("weights.pretraining.out='runs/pix pro'", "a"),
        ("classes=nut", "c"),
        ("classes~PLA", "c"),
        ("dirty=false and kind=pretrain", "d"),
        ("usage.peak_memory_gb=1.50", "abcd"),
        ("label=random", "c"),
        ("tool=mmseg", ""),
        ("loss<2", "d"),
    ],
)
def test_conditions(query: str, names: str, found: list[Found]) -> None:
    assert "".join(item.path.parent.name for item in chosen(found, query)) == names


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "the query is empty"),
        ("AP", "cannot be read from 'AP' on"),
        ("AP>50 or seed=1", "cannot be read from"),
        ("AP>50 and", "cannot be read from"),
        ("AP>high", "'high' is not a number"),
        ("AP=='x", "cannot be read"),
        ("protokol=voc", "no result has a field 'protokol'; did you mean protocol"),
        ("weights.sha=1", "no result has a field"),
    ],
)
def test_a_query_that_says_nothing_is_explained(query: str, message: str, found: list[Found]) -> None:
    with pytest.raises(UserError, match=message):
        chosen(found, query)


def test_signs_are_read_as_they_are_written() -> None:
    assert parse('a<=1 and b != x-y.z and c~"d and e"') == [
        Condition("a", "<=", "1"),
        Condition("b", "!=", "x-y.z"),
        Condition("c", "~", "d and e"),
    ]


def test_a_list_names_what_was_left_out(found: list[Found], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "result.json").write_text("{}")
    assert main(["results", "list", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "4 results\n" in said
    assert f"left out: {tmp_path / 'e' / 'result.json'} is not a result of PixBench\n1 of 5 results left out" in said
    assert main(["results", "show", str(tmp_path / "a")]) == 0
    said = capsys.readouterr().out
    assert "runs/pix pro\n" in said
    assert main(["results", "list", str(tmp_path / "nowhere")]) == 2
    assert main(["results", "query", "AP>1", str(tmp_path / "c")]) == 2


def cell(value: Any) -> str:
    return "" if value is None else str(value)


def test_parquet_and_csv_hold_a_line_for_each_metric(found: list[Found], tmp_path: Path) -> None:
    files = [tmp_path / "out" / name for name in ("all.csv", "all.parquet")]
    assert main(["results", "export", str(tmp_path), "--csv", str(files[0]), "--parquet", str(files[1])]) == 0
    with files[0].open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["label"], row["metric"], row["value"], row["unit"]) for row in rows] == [
        ("pixpro", "AP", "55.5", "%"),
        ("pixpro", "AP50", "80.0", "%"),
        ("moco", "AP", "50.0", "%"),
        ("moco", "AP50", "", "%"),
        ("random", "mIoU", "10.0", "%"),
        ("random", "aAcc", "10.0", "%"),
        ("", "loss", "1.5", "1"),
    ]
    table = pyarrow.parquet.read_table(files[1])
    assert [{name: cell(value) for name, value in row.items()} for row in table.to_pylist()] == rows
    assert str(table.schema.field("value").type) == "double"
    assert main(["results", "export", str(tmp_path)]) == 2


def test_a_spreadsheet_computes_nothing_of_an_export(tmp_path: Path) -> None:
    made_results.write(tmp_path, label='=HYPERLINK("http://example.org")', deviations=["@SUM(1)"])
    assert main(["results", "export", str(tmp_path), "--csv", str(tmp_path / "x.csv")]) == 0
    with (tmp_path / "x.csv").open() as stream:
        row = next(csv.DictReader(stream))
    assert (row["label"], row["deviations"]) == ('\'=HYPERLINK("http://example.org")', "'@SUM(1)")


def test_a_folder_of_runs_has_no_result_to_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_results.write(tmp_path / "a")
    assert main(["results", "show", str(tmp_path)]) == 2
    assert f"`pixbench results list {tmp_path}` shows those of all folders below" in capsys.readouterr().err

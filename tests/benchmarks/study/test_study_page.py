"""The page of the study says what its results give, and nothing before there are any."""

from __future__ import annotations

from pathlib import Path

import made_study
import pytest

from benchmarks.statistics.comparisons import HIGHER
from benchmarks.study import page
from benchmarks.study.answers import HYPOTHESES, MEASURES, PIXPRO, answers
from benchmarks.study.page import NOTHING, RUNNING, Page


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    made_study.write(folder)
    made_study.write_ablation(folder, "pixpro", [0.9, 0.8])
    made_study.write_ablation(folder, "without_ppm", [0.5, 0.02, 0.03])
    return folder


def test_nothing_is_said_before_there_are_results(tmp_path: Path) -> None:
    empty = Page(tmp_path)
    parts = (empty.search, empty.results, empty.tested, empty.curves, empty.ranks, empty.ablations, empty.findings)
    assert {part() for part in parts} == {NOTHING}
    assert empty.first_screen() == RUNNING
    empty.write_figure(tmp_path / "x.svg")
    assert not [*tmp_path.iterdir()]


def test_each_hypothesis_is_answered_from_pre_training_runs_paired_by_seed(study: Path) -> None:
    group = Page(study).group
    assert group is not None
    found = {hypothesis.name: [*answers(group, hypothesis)] for hypothesis in HYPOTHESES}
    assert [len(found[name]) for name in ("H1", "H2", "H3", "H4")] == [3, 6, 2, 4]
    assert all(answer.holds for name in ("H1", "H2", "H3") for answer in found[name])
    assert {answer.words for answer in found["H4"]} == {"not distinguishable", "no loss seen"}
    first = found["H1"][0]
    assert (first.verdict.comparison.test, first.verdict.comparison.n) == ("paired t", (3, 3))
    exact = [made_study.numbers(PIXPRO, seed, 0) - made_study.numbers("random", seed, 0) for seed in range(3)]
    assert first.verdict.comparison.difference == pytest.approx(sum(exact) / 3)
    assert first.verdict.mark == HIGHER
    assert 0 < (first.verdict.comparison.p or 0) < (first.verdict.p or 0), "corrected over the other main rows"


def test_the_findings_name_what_is_better_worse_and_collapsed(study: Path) -> None:
    localisation, instance, parts = Page(study).findings().splitlines()
    assert "against Random initialisation, PixPro is better in VOC AP50 (+" in localisation
    assert "against SimCLR, PixPro is better in" in instance
    assert "and worse in linear top-1 (−" in instance
    assert "no loss of localisation is seen" in parts
    assert "without its propagation module PixPro collapses (feature standard deviation down to 0.02)" in parts


def test_one_row_stands_for_the_seeds_of_its_pre_training(study: Path) -> None:
    lines = [line for line in Page(study).results().splitlines() if line.startswith("|")][2:]
    assert [line.split("|")[1].strip() for line in lines] == [
        "Random initialisation", "SimCLR", "MoCo v2", "PixPro", "PixPro + instance",
    ]  # fmt: skip
    assert "n = 3 × 1 to 3 × 3." in Page(study).results()


def test_the_curves_say_what_collapsed(study: Path) -> None:
    assert "| collapsed | no       | yes           |" in Page(study).curves()


def test_the_figure_is_the_same_each_time_and_has_all_measures(study: Path, tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        Page(study).write_figure(tmp_path / name)
    text = (tmp_path / "one.svg").read_text(encoding="utf-8")
    assert text == (tmp_path / "two.svg").read_text(encoding="utf-8")
    assert all(measure.title in text for measure in MEASURES)
    assert f"docs/{page.FIGURE}" in Page(study).first_screen()


def test_nothing_is_found_from_too_few_pre_training_runs(tmp_path: Path) -> None:
    made_study.write(tmp_path, runs=2)
    few = Page(tmp_path)
    assert few.tested() == few.findings() == NOTHING
    assert few.first_screen() == RUNNING
    assert "PixPro" in few.results()

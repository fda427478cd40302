"""The page of the study says what its results give, and nothing before there are any."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

import made_results
import made_study
import pytest

from benchmarks.report.palette import COLOURS, colour
from benchmarks.statistics.comparisons import HIGHER
from benchmarks.study import hours, page
from benchmarks.study.answers import HYPOTHESES, MAIN, MEASURES, PIXPRO, answers, overall
from benchmarks.study.page import NOTHING, RUNNING, Page
from benchmarks.suite import read_suite
from pixbench.errors import UserError
from pixbench.file_versions import RESULT_FILE
from pixbench.paths import CONFIGS
from pixbench.results import read_result, rewrite_result


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    made_study.write(folder)
    made_study.write_ablation(folder, "pixpro", [0.9, 0.8])
    made_study.write_ablation(folder, "without_ppm", [0.5, 0.02, 0.03])
    return folder


def test_nothing_is_said_before_there_are_results(tmp_path: Path) -> None:
    empty = Page(tmp_path)
    parts = (
        *(empty.search, empty.results, empty.tested, empty.curves, empty.hours),
        *(empty.ranks, empty.ablations, empty.longer, empty.findings),
    )
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
    assert (
        "without its propagation module PixPro's projections collapse (standard deviation down to 0.02, one run)"
        in parts
    )


def test_untested_rows_above_pixpro_are_named(tmp_path: Path) -> None:
    made_study.write(tmp_path)
    made_study.write(tmp_path, ("pixpro_fpn_head", "byol"), runs=1)
    for measure in MEASURES:
        for folder in tmp_path.glob(f"*/runs/pixpro_fpn_head_s0/{measure.protocol}/seed*"):
            change(folder, measure.metric, 90.0)
    sentence = Page(tmp_path).findings().splitlines()[2]
    assert sentence.endswith("above PixPro in all measures, but not tested (one run each): PixPro FPN + head.")


def test_an_answer_that_hangs_on_the_correction_is_named(tmp_path: Path) -> None:
    made_study.write(tmp_path)
    for run, less in enumerate((8, 10, 12)):
        for folder in (tmp_path / f"finetuned/runs/moco_v2_s{run}/voc_c4").glob("seed*"):
            change(folder, "AP50", made_study.numbers(PIXPRO, run, 0) - less)
    found = Page(tmp_path).findings()
    assert "against MoCo v2, PixPro is better in VOC AP50 (+10.0" in found
    assert "corrected over all pairs of these rows, VOC AP50 against MoCo v2 is not distinguishable either." in found


def test_all_pairs_are_corrected_together(study: Path) -> None:
    group = Page(study).group
    assert group is not None
    for claims in (answers(group, hypothesis) for hypothesis in HYPOTHESES):
        for answer in claims:
            assert answer.strict.comparison == answer.verdict.comparison
            assert (answer.verdict.p or 0) <= (answer.strict.p or 0) <= min(1, 10 * (answer.verdict.comparison.p or 0))


def test_a_hypothesis_holds_if_all_its_comparisons_do(study: Path) -> None:
    lines = Page(study).tested().splitlines()[-4:]
    assert lines[:3] == [
        f"- **{name}** holds ({n} of {n} comparisons)" for name, n in (("H1", 3), ("H2", 6), ("H3", 2))
    ]
    assert lines[3] == "- **H4** holds in part (3 of 4 comparisons)"
    group = Page(study).group
    assert group is not None
    assert overall([one for one in answers(group, HYPOTHESES[3]) if one.holds is None]).startswith("is not confirmed")


def test_one_row_stands_for_the_seeds_of_its_pre_training(study: Path) -> None:
    lines = [line for line in Page(study).results().splitlines() if line.startswith("|")][2:]
    assert [line.split("|")[1].strip() for line in lines] == [
        "Random initialisation", "SimCLR", "MoCo v2", "PixPro", "PixPro + instance",
    ]  # fmt: skip
    assert "n = 3 × 1 to 3 × 3." in Page(study).results()
    assert "↑" not in Page(study).results(), "rows of one run and of three are not corrected together"
    assert "\nNotes:\n\n- also measured, but not shown: " in Page(study).results()


def test_the_curves_say_what_collapsed(study: Path, tmp_path: Path) -> None:
    made_study.write_ablation(copy := shutil.copytree(study, tmp_path / "study"), "layers_0", [0.5])
    made_results.write(
        copy / "ablations/runs/without_ppm/voc12aug_statistics/seed0", "voc12aug_statistics", {"rankme": 37.2}
    )
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in Page(copy).curves().splitlines()]
    assert lines[0][1:] == [page.ABLATIONS[label] for label in ("pixpro", "layers_0", "without_ppm")]
    assert ["collapsed", "no", "no", "yes"] in lines
    assert ["RankMe of C5", "–", "–", "37.2"] in lines


def test_core_hours_are_those_of_all_sessions_and_threads(tmp_path: Path) -> None:
    run = made_results.write(tmp_path / "finetuned/runs/x/voc_c4/seed0", wall_time_s=1800.0)
    assert hours.core_hours(read_result(run)) == 1.0  # two threads
    assert hours.core_hours({**read_result(run), "seconds": 7200.0}) == 4.0
    lines = hours.table(tmp_path).splitlines()
    assert [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]] == [["fine-tuning", "1", "1.0"]]


def test_the_figure_is_the_same_each_time_and_has_all_measures(study: Path, tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        Page(study).write_figure(tmp_path / name)
    text = (tmp_path / "one.svg").read_text(encoding="utf-8")
    assert text == (tmp_path / "two.svg").read_text(encoding="utf-8")
    assert all(measure.title in text for measure in MEASURES)
    assert f"docs/{page.FIGURE}" in Page(study).first_screen()


def test_a_row_has_its_own_colour_in_the_figure_where_others_are_missing(study: Path, tmp_path: Path) -> None:
    part = tmp_path / "study"
    shutil.copytree(study, part)
    for label in ("pixpro_s0", "pixpro_s1", "pixpro_s2"):
        shutil.rmtree(part / "finetuned/runs" / label / MEASURES[0].protocol)
    drawn = []
    for folder in (study, part):
        Page(folder).write_figure(tmp_path / "figure.svg")
        text = (tmp_path / "figure.svg").read_text(encoding="utf-8")
        drawn.append(Counter(re.findall(r'fill="(#\w+)"', text)))
    colours = [COLOURS[f"row{place + 1}"][0] for place in range(len(MAIN))]
    assert [drawn[0][colour] for colour in colours] == [len(MEASURES)] * len(MAIN)
    missing = [drawn[0][colour] - drawn[1][colour] for colour in colours]
    assert missing == [int(label == PIXPRO) for label in MAIN], "one bar less, in the colour of its row"


def test_each_row_of_the_figure_has_a_colour_of_its_own() -> None:
    assert len({colour(place) for place in range(len(page.ORDER))}) == len(page.ORDER)


def test_each_ablation_is_named_by_what_it_changes() -> None:
    rows = read_suite(CONFIGS / "suites/study_ablations.yaml").rows
    assert {*page.ABLATIONS} == {*rows}
    assert "| γ = 0.5 " in Page().ablations()
    assert not any(f"| {label} " in Page().ablations() for label in rows)


@pytest.mark.parametrize("runs", [1, 2])
def test_nothing_is_found_from_too_few_pre_training_runs(runs: int, tmp_path: Path) -> None:
    made_study.write(tmp_path, runs=runs)
    few = Page(tmp_path)
    assert few.tested() == few.findings() == NOTHING
    assert few.first_screen() == RUNNING
    assert "PixPro" in few.results()


def test_a_row_with_one_pre_training_run_is_not_compared_and_not_counted(tmp_path: Path) -> None:
    made_study.write(tmp_path, ("pixpro", "random", "simclr"))
    few = Page(tmp_path).tested()
    made_study.write(tmp_path, ("moco_v2",), runs=1)
    assert "moco_v2" not in few
    assert Page(tmp_path).tested() == few


def test_an_undefined_number_is_no_answer(tmp_path: Path) -> None:
    made_study.write(tmp_path)
    change(tmp_path / "finetuned/runs/pixpro_instance_s1/voc_c4/seed2", "AP50", None)
    found = Page(tmp_path)
    (line,) = [line for line in found.tested().splitlines() if "| pixpro_instance − pixpro | VOC AP50" in line]
    assert "no test: a number is undefined" in line
    assert "nan" not in found.tested() + found.findings()
    assert "whether it loses VOC AP50 is not known" in found.findings()
    assert "no loss" not in found.findings()


def test_a_damaged_result_is_named_instead_of_left_out(study: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(study, tmp_path / "study")
    damaged = copy / "finetuned/runs/pixpro_s1/voc_c4/seed2" / RESULT_FILE
    damaged.write_bytes(damaged.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"pixpro_s1/voc_c4/seed2.*cannot be read as a result"):
        Page(copy)


def test_what_was_not_measured_or_failed_is_in_no_curve(tmp_path: Path) -> None:
    made_study.write_ablation(tmp_path, "pixpro", [0.9, 0.8])
    folder = tmp_path / "ablations/pretrain/without_ppm"
    made_results.write_pretraining(folder, curve=[{"step": 10, "loss": 1.0}])
    assert page.ABLATIONS["without_ppm"] not in Page(tmp_path).curves()
    made_results.write_pretraining(
        folder, curve=[{"step": 10, "loss": 1.0, "feature_std": 0.9}], status="failed", reason="x"
    )
    assert "without PPM" not in Page(tmp_path).curves()
    assert Page(tmp_path).findings() == NOTHING


def change(run: Path, metric: str, value: float | None) -> None:
    """Give the result of ``run`` another number."""
    result = read_result(run / RESULT_FILE)
    rewrite_result(run / RESULT_FILE, {**result, "metrics": {**result["metrics"], metric: value}})

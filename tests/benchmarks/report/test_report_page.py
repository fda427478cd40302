"""What the report says, without a browser: its sections, what it leaves out, and that nothing in it can act."""

from __future__ import annotations

import json
import re
from pathlib import Path

import made_results
import many_runs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.commands.main import main
from benchmarks.report.markup import coded, embedded
from benchmarks.report.page import SECTIONS, page
from benchmarks.report.section import read_contents
from benchmarks.tables.options import Options
from pixbench.files import finite

FEW = ("voc_c4", "cityscapes_fcn16s", "voc12aug_knn")
TAGS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "a",
        "header",
        "h1",
        "p",
        "nav",
        "ul",
        "li",
        "main",
        "section",
        "h2",
        "h3",
    ),
    *(
        "script",
        "div",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "small",
        "span",
        "b",
        "code",
        "details",
        "summary",
        "figure",
    ),
    *("figcaption", "svg", "line", "label", "input", "output"),
}
"""Elements that the page is made of."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = many_runs.make(tmp_path_factory.mktemp("runs"), ("random", "pixpro"), FEW, points=12)
    many_runs.accidents(folder)
    return folder


@pytest.fixture(scope="module")
def text(runs: Path) -> str:
    return page(read_contents([runs], Options()))


def specs(text: str) -> list[dict[str, object]]:
    """The charts of a page."""
    found = re.findall(r'<script type="application/json">(.*?)</script>', text, re.S)
    return [json.loads(content) for content in found]


def titles(text: str) -> list[str]:
    return re.findall(r'<h2 id="[\w-]+-title">(.*?)</h2>', text)


def test_all_sections_are_there_in_order(text: str) -> None:
    assert titles(text) == [
        *(
            "Summary",
            "In progress",
            "Main results",
            "Comparison",
            "Pre-training",
            "Learning curves",
            "Classes",
            "Agreement",
        ),
        "Runs and deviations",
    ]


def test_each_unusable_file_is_named_and_counted(text: str) -> None:
    for name, why in (
        ("damaged", "cannot be read"),
        ("foreign", "is not a result of PixBench"),
        ("older", "has schema 1"),
        ("edited", "was changed after it was written"),
    ):
        assert re.search(rf"<li>{name}: result.json {why}", text), name
    assert (
        "4 of 25 results left out: 1 damaged, 1 changed by hand, 1 not written by PixBench, 1 of an older schema"
        in text
    )
    assert "<li>failed: CUDA ran out of memory</li>" in text
    assert "99.0" not in text  # of the edited one


def test_bars_have_the_mean_the_interval_and_the_seeds(text: str, runs: Path) -> None:
    values = specs(text)[0]["data"]["values"]  # type: ignore[index]
    bar = next(value for value in values if value["row"] == "pixpro")
    seeds = [
        json.loads((runs / f"runs/pixpro/voc_c4/seed{seed}/result.json").read_text())["metrics"]["AP"]
        for seed in range(3)
    ]
    assert bar["seeds"] == seeds
    assert bar["mean"] == pytest.approx(sum(seeds) / 3)
    assert bar["low"] < bar["mean"] < bar["high"]


def test_bands_reach_from_the_lowest_to_the_highest_seed(text: str, runs: Path) -> None:
    curves = [
        json.loads((runs / f"runs/random/cityscapes_fcn16s/seed{seed}/result.json").read_text())["curve"]
        for seed in range(3)
    ]
    at = [point["mIoU"] for curve in curves for point in curve if point["step"] == 4000 and "mIoU" in point]
    charts = [spec for spec in specs(text) if any(v.get("x") == 4000 for v in spec.get("data", {}).get("values", ()))]  # type: ignore[attr-defined]
    point = next(v for v in charts[0]["data"]["values"] if (v["row"], v["x"]) == ("random", 4000))  # type: ignore[index]
    assert (point["low"], point["high"]) == (min(at), max(at))
    assert point["y"] == pytest.approx(sum(at) / 3)


def test_every_chart_is_valid_vega_lite(text: str) -> None:
    vl_convert = pytest.importorskip("vl_convert")
    charts = specs(text)
    assert len(charts) > 8
    for spec in (charts[0], charts[-1]):
        assert vl_convert.vegalite_to_vega({**spec, "width": 300}, vl_version="6.4")["marks"]


def test_charts_have_their_numbers_as_a_table(text: str) -> None:
    assert text.count('<figure class="chart"') == text.count("Numbers<span") == len(specs(text))


def test_the_page_loads_nothing_and_keeps_to_one_file(text: str) -> None:
    head = text.partition("<script")[0]
    assert "default-src &#39;none&#39;" in head
    assert "connect-src &#39;none&#39;" in head
    assert not re.search(r"<(link|iframe|object|embed|base|form)\b", text)
    assert not re.search(r"\bsrc=\"(?!data:)", re.sub(r"<script>.*?</script>", "", text, flags=re.S))


@pytest.mark.parametrize("make", SECTIONS)
def test_a_section_of_nothing_is_left_out_or_says_what_to_run(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    section = make(read_contents([tmp_path], Options()))
    assert section is None or "pixbench suite" in section.body


def test_pretraining_alone_makes_a_report(tmp_path: Path) -> None:
    curve = [{"step": step, "epoch": step / 10, "loss": 1.0} for step in range(5)]
    made_results.write_pretraining(tmp_path / "one", method="pixpro", curve=curve)
    assert titles(page(read_contents([tmp_path], Options()))) == ["Summary", "Pre-training", "Runs and deviations"]


def test_results_without_curves_and_classes_make_a_report(tmp_path: Path) -> None:
    made_results.write(tmp_path / "one", curve=[], metrics={"AP": None, "AP50": 1.0, "AP75": 1.0})
    assert titles(page(read_contents([tmp_path], Options()))) == [
        "Summary",
        "Main results",
        "Comparison",
        "Runs and deviations",
    ]


def test_the_command_writes_page_and_figure(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, figure = tmp_path / "new" / "report.html", tmp_path / "main.png"
    assert main(["report", str(runs), "-o", str(out), "--figure", str(figure), "--baseline", "none"]) == 0
    said = capsys.readouterr().out
    assert "left out: edited: result.json was changed after it was written" in said
    assert f"written: {out} (" in said
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{empty}"], "run something first, for example: pixbench suite"),
        (["{empty}/none"], "does not exist"),
        (["{runs}", "--baseline", "pixpo"], "did you mean pixpro"),
        (["{runs}", "--scale", "mini"], "no results of this --scale"),
        (["{runs}", "--figure", "main.jpg"], "a .png or .svg file"),
        (["{runs}", "--figure", "{empty}/x.svg", "--out", "{empty}/x.svg"], "choose a name for each"),
        (["{runs}", "--out", "{empty}"], "there is a folder, so name another file"),
    ],
)
def test_mistakes_end_in_a_sentence(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    words = [word.format(empty=tmp_path, runs=runs) for word in arguments]
    assert main(["report", "-o", str(tmp_path / "report.html"), *words]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_hostile_names_are_escaped_wherever_they_stand(tmp_path: Path) -> None:
    many_runs.make(tmp_path, many_runs.HOSTILE, ("cityscapes_fcn16s",), seeds=1, points=3)
    text = page(read_contents([tmp_path], Options()))
    shown = re.sub(r"<script>.*?</script>", "", text, flags=re.S)  # Vega's own
    assert "<!--" not in shown
    assert set(re.findall(r"<(\w+)", shown)) <= TAGS
    assert len(re.findall(r"<script\b", shown)) == shown.count("</script>") == len(specs(text)) + 1


@settings(deadline=None)
@given(st.dictionaries(st.text(), st.text() | st.floats() | st.lists(st.text(), max_size=3), max_size=3))
def test_embedded_json_cannot_end_its_script_element_and_is_read_as_it_was(value: object) -> None:
    text = str(embedded(value))
    assert not set(text) & set("<>&\u2028\u2029")
    assert json.loads(text) == finite(value)


def test_code_between_backticks_is_escaped() -> None:
    assert coded("run `a <b>` & see") == "run <code>a &lt;b&gt;</code> &amp; see"

"""The built wheel works in an environment of its own, from any folder, and so do the jobs that its commands start."""

from __future__ import annotations

import shlex
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import made_results
import pytest
from started import finished

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment with the wheel; the packages that it needs are those of this environment."""
    home = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(home), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    (wheel,) = home.glob("*.whl")
    venv.create(home / "env", with_pip=False)
    binaries = home / "env" / "bin"
    (site,) = (home / "env" / "lib").glob("python*/site-packages")
    # A path in a .pth file is searched, but the .pth files in it are not read: the checkout itself stays out of reach.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(binaries / "python"), "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True, timeout=120)
    return binaries


@pytest.fixture
def crowded(tmp_path: Path) -> Path:
    """A folder with packages of its own that have the names of ours."""
    for name in ("benchmarks", "transfer", "pretrain", "pixbench", "configs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong package')")
    return tmp_path


def run(installed: Path, folder: Path, *words: str) -> str:
    done = finished([installed / "pixbench", *words], cwd=folder)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.mark.e2e
def test_configs_formats_and_published_numbers_are_in_the_wheel(installed: Path, crowded: Path) -> None:
    assert "pixpro_100ep.yaml" in run(installed, crowded, "methods", "pixpro")
    assert "voc_c4" in run(installed, crowded, "protocols")
    assert "/pretrain" in run(installed, crowded, "suite", "configs/suites/demo.yaml", "--dry-run")
    words = (
        "--config",
        "configs/pretrain/pixpro_100ep.yaml",
        "--config",
        "configs/pretrain/mini.yaml",
        "--data.root",
        "images",
    )
    refused = finished([installed / "pixbench", "pretrain", *words, "--out", "x"], cwd=crowded)
    assert "root images does not exist" in refused.stderr  # the configs were read
    assert "moco_v2" in run(installed, crowded, "weights", "formats")
    code = "from benchmarks.published import published; print(published()['pixpro_100ep'].title)"
    # -P (Python 3.11) or another way round: here the interpreter is started in a folder without packages of these names
    done = subprocess.run(
        [str(installed / "python"), "-c", code], cwd=installed, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "PixPro, 100 epochs"


def test_templates_scripts_and_styles_of_the_report_are_in_the_wheel(installed: Path, crowded: Path) -> None:
    made_results.write(crowded / "runs")
    run(installed, crowded, "report", "runs", "-o", "report.html")
    text = (crowded / "report.html").read_text(encoding="utf-8")
    assert "Main results" in text
    assert "vegaEmbed" in text


@pytest.mark.e2e
def test_a_suite_is_planned_and_its_jobs_start_in_a_folder_with_packages_of_the_same_names(
    installed: Path, crowded: Path
) -> None:
    suite = crowded / "suite.yaml"
    suite.write_text(
        "scale: mini\nmini: {images: 12}\nprotocols: [voc_c4]\nrows:\n  row:\n"
        "    pretrain: [pretrain/pixpro_100ep.yaml, pretrain/mini.yaml]\n"
        "    set: {epochs: 1, batch_size: 4, backbone.width: 0.015625, data.image_size: 32, method.hidden: 4}\n"
    )
    commands = run(installed, crowded, "suite", str(suite), "--dry-run").splitlines()
    assert [line.split("__main__.py ")[1].split()[0] for line in commands] == [
        "data",
        "pretrain",
        "convert",
        "transfer",
    ]
    for line in commands[:3]:
        done = finished(shlex.split(line), cwd=crowded)
        assert done.returncode == 0, done.stderr + done.stdout
    assert list((crowded / "runs" / "suite" / "weights").glob("*.pkl"))

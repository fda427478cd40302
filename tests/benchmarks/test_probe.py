"""`pixbench probe`: several protocols with one extraction, what is not repeated, and what fails."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from started import finished

from benchmarks.commands.main import main
from benchmarks.commands.probe import settings_of
from pixbench.errors import UserError
from pixbench.lock import owned
from pixbench.results import read_result
from pretrain.models.backbone_spec import BackboneSpec
from transfer import protocols as table
from transfer import weights
from transfer.initial_weights import random_backbone

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TWO = ("imagenet_probe", "imagenet_other")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("backbone") / "tiny.pth"
    torch.save(random_backbone(BackboneSpec(18, 1 / 32), seed=3).state, path)
    return path


@pytest.fixture
def two_protocols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second protocol that reads the same features, and a third one whose data is not there."""
    entry = yaml.safe_load(table.table_of("frozen").read_text(encoding="utf-8"))["imagenet_probe"]
    content = {name: {**entry, "mini": {"images.size": 32}} for name in TWO}
    content["elsewhere"] = {**entry, "datasets": ["VOC2007"]}
    (tmp_path / "frozen.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(
        table, "table_of", lambda name: tmp_path / "frozen.yaml" if name == "frozen" else TABLE_OF(name)
    )
    table.protocols.cache_clear()
    yield
    monkeypatch.undo()
    table.protocols.cache_clear()


TABLE_OF = table.table_of


@pytest.fixture
def root(mini_root: Path, tmp_path: Path) -> Path:
    shutil.copytree(mini_root / "imagenet", tmp_path / "data/imagenet")
    return tmp_path / "data"


def words(root: Path, out: Path, *start: object) -> list[str]:
    few = (
        "--scale",
        "mini",
        "--workers",
        "0",
        "--set",
        "settings.neighbours=12",
    )  # as many as there are training pictures
    return ["probe", *map(str, start), "--data-root", str(root), "--out", str(out), *few]


def results(out: Path) -> dict[str, float]:
    return {path.parent.name: path.stat().st_mtime_ns for path in out.glob("*/result.json")}


def test_all_protocols_read_one_extraction(
    two_protocols: None, root: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(words(root, out, checkpoint, "--label", "tiny", "--cache", tmp_path / "cache")) == 0
    said = capsys.readouterr().out
    assert f"left out: elsewhere, because there is no folder {root / 'VOC2007'}" in said
    assert all(f"\n{name} " in said.replace("\n\n", "\n") for name in TWO)
    assert len(list((tmp_path / "cache").iterdir())) == 2  # train and val, for both protocols
    one, other = (read_result(out / name / "result.json") for name in TWO)
    assert one["metrics"] == other["metrics"]
    assert (one["label"], one["kind"], one["init"]) == ("tiny", "frozen", "tiny.pth")
    origins = [[about["from"] for about in result["evaluation"]["features"].values()] for result in (one, other)]
    assert sorted(origins) == [["cache"] * 2, ["computed"] * 2]
    assert said.count("features of imagenet, train: 12 pictures") == 2
    before = results(out)
    assert main(words(root, out, checkpoint, "--cache", tmp_path / "cache")) == 0
    assert results(out) == before
    assert capsys.readouterr().out.count("nothing to do") == 2
    assert main(words(root, out, checkpoint, "--set", "images.size=64")) == 2  # the folders are other runs'


def test_features_are_gone_at_the_end(root: Path, checkpoint: Path, tmp_path: Path) -> None:
    assert main(words(root, tmp_path / "out", checkpoint, "--set", "images.size=32")) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["imagenet_probe"]


def test_one_that_fails_does_not_keep_the_others_from_running(
    two_protocols: None, root: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (out / "imagenet_probe").mkdir(parents=True)
    (out / "imagenet_probe/thesis.tex").touch()
    assert main(words(root, out, checkpoint)) == 2
    captured = capsys.readouterr()
    assert "imagenet_probe failed: " in captured.out
    assert "keeps the features for the next start" in captured.out
    assert captured.err.count("is not a run folder") == 1
    assert [line.split() for line in captured.out.splitlines() if line.startswith("imagenet_probe  ")] == [
        ["imagenet_probe", "failed"]
    ]
    assert read_result(out / "imagenet_other/result.json")["status"] == "ok"
    shutil.rmtree(out / "imagenet_probe")
    assert main(words(root, out, checkpoint)) == 0
    assert sorted(path.name for path in out.iterdir()) == sorted(TWO)


def test_what_a_user_gets_wrong(
    root: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, classes = tmp_path / "run", tmp_path / "classes.txt"
    classes.write_text("a\nb\n")

    def said(*more: str, data: Path = root) -> str:
        assert main([*words(data, out, checkpoint), *more]) == 2
        return capsys.readouterr().err

    assert f"no data set of a frozen protocol is below {tmp_path / 'nowhere'}" in said(data=tmp_path / "nowhere")
    assert "pixbench transfer voc_c4" in said("--protocols", "voc_c4")
    assert "did you mean imagenet_probe" in said("--protocols", "imagenet_prob")
    assert "did you mean images.size" in said("--set", "images.sise=3")
    assert "no protocol here is called ade20k_knn (there are: imagenet_probe)" in said(
        "--set", "ade20k_knn:images.size=3"
    )
    assert "has no effect on imagenet_probe" in said("--set", "images.interpolation=bicubic")
    assert "imagenet_probe cannot run on classes of your own" in said(
        "--protocols", *TWO[:1], "--classes", str(classes)
    )
    no_data = said("--protocols", "voc07_discovery", "ade20k_knn", "imagenet_probe")
    assert f"there is no {root}/VOC2007, no {root}/ADEChallengeData2016; correct --data-root" in no_data
    assert "--seed -1 is not possible" in said("--seed=-1")
    assert "--cache-gb must be above 0" in said("--cache-gb", "0")
    assert "--like x is for --init random" in said("--like", "x")
    assert not out.exists()
    with owned(out):
        assert "is in use by process" in said()


def test_weights_that_cannot_be_read_are_one_error_before_anything_is_made(
    two_protocols: None, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    for start in (
        ("nowhere.pth",),
        (tmp_path / "broken.pth",),
        ("--init", "random", "--like", tmp_path / "broken.pth"),
    ):
        assert main(words(root, tmp_path / "out", *start)) == 2
        captured = capsys.readouterr()
        assert len(captured.err.splitlines()) == 1
        assert "failed" not in captured.out
        assert not (tmp_path / "out").exists()


def test_weights_are_read_once(
    two_protocols: None, root: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []
    load = weights.load
    monkeypatch.setattr(weights, "load", lambda source, **place: (read.append(source), load(source, **place))[1])
    assert main(words(root, tmp_path / "out", checkpoint)) == 0
    assert len(read) == 1


def settings(*pairs: str) -> dict[str, dict[str, object]]:
    names = ("ade20k_knn", "voc12aug_knn", "voc12aug_overcluster")
    return settings_of([*pairs], [table.find_protocol(name) for name in names])


def test_settings_for_some_protocols() -> None:
    found = settings("*_knn:settings.score_at=full", "images.size=448", "ade20k_knn:images.size=224")
    knn = {"images.size": 448, "settings.score_at": "full"}
    assert found == {
        "ade20k_knn": knn | {"images.size": 224},
        "voc12aug_knn": knn,
        "voc12aug_overcluster": {"images.size": 448},
    }
    assert settings() == {"ade20k_knn": {}, "voc12aug_knn": {}, "voc12aug_overcluster": {}}


def test_a_setting_that_some_protocols_do_not_have_names_them() -> None:
    sentence = (
        "--set settings.clusters: ade20k_knn, voc12aug_knn have no such setting; set it for others alone, as in "
        "--set voc12aug_overcluster:settings.clusters=VALUE"
    )
    with pytest.raises(UserError) as caught:
        settings("settings.clusters=3")
    assert str(caught.value) == sentence


def test_classes_of_ones_own(
    mini_root: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the Cityscapes layout, here its own under other names; what needs published classes is left out."""
    for name in ("cityscapes", "imagenet"):
        shutil.copytree(mini_root / name, tmp_path / "data" / name)
    (tmp_path / "own.txt").write_text("".join(f"kind {number}\n" for number in range(19)))
    out, tiny = tmp_path / "out", ("--scale", "mini", "--workers", "0")
    names = [f"cityscapes_{name}" for name in ("knn", "statistics")]
    command = ["probe", str(checkpoint), "--data-root", str(tmp_path / "data"), "--classes", str(tmp_path / "own.txt")]
    assert main([*command, "--out", str(out), *tiny, "--protocols", *names]) == 0
    for name in names:
        result = read_result(out / name / "result.json")
        assert result["classes"] == result["evaluation"]["classes"] == [f"kind {number}" for number in range(19)]
        assert any("19 classes (kind 0" in sentence for sentence in result["deviations"])
    assert main([*command, "--out", str(tmp_path / "all"), *tiny, "--set", "images.sise=1"]) == 2
    assert "left out: imagenet_probe, because it cannot run on classes of your own" in capsys.readouterr().out


@pytest.fixture
def shapes(root: Path) -> Path:
    """Pictures of several shapes are several batches, which the processes share."""
    for split in ("train", "val"):
        for path in sorted(root.glob(f"imagenet/{split}/*/*"))[::3]:
            with Image.open(path) as image:
                image.resize((image.width, 2 * image.width)).save(path)
    return root


SHAPES = ("--set", "images.size=32", "--set", "images.resize=shorter")


@pytest.mark.e2e
def test_two_processes_stop_together(shapes: Path, checkpoint: Path, tmp_path: Path) -> None:
    broken = sorted(shapes.glob("imagenet/val/*/*"))[5]
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    command = words(shapes, tmp_path / "two", checkpoint, *SHAPES)
    done = two_processes(command)
    assert done.returncode != 0
    assert f"pixbench: error: image {broken} is broken" in done.stderr
    assert "defect" not in done.stderr
    assert read_result(tmp_path / "two/imagenet_probe/result.json")["status"] == "failed"
    broken.write_bytes(content)
    assert two_processes(command).returncode == 0


@pytest.mark.e2e
def test_two_processes_find_what_one_finds(shapes: Path, checkpoint: Path, tmp_path: Path) -> None:
    done = two_processes(words(shapes, tmp_path / "two", checkpoint, *SHAPES))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("imagenet_probe  knn_top1") == 1
    assert main(words(shapes, tmp_path / "one", checkpoint, *SHAPES)) == 0
    one, two = (read_result(tmp_path / out / "imagenet_probe/result.json") for out in ("one", "two"))
    assert two["metrics"] == pytest.approx(one["metrics"], rel=1e-4, nan_ok=True)
    assert [result["host"]["processes"] for result in (one, two)] == [1, 2]
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["imagenet_probe"]


def two_processes(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the command in two processes of one thread each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = ("-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    start = [sys.executable, *torchrun, "-m", "benchmarks.commands", *command]
    return finished(start, cwd=ROOT, env=environment)

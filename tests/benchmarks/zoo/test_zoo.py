"""Adding backbones to a zoo, reading them by name, and finding what was changed."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path

import pytest
import tabled
import torch

from benchmarks.commands.main import main
from benchmarks.portable import portable_pretraining
from benchmarks.results.verify import verify
from benchmarks.zoo import card
from benchmarks.zoo import entry as entry_module
from benchmarks.zoo.entry import SUMS, add, copy, entries, find
from benchmarks.zoo.measured import measured
from pixbench.errors import UserError
from pixbench.file_versions import CHECKPOINT_FILE, RESULT_FILE, ZOO_FILE
from pixbench.paths import CONFIGS
from pixbench.results import read_result, rewrite_result, stored_file
from pretrain.__main__ import main as pretrain
from transfer.weights import sources
from transfer.weights.read_file import load, read
from transfer.weights.sources import zoo as zoo_source

SMALL = ("--epochs=1", "--batch_size=4", "--backbone.width=0.0625", "--data.image_size=32", "--data.workers=0")
RECIPES = {"pixpro": ("pixpro_100ep", "mini"), "pyramid": ("pixpro_fpn_head_100ep", "mini", "mini_fpn")}


@pytest.fixture(scope="module")
def runs(mini_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("runs")
    for name, recipe in RECIPES.items():
        files = [word for file in recipe for word in ("--config", f"configs/pretrain/{file}.yaml")]
        size = ("--data.image_size=64",) if name == "pyramid" else ()
        words = [*files, *SMALL, *size, "--method.hidden=16", f"--data.root={mini_root}/imagenet"]
        words += ["--out", str(out / name)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["/somewhere/bin/pixbench", "pretrain", *words])
            assert pretrain(words) == 0
    return {name: out / name for name in RECIPES}


@pytest.fixture(scope="module")
def zoo(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("zoo")
    for name, run in runs.items():
        add(run, name, root)
    return root


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_read_is_the_rounded_backbone(name: str, runs: dict[str, Path], zoo: Path) -> None:
    trained, kept = load(runs[name] / CHECKPOINT_FILE), load(zoo / name / ZOO_FILE)
    assert kept.spec == trained.spec
    assert kept.pretraining["config_sha256"] == find(name, zoo).result["config_sha256"]
    assert bool(kept.extras) == (name == "pyramid")
    floats = {n: t for n, t in {**trained.state, **trained.extras}.items() if t.is_floating_point()}
    found = {**kept.state, **kept.extras}
    assert floats.keys() == {n for n, t in found.items() if t.is_floating_point()}
    for key, tensor in floats.items():
        expected = tensor.half().float() if tensor.ndim > 1 else tensor
        assert torch.equal(found[key], expected), key


@pytest.mark.parametrize("name", RECIPES)
def test_no_path_of_the_machine_is_kept(name: str, zoo: Path, runs: dict[str, Path], mini_root: Path) -> None:
    for file in find(name, zoo).folder.iterdir():
        content = file.read_bytes()
        for path in (runs[name].parent, mini_root, CONFIGS):
            assert str(path).encode() not in content, (file.name, path)


def test_its_settings_start_the_same_run(zoo: Path, runs: dict[str, Path], mini_root: Path, tmp_path: Path) -> None:
    words = [
        "--config",
        str(zoo / "pixpro" / "config.yaml"),
        f"--data.root={mini_root}/imagenet",
        f"--out={tmp_path / 'run'}",
    ]
    assert pretrain(words) == 0
    again, first = (
        torch.load(run / CHECKPOINT_FILE, weights_only=True)["model"] for run in (tmp_path / "run", runs["pixpro"])
    )
    assert all(torch.equal(tensor, first[name]) for name, tensor in again.items())


def test_a_name_stands_for_the_file(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo_source, "ZOO", zoo)
    assert read("zoo:pixpro").backbone.spec == load(zoo / "pixpro" / ZOO_FILE).spec
    with pytest.raises(UserError, match=r"no backbone 'pixpr'; did you mean pixpro\?"):
        sources.locate("zoo:pixpr")
    monkeypatch.setattr(zoo_source, "ZOO", zoo / "nothing")
    with pytest.raises(UserError, match="PIXBENCH_ZOO"):
        sources.locate("zoo:pixpro")


def test_a_sound_zoo_has_no_problems(zoo: Path) -> None:
    assert {entry.name: entry.problems() for entry in entries(zoo)} == {name: [] for name in RECIPES}


@pytest.mark.parametrize(
    ("file", "change"),
    [
        (ZOO_FILE, "shorter"),
        ("config.yaml", "other"),
        (RESULT_FILE, "other"),
        (RESULT_FILE, "missing"),
        (ZOO_FILE, "missing"),
        (SUMS, "missing"),
        (SUMS, "other"),
    ],
)
def test_each_change_is_found(file: str, change: str, zoo: Path, tmp_path: Path) -> None:
    shutil.copytree(zoo / "pixpro", tmp_path / "pixpro")
    path = tmp_path / "pixpro" / file
    if change == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-7] if change == "shorter" else path.read_bytes() + b"\n")
    found = find("zoo:pixpro", tmp_path).problems()
    assert [file in problem for problem in found] == [True], found
    with pytest.raises(UserError, match="zoo:pixpro is damaged"):
        copy(find("pixpro", tmp_path), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_backbone_without_its_weights_is_still_in_the_zoo(
    zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(zoo / "pixpro", tmp_path / "pixpro")
    (tmp_path / "pixpro" / ZOO_FILE).unlink()
    assert [entry.name for entry in entries(tmp_path)] == ["pixpro"]
    monkeypatch.setattr(zoo_source, "ZOO", tmp_path)
    with pytest.raises(UserError, match=r"safetensors is missing, so zoo:pixpro has no weights"):
        sources.locate("zoo:pixpro")


def test_an_interrupted_copy_leaves_nothing(zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        copy(find("pixpro", zoo), tmp_path / "copy")
    assert [*(tmp_path / "copy").iterdir()] == []


@pytest.mark.parametrize(
    ("name", "reason"), [("Pix Pro", "cannot be a name"), ("../x", "cannot be a name"), ("pixpro", "exists already")]
)
def test_names_that_are_refused(name: str, reason: str, runs: dict[str, Path], zoo: Path) -> None:
    with pytest.raises(UserError, match=reason):
        add(runs["pixpro"], name, zoo)
    assert {entry.name for entry in entries(zoo)} == set(RECIPES)


def test_a_weight_too_large_for_half_precision_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    run = shutil.copytree(runs["pixpro"], tmp_path / "run")
    content = torch.load(run / CHECKPOINT_FILE, weights_only=True)
    content["model"]["backbone.layer1.0.conv1.weight"][0] = 1e6
    torch.save(content, run / CHECKPOINT_FILE)
    with pytest.raises(UserError, match=r"layer1\.0\.conv1\.weight has values that half precision cannot hold"):
        add(run, "large", tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_only_finished_pretraining_is_taken(runs: dict[str, Path], tmp_path: Path) -> None:
    run = shutil.copytree(runs["pixpro"], tmp_path / "run")
    result = read_result(run / RESULT_FILE)
    rewrite_result(run / RESULT_FILE, {**result, "status": "failed", "reason": "stopped"})
    with pytest.raises(UserError, match="no finished pre-training run"):
        add(run, "failed", tmp_path / "zoo")
    with pytest.raises(UserError, match=r"checkpoint.pth is no folder; name the folder of a finished run"):
        add(run / CHECKPOINT_FILE, "file", tmp_path / "zoo")


def test_an_interrupted_add_leaves_no_backbone(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_args: object) -> None:
        assert entries(tmp_path / "zoo") == []
        raise KeyboardInterrupt

    monkeypatch.setattr(entry_module, "rewrite_result", killed)
    with pytest.raises(KeyboardInterrupt):
        add(runs["pixpro"], "half", tmp_path / "zoo")
    assert [*(tmp_path / "zoo").iterdir()] == []


def test_what_the_result_has_stored_comes_with_it(zoo: Path) -> None:
    entry = find("pixpro", zoo)
    assert "views.npz" in entry.result["stored"]
    assert all(check.fits for check in verify(entry.folder / RESULT_FILE, entry.result))


def test_of_other_paths_the_last_part_is_left(zoo: Path) -> None:
    result = find("pixpro", zoo).result
    other = {**result["config"], "init_from": "/home/somebody/weights.pth"}
    command = [
        "/usr/bin/pixbench",
        "--init_from=/home/somebody/weights.pth",
        "--config",
        "/home/somebody/own.yaml",
        "--config",
        "/elsewhere/pixbench/configs/pretrain/mini.yaml",
        "a/b",
    ]
    found = portable_pretraining({**result, "config": other, "command": command}, "zoo/x")
    assert found["config"]["init_from"] == "weights.pth"
    words = ["--init_from=weights.pth", "--config", "own.yaml", "--config", "configs/pretrain/mini.yaml", "a/b"]
    assert found["command"] == ["pixbench", "pretrain", *words]


def test_of_relative_paths_the_last_part_is_left_too(zoo: Path) -> None:
    result = find("pixpro", zoo).result
    mixture = [{"root": "mine/a", "folder": "", "weight": 2}, {"root": "/home/me/b", "folder": "mine/lists"}]
    config = {**result["config"], "out": "mine/run", "init_from": "mine/w.pth"}
    config["data"] = {**config["data"], "root": "", "folder": "mine/folder", "mixture": mixture}
    words = ["--config", "mine/own.yaml", "--config=mine/more.yaml", "--config", "configs/pretrain/mini.yaml"]
    words += [
        "--data.mixture=[{root: mine/a, weight: 2}, {root: /home/me/b, folder: mine/lists}]",
        "--out",
        "mine/run/",
    ]
    command = ["/bin/pixbench", "pretrain", *words, "--init_from", "mine/w.pth", "--data.folder=mine/folder"]
    found = portable_pretraining({**result, "config": config, "command": command}, "zoo/x")
    assert "mine" not in str(found["config"]) + str(found["command"])
    assert "/home/me" not in str(found["config"]) + str(found["command"])
    assert found["command"][2:8] == [
        *("--config", "own.yaml", "--config=more.yaml", "--config", "configs/pretrain/mini.yaml"),
        "--data.mixture=[{root: a, weight: 2}, {root: b, folder: lists}]",
    ]
    assert found["config"]["init_from"] == "w.pth"
    named = portable_pretraining({**result, "config": {**config, "init_from": "timm:org/net"}}, "zoo/x")
    assert named["config"]["init_from"] == "timm:org/net"


@pytest.mark.parametrize("root", ["data/imagenet", "/home/somebody/data/imagenet"])
def test_the_folder_of_the_images_has_a_name_however_it_was_given(zoo: Path, root: str) -> None:
    result = find("pixpro", zoo).result
    config = {**result["config"], "data": {**result["config"]["data"], "root": root}, "out": "runs/a"}
    command = ["/usr/bin/pixbench", "pretrain", f"--data.root={root}", "--out", "runs/a", "--seed", "0"]
    found = portable_pretraining({**result, "config": config, "command": command}, "zoo/x")
    assert (found["config"]["data"]["root"], found["config"]["out"]) == ("IMAGES", "zoo/x")
    assert found["command"] == ["pixbench", "pretrain", "--data.root=IMAGES", "--out", "RUN", "--seed", "0"]


def test_the_card_has_what_the_study_measured_with_its_weights(zoo: Path, tmp_path: Path) -> None:
    entry = find("pixpro", zoo)
    assert "Measured" not in card.card(entry, measured(tmp_path / "none"))
    weights = {"weights": {"pretraining": load(entry.weights).pretraining}}  # as of each file that is converted from it
    tabled.seeds(tmp_path / "finetuned/a", "own", [60.0, 63.0], **weights)
    tabled.seeds(tmp_path / "finetuned/b", "other", [10.0])
    tabled.seeds(tmp_path / "longer/a", "own", [90.0], **weights)
    metrics = {"mIoU": 12.34, "boundary_mIoU": 5.0, "aAcc": 70.0}
    tabled.frozen(tmp_path / "frozen/c", "own", "voc12aug_incontext", metrics, **weights)
    lines = card.card(entry, measured(tmp_path)).partition("## Measured")[2].splitlines()
    found = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")][2:]
    assert found == [["voc12aug_incontext", "mIoU", "12.3", "1"], ["cityscapes_fcn16s", "mIoU", "61.5", "2"]]


def test_the_card_says_how_it_was_made(zoo: Path) -> None:
    entry = find("pixpro", zoo)
    text = card.card(entry, {})
    for part in (
        "# zoo:pixpro",
        "pixbench pretrain --config configs/pretrain/pixpro_100ep.yaml",
        entry.sums()[ZOO_FILE],
    ):
        assert part in text
    assert card.row(entry)[:4] == ("pixpro", "pixpro", "0", "12")


def test_the_time_on_the_card_is_that_of_all_sessions(zoo: Path, tmp_path: Path) -> None:
    entry = find("pixpro", shutil.copytree(zoo, tmp_path / "zoo"))
    rewrite_result(entry.folder / RESULT_FILE, {**entry.result, "wall_time_s": 60.0, "seconds": 5400.0})
    assert "1.50 hours on " in card.card(entry, {})


def test_the_command(
    zoo: Path,
    runs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = shutil.copytree(zoo, tmp_path / "zoo")
    for function in (entries, find, add):
        monkeypatch.setattr(function, "__defaults__", (root,))
    assert main(["zoo", "list"]) == 0
    assert "pixpro" in capsys.readouterr().out
    assert main(["zoo", "show", "zoo:pixpro"]) == 0
    assert main(["zoo", "add", str(runs["pixpro"]), "--name", "again"]) == 0
    assert main(["zoo", "verify"]) == 0
    assert "3 of 3" in capsys.readouterr().out
    assert main(["zoo", "get", "again", "--out", str(tmp_path / "copy")]) == 0
    assert (tmp_path / "copy" / "again" / ZOO_FILE).read_bytes() == (root / "again" / ZOO_FILE).read_bytes()
    assert main(["zoo", "get", "again", "--out", str(tmp_path / "copy")]) == 2
    (root / "again" / "config.yaml").write_text("{}\n")
    assert main(["zoo", "verify"]) == 1
    assert main(["zoo", "verify", "pixpro"]) == 0
    assert main(["zoo", "verify", "pixpro", "zoo:again"]) == 1
    assert main(["zoo", "verify", "pixpr"]) == 2
    (root / "again" / SUMS).unlink()
    assert main(["zoo", "show", "again"]) == 0
    (root / "again" / RESULT_FILE).write_text("{}")
    capsys.readouterr()
    assert main(["zoo", "list"]) == 0
    listed = capsys.readouterr().out
    assert "pixpro" in listed
    assert "left out: " in listed
    shutil.rmtree(root)
    for words in (["list"], ["verify"], ["show", "pixpro"]):
        assert main(["zoo", *words]) == 2
    assert "zoo add" in capsys.readouterr().err


def test_files_that_a_result_names_are_checked_before_they_are_copied(runs: dict[str, Path], tmp_path: Path) -> None:
    """A digest is no signature: a result of somebody else may name any path."""
    shutil.copytree(runs["pixpro"], tmp_path / "run")
    (tmp_path / "secret.npz").write_text("secret")
    path = tmp_path / "run" / RESULT_FILE
    stored = {"../secret.npz": stored_file(tmp_path / "secret.npz")}
    rewrite_result(path, {**read_result(path), "stored": stored})
    with pytest.raises(UserError, match=r"names no stored file \.\./secret\.npz"):
        add(tmp_path / "run", "evil", tmp_path / "zoo")
    assert not [*tmp_path.glob("zoo/**/*secret*")]

"""`pixbench probe`: hand cases of its formulas, and whole runs of a tiny backbone on the mini world."""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.commands.main import main
from benchmarks.probe.classify import fit_linear
from benchmarks.probe.dense import (
    IGNORED,
    OUTPUT_STRIDE,
    Scenes,
    _maps,
    cell_labels,
    confusion_matrix,
    dense_probe,
    segmentation_metrics,
)
from benchmarks.probe.features import Frozen, class_folders, embed
from benchmarks.probe.qscore import auroc, diagnose, scores
from pixbench.errors import UserError
from pixbench.files import sha256
from pixbench.results import read_result
from pretrain.data.centre_crops import Crops
from pretrain.knn import knn, top1
from pretrain.models.backbone_spec import BackboneSpec
from transfer.initial_weights import random_backbone
from transfer.weights.file_format import Pixels

pytestmark = pytest.mark.slow

WIDTH = 1 / 32
CIFAR = BackboneSpec(18, WIDTH, output_stride=8, stem="3x3")


def test_auroc_by_hand() -> None:
    assert auroc(np.array([1, 2, 3, 4]), np.array([0, 0, 1, 1])) == 1
    assert auroc(np.array([1, 2, 3, 4]), np.array([1, 1, 0, 0])) == 0
    assert auroc(np.array([1, 2, 2, 3]), np.array([0, 1, 0, 1])) == pytest.approx(3.5 / 4)  # one tie counts half
    assert auroc(np.ones(5), np.array([0, 1, 0, 1, 1])) == 0.5
    assert math.isnan(auroc(np.arange(3), np.zeros(3)))


def test_q_scores_by_hand() -> None:
    h = torch.tensor([[0.0, 0, 0, 4], [2, 2, 2, 2], [0, 0, 0, 0], [1, 3, 0.01, 0]])
    found = scores(h)
    assert found["l1"].tolist() == pytest.approx([4, 8, 0, 4.01])
    # mean 1, std √3
    assert found["z"][:3].tolist() == pytest.approx([3 / 3**0.5, 0, 0])
    assert found["sparsity"].tolist() == [0.75, 0, 0, 0.5]
    assert found["q"][:3].tolist() == pytest.approx([3 / 3**0.5 / 4, 0, 0])
    assert scores(10 * h)["z"] == pytest.approx(found["z"])


def test_diagnosis_is_in_the_papers_direction() -> None:
    peaked, level = torch.eye(8)[:3] + 0.01, 2 + 0.1 * torch.rand(3, 8, generator=torch.Generator().manual_seed(0))
    found = diagnose(scores(torch.cat([peaked, level])), np.array([0, 0, 0, 1, 1, 1]))
    assert [found[f"auroc_{name}"] for name in ("l1", "z", "sparsity", "q")] == [1, 1, 1, 1]
    assert found["sparsity_mean"] == pytest.approx(7 / 16)


def test_linear_classifier_finds_a_separating_line_and_the_base_rates() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    features = torch.eye(3)[labels] * 1000 + torch.randn(90, 3, generator=generator) + 500
    features = torch.cat([features, torch.full((90, 1), 7.0)], dim=1)  # a channel that never moves
    assert top1(fit_linear(features, labels, 3).logits(features).argmax(1), labels) == 100
    blind = fit_linear(torch.zeros(4, 2), torch.tensor([0, 1, 1, 1]), 2).logits(torch.zeros(1, 2)).softmax(1)
    assert blind[0].tolist() == pytest.approx([0.25, 0.75], abs=1e-3)


def test_cells_take_the_label_in_their_middle() -> None:
    labels = torch.arange(16).view(4, 4)
    assert cell_labels(labels, (4, 4)).tolist() == list(range(16))
    assert cell_labels(torch.tensor([[1, 1, 2, 2, 2, 3]]), (1, 2)).tolist() == [1, 2]


def test_segmentation_metrics_by_hand() -> None:
    labels, predicted = torch.tensor([0, 0, 1, 1, IGNORED]), torch.tensor([0, 1, 1, 1, 5])
    found = segmentation_metrics(confusion_matrix(labels, predicted))
    assert found == {"dense_mIoU": pytest.approx(100 * (1 / 2 + 2 / 3) / 2), "dense_accuracy": pytest.approx(75)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("backbone") / "tiny.pth"
    torch.save(random_backbone(BackboneSpec(50, WIDTH), seed=3).state, path)
    return path


@pytest.fixture(scope="module")
def finished(mini_root: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("probe") / "run"
    assert main(_words(mini_root, out, str(checkpoint))) == 0
    return out


def _words(root: Path, out: Path, *start: str, size: int = 64) -> list[str]:
    return ["probe", *start, "--data-root", str(root), "--out", str(out), "--size", str(size)]


def test_a_run_leaves_a_result_of_the_known_form(finished: Path, checkpoint: Path, mini_root: Path) -> None:
    result = read_result(finished / "result.json")
    assert (result["kind"], result["status"], result["init"], result["seed"]) == ("probe", "ok", "tiny.pth", 0)
    assert result["weights"]["sha256"] == sha256(checkpoint)
    assert {"started", "finished", "wall_time_s", "host", "versions", "config", "config_sha256"} <= set(result)
    metrics = result["metrics"]
    assert {"knn_top1", "linear_top1", "dense_mIoU", "dense_accuracy", "q_mean", "auroc_q", "auroc_l1"} <= set(metrics)
    assert all(0 <= metrics[name] <= 100 for name in ("knn_top1", "linear_top1", "dense_mIoU", "dense_accuracy"))
    rows = list(csv.DictReader((finished / "qscore.csv").open()))
    assert len(rows) == len(class_folders(mini_root / "imagenet")[1])
    right = sum(row["label"] == row["predicted"] for row in rows)
    assert metrics["linear_top1"] == pytest.approx(100 * right / len(rows))
    assert metrics["z_mean"] == pytest.approx(np.mean([float(row["z"]) for row in rows]))


def test_the_same_again_gives_the_same_and_is_not_done_twice(
    finished: Path, checkpoint: Path, mini_root: Path, tmp_path: Path
) -> None:
    before = (finished / "result.json").stat().st_mtime_ns
    assert main(_words(mini_root, finished, str(checkpoint))) == 0
    assert (finished / "result.json").stat().st_mtime_ns == before
    assert main([*_words(mini_root, tmp_path / "again", str(checkpoint)), "--batch-size", "5"]) == 0
    again, first = (read_result(out / "result.json")["metrics"] for out in (tmp_path / "again", finished))
    assert again == pytest.approx(first, rel=1e-4, nan_ok=True)
    assert main(_words(mini_root, finished, str(checkpoint), size=80)) == 2  # the folder is another run's


def test_a_random_backbone_and_one_layout(mini_root: Path, tmp_path: Path) -> None:
    words = ["--datasets", "imagenet", "--width", str(WIDTH), "--seed", "3"]
    assert main([*_words(mini_root, tmp_path / "run", "--init", "random"), *words]) == 0
    result = read_result(tmp_path / "run" / "result.json")
    assert (result["init"], result["weights"], result["config"]["datasets"]) == ("random", None, ["imagenet"])
    assert "dense_mIoU" not in result["metrics"]


@pytest.mark.parametrize("spec", [BackboneSpec(50, WIDTH), BackboneSpec(18, WIDTH), CIFAR], ids=str)
def test_embedding_is_the_mean_of_c5(mini_root: Path, spec: BackboneSpec) -> None:
    train, _ = class_folders(mini_root / "imagenet")
    model = Frozen(random_backbone(spec, 0))
    features = embed(model, train.thinned(3), size=64, batch=2, workers=0)
    assert features.shape == (3, spec.channels)
    image = Crops(train.thinned(3), 64)[2]
    assert image.shape == (3, 64, 64)
    torch.testing.assert_close(features[2], model(image[None]).mean((2, 3))[0])
    assert not any(p.requires_grad for p in model.parameters())


def test_features_do_not_depend_on_how_a_backbone_wants_its_pixels(mini_root: Path) -> None:
    """A backbone and its twin that takes BGR, nothing divided, are one function of the image."""
    backbone = random_backbone(BackboneSpec(50, WIDTH), 0)
    kernel = backbone.state["conv1.weight"] / torch.tensor(backbone.pixels.std).view(3, 1, 1)
    pixels = Pixels("BGR", backbone.pixels.mean[::-1], (1.0, 1.0, 1.0))
    twin = replace(backbone, state={**backbone.state, "conv1.weight": kernel.flip(1)}, pixels=pixels)
    source = class_folders(mini_root / "imagenet")[0].thinned(4)
    ours, theirs = (embed(Frozen(t), source, size=64, batch=2, workers=0) for t in (backbone, twin))
    torch.testing.assert_close(theirs, ours)
    ours, theirs = (next(_maps(Frozen(t), Scenes(mini_root / "cityscapes", "val"), 0))[0] for t in (backbone, twin))
    torch.testing.assert_close(theirs, ours)


def test_what_can_be_seen_is_found(tmp_path: Path) -> None:
    """Classes are colours, masks are quadrants of the four colours: even a random backbone tells them apart."""
    rng, colours = np.random.default_rng(0), np.array([[230, 30, 30], [30, 230, 30], [30, 30, 230], [200, 200, 60]])
    for split, count in (("train", 6), ("val", 3)):
        home = tmp_path / "cityscapes"
        pictures, masks = home / "leftImg8bit" / split / "town", home / "gtFine" / split / "town"
        pictures.mkdir(parents=True)
        masks.mkdir(parents=True)
        for number in range(count):
            for kind, colour in enumerate(colours):
                folder = tmp_path / "imagenet" / split / f"n{kind}"
                folder.mkdir(parents=True, exist_ok=True)
                _save(colour + rng.integers(-25, 26, (70, 80, 3)), folder / f"{number}.png")
            labels = rng.permutation(4).reshape(2, 2).repeat(96, 0).repeat(128, 1)
            _save(colours[labels] + rng.integers(-25, 26, (*labels.shape, 3)), pictures / f"{number}_leftImg8bit.png")
            labels[:5] = IGNORED
            _save(labels, masks / f"{number}_gtFine_labelTrainIds.png")
    backbone = random_backbone(BackboneSpec(50, 1 / 8), 0)
    sources = class_folders(tmp_path / "imagenet")
    train, val = (embed(Frozen(backbone), source, 64, 8, 0) for source in sources)
    labels, answers = (torch.tensor(source.labels, dtype=torch.int64) for source in sources)
    assert top1(knn(train, labels, val, 4), answers) == 100
    assert top1(fit_linear(train, labels, 4).logits(val).argmax(1), answers) == 100
    found = dense_probe(Frozen(backbone, OUTPUT_STRIDE), tmp_path / "cityscapes", seed=0, workers=0)
    assert found["dense_accuracy"] > 90
    assert found["dense_mIoU"] > 85


def test_a_backbone_without_cells_of_16_pixels_has_no_dense_probe(
    mini_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("transfer.weights.load", lambda path: random_backbone(CIFAR, 0))
    (tmp_path / "x.pth").touch()
    words = _words(mini_root, tmp_path / "run", str(tmp_path / "x.pth"))
    assert main(words) == 2
    assert "3×3 stem (CIFAR); the dense probe needs" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*words, "--datasets", "imagenet"]) == 0


def _save(values: np.ndarray, path: Path) -> None:
    Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).save(path)


def _tree(home: Path, names: str, *splits: str, wide: bool = False) -> Path:
    """Write two images of noise for each class in ``names`` and each of ``splits``."""
    rng = np.random.default_rng(0)
    for split in splits:
        for number, name in enumerate(names.split()):
            for image in range(2):
                path = home / split / name / f"{image}.{'png' if wide else 'jpg'}"
                path.parent.mkdir(parents=True, exist_ok=True)
                values = rng.integers(0, 40 * (number + 1), (40, 40, 3))
                if wide:
                    Image.fromarray((values[..., 0] * 16).astype(np.uint16)).save(path)
                else:
                    _save(values, path)
    return home


def test_own_trees_of_class_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a data root of ours beside them, with any suffix, and with what systems leave there."""
    home = _tree(tmp_path / "data" / "imagenet", "cat dog .ipynb_checkpoints __MACOSX", "Train", "val")
    words = _words(tmp_path / "data", tmp_path / "run", "--init", "random")
    words += ["--width", str(WIDTH)]
    assert main(words) == 2
    assert "cityscapes is missing" in (said := capsys.readouterr().err)
    assert "add --datasets imagenet" in said
    assert main([*words, "--datasets", "imagenet"]) == 0
    with open(tmp_path / "run" / "qscore.csv", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["image"], row["label"]) for row in rows] == [
        *((f"cat/{i}.jpg", "0") for i in (0, 1)),
        *((f"dog/{i}.jpg", "1") for i in (0, 1)),
    ]
    assert class_folders(home)[0].root == home / "Train"


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda home: shutil.rmtree(home), r"imagenet/train is missing, as .*imagenet is not a folder; .*mini world"),
        (
            lambda home: shutil.rmtree(home / "val"),
            r"imagenet/val is missing; it must hold a folder of images for each class",
        ),
        (lambda home: shutil.rmtree(home / "val" / "dog"), r"contain different classes \(dog\); add the missing ones"),
        (lambda home: (home / "val/dog").rename(home / "val/Dog"), r"\(Dog, dog\); give them the same capitals"),
        (lambda home: (home / "train" / "a").mkdir(), r"imagenet/train/a holds no images \(\.jpg, "),
        (lambda home: [shutil.rmtree(path) for path in (home / "train").iterdir()], r"imagenet/train holds no images"),
        (lambda home: (home / "Val").mkdir(), r"imagenet holds Val and val, which differ in capitals only"),
    ],
    ids=["no data", "no val", "no class", "capitals", "empty class", "no classes", "two vals"],
)
def test_own_trees_that_will_not_do(tmp_path: Path, damage: Callable[[Path], Any], sentence: str) -> None:
    """Said before the weights are read."""
    damage(_tree(tmp_path / "imagenet", "cat dog", "train", "val"))
    words = ["--data-root", str(tmp_path), "--out", str(tmp_path / "run"), "--datasets", "imagenet"]
    with pytest.raises(UserError, match=sentence):
        main(["--debug", "probe", "no_such_file.pth", *words])


def test_wide_images_of_val_have_the_range_of_train(tmp_path: Path) -> None:
    train, val = class_folders(_tree(tmp_path, "cat dog", "train", "val", wide=True))
    assert train.pixel_range == val.pixel_range == (0, 4095)
    assert 10 < np.asarray(val.load(0)).max() < 40


def test_one_class_cannot_be_told_apart(tmp_path: Path) -> None:
    _tree(tmp_path / "imagenet", "cat", "train", "val")
    words = ["--data-root", str(tmp_path), "--out", str(tmp_path / "run"), "--datasets", "imagenet"]
    with pytest.raises(UserError, match=r"imagenet/train holds one class, cat, so there is nothing to tell apart; add"):
        main(["--debug", "probe", "no_such_file.pth", *words])


def test_a_broken_picture_has_one_sentence_for_both_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = _tree(tmp_path / "imagenet", "cat dog", "train", "val")
    (home / "val/dog/1.jpg").write_bytes((home / "val/dog/0.jpg").read_bytes()[:300])
    words = _words(tmp_path, tmp_path / "run", "--init", "random")
    assert main([*words, "--width", str(WIDTH), "--datasets", "imagenet"]) == 2
    said = capsys.readouterr().err
    assert "val/dog/1.jpg is broken" in said
    assert "replace or delete it, then start the same command again" in said


def test_what_a_user_gets_wrong(
    mini_root: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_words(tmp_path / "nowhere", tmp_path / "run", str(checkpoint))) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert main(_words(mini_root, tmp_path / "run", str(tmp_path / "none.pth"))) == 2
    assert main([*_words(mini_root, tmp_path / "run", "--init", "random"), "--width", "0.3"]) == 2
    assert "--width 0.3" in capsys.readouterr().err
    assert main([*_words(mini_root, tmp_path / "run", str(checkpoint)), "--width", "0.25"]) == 2
    assert "--width 0.25 is for --init random" in capsys.readouterr().err
    assert main(_words(mini_root, tmp_path / "run", str(checkpoint), size=8)) == 2
    for seed in (-1, 2**32, 2**70):
        assert main([*_words(mini_root, tmp_path / "run", "--init", "random"), f"--seed={seed}"]) == 2
        assert f"--seed {seed} is not possible; choose a whole number from 0 to 4294967295" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    shutil.copytree(mini_root / "imagenet", tmp_path / "lame")
    (tmp_path / "lame/val/n02930766").rename(tmp_path / "lame/val/n99999999")
    with pytest.raises(UserError, match="different classes \\(n02930766, n99999999\\)"):
        class_folders(tmp_path / "lame")

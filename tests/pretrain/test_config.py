from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pixbench.errors import UserError
from pretrain.config import from_dict, parse
from pretrain.methods import METHODS
from pretrain.models.families import build_backbone
from pretrain.settings import RunConfig

CONFIGS = Path(__file__).parents[2] / "configs" / "pretrain"
OVERLAYS = sorted(CONFIGS.glob("mini*.yaml"))
RECIPES = sorted(set(CONFIGS.glob("*.yaml")) - set(OVERLAYS))


def read(*names: str, options: tuple[str, ...] = ()) -> RunConfig:
    files = [word for name in names for word in ("--config", str(CONFIGS / f"{name}.yaml"))]
    return parse([*files, "--data.root", "images", "--out", "run", *options])


def complaint(*argv: str) -> str:
    with pytest.raises(UserError) as caught:
        parse(argv)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    return str(caught.value)


def test_pixpro_is_the_published_recipe() -> None:
    run = read("pixpro_100ep")
    settings = run.method.settings
    assert (settings.gamma, settings.layers, settings.clamp, settings.threshold, settings.momentum) == (
        2.0,
        1,
        0.0,
        0.7,
        0.99,
    )
    assert (settings.hidden, settings.dim) == (4096, 256)
    assert (run.data.image_size, run.data.min_scale, run.data.max_scale, run.data.recipe) == (224, 0.08, 1.0, "byol")
    assert (run.backbone.depth, run.backbone.width, run.backbone.output_stride) == (50, 1.0, 32)
    optimizer = run.optimizer
    assert (optimizer.name, optimizer.base_lr, optimizer.momentum, optimizer.weight_decay) == ("lars", 1.0, 0.9, 1e-5)
    assert (optimizer.trust_coefficient, optimizer.eps) == (0.001, 1e-8)
    schedule = run.schedule
    assert (schedule.name, schedule.warmup_epochs, schedule.warmup_multiplier) == ("cosine", 5, 100)
    assert (schedule.min_lr, run.epochs, run.batch_size, run.zero_init_residual) == (1e-6, 100, 1024, True)


def test_a_group_may_have_its_own_file(tmp_path: Path) -> None:
    """As the help says: `--data FILE` changes what the file holds, and nothing else."""
    (tmp_path / "data.yaml").write_text("image_size: 64\n", encoding="utf-8")
    (tmp_path / "method.yaml").write_text("queue_size: 128\n", encoding="utf-8")
    files = ("--data", str(tmp_path / "data.yaml"), "--method", str(tmp_path / "method.yaml"))
    run, base = read("moco_v2_200ep", options=files), read("moco_v2_200ep").as_dict()
    data, method = base["data"] | {"image_size": 64}, base["method"] | {"queue_size": 128}
    assert run.as_dict() == base | {"data": data, "method": method}


def test_longer_recipes_differ_in_length_alone() -> None:
    for short, long, epochs in (("pixpro_100ep", "pixpro_400ep", 400), ("moco_v2_200ep", "moco_v2_800ep", 800)):
        base = read(short)
        assert read(long).as_dict() == {**base.as_dict(), "epochs": epochs, "keep_every": read(long).keep_every}


def test_moco_v2_and_simclr_are_the_published_recipes() -> None:
    moco = read("moco_v2_200ep")
    assert (moco.method.settings.queue_size, moco.method.settings.temperature, moco.method.settings.momentum) == (
        65536,
        0.2,
        0.999,
    )
    assert (moco.optimizer.name, moco.optimizer.base_lr, moco.optimizer.weight_decay) == ("sgd", 0.03, 1e-4)
    assert (moco.epochs, moco.batch_size, moco.data.min_scale, moco.schedule.warmup_epochs) == (200, 256, 0.2, 0)
    simclr = read("simclr_1000ep")
    assert simclr.method.settings.temperature == 0.1
    assert (simclr.optimizer.name, simclr.optimizer.base_lr, simclr.optimizer.weight_decay) == ("lars", 0.3, 1e-6)
    assert (simclr.epochs, simclr.batch_size, simclr.data.min_scale, simclr.schedule.warmup_epochs) == (
        1000,
        4096,
        0.08,
        10,
    )


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_valid_alone_and_at_mini_scale(path: Path) -> None:
    """The overlay changes sizes, never what the method is."""
    paper = read(path.stem)
    on_vit = METHODS[paper.method.name].needs_tokens
    overlays, size = ["mini" if hasattr(paper.method.settings, "hidden") else "mini_linear"], 64
    named = getattr(paper.backbone, "name", "")
    if on_vit:
        overlays.append("mini_ibot")
    elif named:
        overlays.append("mini_vit" if "vit" in named else "mini_convnext")
    elif paper.backbone.stem == "3x3":
        overlays, size = [*overlays, "mini_cifar"], 32
    mini = read(path.stem, *overlays)
    assert paper.method.name in METHODS
    if named:
        assert mini.backbone.name.split("_")[0] == named.split("_")[0]
        assert sum(p.numel() for p in build_backbone(mini.backbone).parameters()) < 1_000_000
    else:
        assert (paper.backbone.width, mini.backbone.width) == (1.0, 0.25)
    assert mini.data.image_size == size
    assert mini.method.name == paper.method.name
    assert (mini.optimizer, mini.data.recipe, mini.schedule.name) == (
        paper.optimizer,
        paper.data.recipe,
        paper.schedule.name,
    )
    assert from_dict(json.loads(json.dumps(mini.as_dict()))) == mini


def test_later_files_win_and_options_win_over_files(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("method: {name: pixpro, gamma: 1, layers: 0}\nepochs: 5\nseed: 3\n")
    (tmp_path / "b.yaml").write_text("method: {gamma: 3}\nepochs: 7\n")
    files = ["--config", str(tmp_path / "a.yaml"), "--config", str(tmp_path / "b.yaml")]
    run = parse([*files, "--data.min_scale", "0.3"])
    assert (run.method.settings.gamma, run.method.settings.layers, run.epochs, run.seed, run.data.min_scale) == (
        3.0,
        0,
        7,
        3,
        0.3,
    )
    assert parse(["--epochs=9", "--method.gamma", "0.5", *files]).epochs == 9
    assert parse(["--method.gamma", "0.5", *files]).method.settings.gamma == 0.5
    assert parse(["--method.name", "simclr", "--method.temperature", "0.5"]).method.settings.temperature == 0.5


def test_one_sentence_for_each_mistake(tmp_path: Path) -> None:
    def file(text: str) -> str:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.yaml"
        path.write_text(text)
        return str(path)

    good = ("--config", file("method: {name: pixpro}\n"))
    assert "method.gama is not a setting of method pixpro; did you mean method.gamma?" in complaint(
        *good, "--config", file("method: {gama: 2}\n")
    )
    assert "did you mean data.min_scale?" in complaint(*good, "--config", file("min_scale: 0.2\n"))
    assert "; pixbench methods pixpro lists them" in complaint(*good, "--config", file("method: {queue_size: 2}\n"))
    assert "--method.name pixpro --help lists them" in complaint(*good, "--config", file("data: {colour: 2}\n"))
    assert "method.temperature" in complaint(*good, "--method.temperature", "2")
    named = ("--config", file("backbone: {name: 'timm:vit_tiny_patch16_224'}\n"))
    assert (
        "backbone.width is not a setting of a network by name; it belongs to a ResNet; leave it out, or "
        in complaint(*good, *named, "--config", file("backbone: {width: 0.25}\n"))
    )
    assert "it belongs to a ResNet; leave it out" in complaint(*good, *named, "--backbone.width", "0.25")
    assert "backbone.options is not a setting of a ResNet; it belongs to a network by name; give one" in complaint(
        *good, "--config", file("backbone: {options: {}}\n")
    )
    assert "data is 3" in complaint(*good, "--config", file("data: 3\n"))
    assert "epochs" in complaint(*good, "--config", file("epochs: many\n"))
    assert "method.gamma" in complaint(*good, "--method.gamma", "much")
    assert "fp32" in complaint(*good, "--precision", "fp8")
    assert "data.recipe" in complaint(*good, "--data.recipe", "mocov2")
    assert "data.min_scale 2.0" in complaint(*good, "--data.min_scale", "2")
    assert "batch_size is 0" in complaint(*good, "--batch_size", "0")
    assert "backbone depth 20" in complaint(*good, "--backbone.depth", "20")
    assert "choose one of pixpro" in complaint("--method.name", "pixpo")
    assert "; did you mean pixpro?" in complaint("--method.name", "pixpo")
    assert "method.name is not set" in complaint()
    assert "nowhere.yaml" in complaint("--config", str(tmp_path / "nowhere.yaml"))
    assert "cannot be read" in complaint("--config", file("a: [\n"))
    assert "not a list" in complaint("--config", file("- a\n"))
    assert "--config" in complaint("--config")
    assert "did you mean --epochs?" in complaint(*good, "--epoch", "3")
    assert "did you mean --optimizer.base_lr?" in complaint(*good, "--optimizer.base_lrr", "3")
    assert "did you mean --method.gamma?" in complaint(*good, "--seed=1", "--method.gama=2")
    assert "did you mean --data.min_scale?" in complaint(*good, "--min_scale", "0.2")
    assert "stray" in complaint(*good, "stray")


def test_help_lists_the_settings_of_the_method(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--help", "--config", str(CONFIGS / "moco_v2_200ep.yaml")])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "--method.queue_size" in text
    assert "--data.root" in text
    assert "--method.gamma" not in text
    assert re.search(r"--backbone\.depth DEPTH\s+number of layers of the ResNet", text)


def test_help_agrees_with_what_a_run_needs(capsys: pytest.CaptureFixture[str]) -> None:
    """There is no default method, and none is shown for a name that does not exist."""
    with pytest.raises(SystemExit):
        parse(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "the settings below are those of pixpro (required)" in text
    assert "default: pixpro" not in text
    assert "'foo' is not known" in complaint("--method.name", "foo", "--help")


def test_what_a_run_shows_is_a_group_of_its_own() -> None:
    run = read("pixpro_100ep", options=("--log.trackers", "[wandb, mlflow]", "--log.knn_every=5", "--profile", "3"))
    assert (run.log.trackers, run.log.knn_every, run.log.views_every, run.profile) == (("wandb", "mlflow"), 5, 10, 3)
    assert from_dict(json.loads(json.dumps(run.as_dict()))) == run
    before = run.as_dict()
    del before["log"], before["profile"]  # a file from before these settings
    assert (from_dict(before).log.trackers, from_dict(before).profile) == ((), 0)
    start = ("--method.name", "pixpro")
    assert "log.knn_every is -1; it must be at least 0" in complaint(*start, "--log.knn_every=-1")
    assert "profile is -1; it must be at least 0" in complaint(*start, "--profile=-1")
    assert "one of ['wandb', 'mlflow']. Got value: neptune" in complaint(*start, "--log.trackers", "[neptune]")
    assert "such as '[A, B]' (a shell needs the quotes)" in complaint(*start, "--log.trackers", "wandb")

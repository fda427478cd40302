"""Short runs of the Cityscapes protocol in the real MMSegmentation, on the smallest mini world."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from PIL import Image

from pixbench.errors import UserError
from pixbench.results import read_arrays, read_result
from pretrain.models.backbone_spec import BackboneSpec
from transfer import weights
from transfer.datasets.classes import Classes, published_classes
from transfer.datasets.colours import colours_of
from transfer.frozen.scenes import scenes as frozen_scenes
from transfer.initial_weights import random_backbone
from transfer.job import TransferJob
from transfer.kept import scores
from transfer.protocols import find_protocol, protocols
from transfer.run import run_transfer
from transfer.samples import chosen, nearest
from transfer.segmentation.config import resolve
from transfer.segmentation.run import build_runner, chatter_into, close_log, newest_checkpoint, run

pytestmark = pytest.mark.frameworks
PROTOCOL = find_protocol("cityscapes_fcn16s")
QUICK = {
    "train_cfg.max_iters": 4,
    "train_cfg.val_interval": 4,
    "auto_scale_lr.base_batch_size": 2,
    "default_hooks.checkpoint.interval": 2,
    "param_scheduler.0.milestones": [3],
}
OWN = Classes(("grass", "road", "tree"), "my.txt", own=True)
QUARTER = BackboneSpec(50, 0.25)


@pytest.fixture
def job(mini_root: Path, tmp_path: Path) -> TransferJob:
    return TransferJob(PROTOCOL, mini_root, tmp_path / "run", scale="mini", overrides=QUICK)


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone file as `pixbench convert --to mmseg` writes it, with statistics that no initialisation has."""
    backbone = random_backbone(QUARTER, seed=7)
    for name, tensor in backbone.state.items():
        if name.endswith(("running_mean", "bn3.weight")):
            tensor.uniform_(0.1, 0.2)
    path = tmp_path_factory.mktemp("weights") / "backbone.pth"
    weights.save(backbone, path, "mmseg")
    return path


def with_overrides(job: TransferJob, **more: Any) -> TransferJob:
    return replace(job, overrides={**job.overrides, **{key.replace("__", "."): value for key, value in more.items()}})


class Ended(Exception):
    """Raised by the tests' own hooks to stop a run where they looked."""


def live_state(
    job: TransferJob, backbone: weights.Backbone, after: int = 0
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The segmentor's weights when ``after`` iterations have been computed, and which of the backbone's are not there."""
    from mmengine.hooks import Hook

    from transfer.weights.models.load_into import unequal

    seen: list[Any] = []

    class Look(Hook):
        priority = "VERY_LOW"

        def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
            if runner.iter < after:
                return
            seen.append({name: tensor.clone() for name, tensor in runner.model.state_dict().items()})
            seen.append(unequal(runner.model, backbone, "mmseg"))
            raise Ended

    with chatter_into(job.out) as console:
        runner, _ = build_runner(job, resolve(job, backbone.spec), backbone, console)
        runner.register_hook(Look())
        with pytest.raises(Ended):
            runner.train()
        close_log(runner)
    return seen[0], seen[1]


def test_rows_differ_in_the_backbone_and_in_nothing_else(job: TransferJob, converted: Path, tmp_path: Path) -> None:
    loaded, missing = live_state(job, weights.load(converted))
    assert missing == []
    start, missing = live_state(replace(job, out=tmp_path / "other"), random_backbone(QUARTER, seed=0))
    assert missing == []
    differ = {name for name in start if not torch.equal(start[name], loaded[name])}
    assert differ
    assert all(name.startswith("backbone.") for name in differ)


@pytest.mark.parametrize("avg_down", [False, True])
def test_a_backbone_with_a_deep_stem_arrives_in_v1c_and_v1d(job: TransferJob, avg_down: bool) -> None:
    spec = BackboneSpec(50, 0.25, stem="deep", avg_down=avg_down)
    start, missing = live_state(job, random_backbone(spec, seed=0))
    assert missing == []
    assert "backbone.stem.0.weight" in start


def test_a_frozen_backbone_keeps_weights_and_statistics_while_the_head_learns(
    job: TransferJob, converted: Path, tmp_path: Path
) -> None:
    backbone = weights.load(converted)
    frozen = replace(job, freeze="backbone")
    before, _ = live_state(frozen, backbone)
    after, missing = live_state(replace(frozen, out=tmp_path / "later"), backbone, after=2)
    assert missing == []
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.startswith("decode_head.") for name in moved)
    assert len(live_state(replace(job, out=tmp_path / "free"), backbone, after=2)[1]) > 200  # they move if they may


def test_run_with_converted_weights_trains_validates_and_repeats(
    job: TransferJob, converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(job, weights.load(converted))
    lines = capsys.readouterr().out.splitlines()
    assert first.iterations == 4
    counts = {"train": "train", "test": "val"}
    root = job.data_root / "cityscapes" / "leftImg8bit"
    assert first.evaluation["pictures"] == {name: len([*(root / part).rglob("*.png")]) for name, part in counts.items()}
    assert first.evaluation["spec"] == weights.load(converted).spec.as_dict()
    assert set(PROTOCOL.metrics.values()) <= set(first.metrics)
    classes = [value for name, value in first.metrics.items() if name.startswith("IoU/")]
    assert len(classes) == 19
    assert first.metrics["mIoU"] == pytest.approx(np.nanmean(classes), abs=0.01)
    assert np.isnan(first.metrics["IoU/fence"])  # a class that the mini world does not have
    assert 0 <= first.metrics["fgIoU"] <= 100
    assert first.config["model"]["test_cfg"]["crop_size"] == [129, 129]
    assert first.config["train_dataloader"]["batch_size"] == 2
    assert str(tmp_path) not in str(first.config)
    assert any(line.startswith("iteration 4/4  loss") for line in lines)
    assert len(lines) < 10
    assert sorted(path.name for path in job.out.iterdir()) == [
        "cityscapes_fcn16s.py",
        "curve.jsonl",
        "iter_2.pth",
        "iter_4.pth",
        "last_checkpoint",
        "log.txt",
        "progress.json",
    ]
    names = first.kept.arrays["areas"]["images"].tolist()
    samples = first.kept.arrays["samples"]
    assert samples["images"].tolist() == [names[place] for place in chosen(names)]
    assert samples["classes"].tolist() == list(published_classes("cityscapes.txt").names)
    assert samples["colours"].tolist() == colours_of(published_classes("cityscapes.txt")).tolist()
    scenes = frozen_scenes(job.data_root, "cityscapes", "test")
    for number, name in enumerate(samples["images"].tolist()):
        labels = scenes.label_map([*scenes.names].index(name))
        assert (samples[f"truth_{number}"] == nearest(labels, samples[f"found_{number}"].shape[::-1])).all()
        assert samples[f"found_{number}"].max() < 19
    elsewhere = run(replace(job, out=tmp_path / "again"), weights.load(converted))
    np.testing.assert_equal(elsewhere.metrics, first.metrics)
    np.testing.assert_equal(elsewhere.kept.arrays["samples"], samples)
    unreported = run(job, None)  # all iterations are done: it is only validated again
    assert unreported.iterations == 4
    np.testing.assert_equal(unreported.metrics, first.metrics)


def test_backbone_that_does_not_fit_stops_before_the_first_iteration(job: TransferJob, converted: Path) -> None:
    backbone = weights.load(converted)
    config = resolve(job, backbone.spec)
    config.model.backbone.type = "ResNetV1c"
    with chatter_into(job.out) as console:
        runner, _ = build_runner(job, config, backbone, console)
        with pytest.raises(
            UserError, match=r"without a place in the model \(backbone.conv1.weight.*get no value.*stem.0"
        ):
            runner.train()
        close_log(runner)
    assert newest_checkpoint(job.out) is None


def test_a_broken_run_goes_on_from_its_last_checkpoint(job: TransferJob, capfd: Any) -> None:
    """Runs that are killed are e2e tests."""
    live_state(job, random_backbone(QUARTER, seed=0), after=3)
    kept = newest_checkpoint(job.out)
    assert kept is not None
    state = torch.load(kept, weights_only=True)  # without a list of further classes that may be made
    assert state["meta"]["iter"] == 2
    capfd.readouterr()
    outcome = run(job, None)  # weights of another kind: they must not be loaded
    assert outcome.iterations == 4
    assert "going on from iteration 2 of 4" in capfd.readouterr().out
    assert (job.out / "log.txt").read_text().count("backbone from random") == 1


def test_loss_that_is_not_finite_stops_the_run(job: TransferJob) -> None:
    steep = with_overrides(job, optim_wrapper__optimizer__lr=1e30, default_hooks__checkpoint__interval=1)
    with pytest.raises(UserError, match=r"iteration [23] of 4; lower optim_wrapper.optimizer.lr \(now 1e\+30\)"):
        run(steep, None)
    kept = newest_checkpoint(job.out)
    assert kept is not None
    assert kept.name in ("iter_1.pth", "iter_2.pth")
    left = [type(handler) for handler in MMLogger.get_current_instance().handlers]
    assert (
        logging.FileHandler not in left
    )  # its file is closed, and what comes next in this process would write into it


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_picture_is_named(job: TransferJob, tmp_path: Path, workers: int) -> None:
    root = tmp_path / "root"
    shutil.copytree(job.data_root / "cityscapes", root / "cityscapes")
    for path in root.glob("cityscapes/leftImg8bit/train/*/*.png"):
        path.write_bytes(path.read_bytes()[:100])
    broken = with_overrides(replace(job, data_root=root), train_dataloader__num_workers=workers)
    with pytest.raises(UserError, match=r"^\S+_leftImg8bit.png or its label map .* cannot be read") as caught:
        run(broken, None)
    assert "\n" not in str(caught.value)


LAYOUTS = {
    "cityscapes_fcn16s": "cityscapes/gtFine/*/*/*_labelTrainIds.png",
    "ade20k_fcn_80k": "ADEChallengeData2016/annotations/*/*.png",
    "voc12aug_fcn16s": "VOC2012/SegmentationClass*/*.png",
}


def with_own_masks(mini_root: Path, root: Path, protocol: str) -> Path:
    """A copy of the data set of ``protocol`` whose label maps have the numbers of three classes, and 255."""
    pattern = LAYOUTS[protocol]
    home = pattern.split("/")[0]
    shutil.copytree(mini_root / home, root / home)
    for path in root.glob(pattern):
        with Image.open(path) as image:
            numbers = np.array(image)
        own = np.where(numbers == 255, 255, numbers % 3 + protocol.startswith("ade"))
        Image.fromarray(own.astype(np.uint8)).save(path)
    return root


def test_own_classes_are_trained_and_measured(job: TransferJob, tmp_path: Path, capsys: Any) -> None:
    root = with_own_masks(job.data_root, tmp_path / "root", PROTOCOL.name)
    outcome = run(replace(job, data_root=root, classes=OWN), None)
    assert outcome.iterations == 4
    assert [name for name in outcome.metrics if name.startswith("IoU/")] == ["IoU/grass", "IoU/road", "IoU/tree"]
    assert outcome.metrics["mIoU"] == pytest.approx(
        np.nanmean([outcome.metrics[f"IoU/{n}"] for n in OWN.names]), abs=0.01
    )
    assert "fgIoU" not in outcome.metrics
    kept = outcome.kept
    assert scores(kept.arrays["confusion"]["counts"], False)["mIoU"] == pytest.approx(
        outcome.metrics["mIoU"], abs=0.006
    )
    assert {*kept.per_image} == {"mIoU", "aAcc", "mAcc", "boundary_mIoU"}
    assert len(kept.arrays["areas"]["images"]) == outcome.evaluation["pictures"]["test"]
    assert outcome.config["model"]["decode_head"]["num_classes"] == 3
    assert outcome.config["val_dataloader"]["dataset"]["metainfo"]["classes"] == list(OWN.names)
    assert "object_IoU" not in capsys.readouterr().out


@pytest.mark.parametrize("protocol", LAYOUTS)
def test_data_sets_of_own_classes_keep_the_numbers_of_the_label_maps(
    job: TransferJob, tmp_path: Path, protocol: str
) -> None:
    """Also those of published names in another order, which MMSegmentation by itself would renumber."""
    root = with_own_masks(job.data_root, tmp_path / "root", protocol)
    published = "person", "car", "bus"  # classes of all three data sets
    for classes in (OWN, Classes(published, "my.txt", own=True)):
        given = replace(job, protocol=find_protocol(protocol), data_root=root, classes=classes, overrides={})
        with chatter_into(given.out) as console:
            runner, _ = build_runner(given, resolve(given), random_backbone(QUARTER, seed=0), console)
            loader = runner.build_dataloader(runner._val_dataloader)
            seen = {
                n
                for i in range(len(loader.dataset))
                for n in loader.dataset[i]["data_samples"].gt_sem_seg.data.unique().tolist()
            }
            close_log(runner)
        assert {0, 1, 2} <= seen <= {0, 1, 2, 255}
        assert loader.dataset.metainfo["classes"] == classes.names


MMSEG = [name for name, protocol in protocols().items() if protocol.framework == "mmseg"]


@pytest.mark.e2e
@pytest.mark.parametrize("name", MMSEG)
def test_every_protocol_starts_and_finishes_at_mini_scale(mini_root: Path, tmp_path: Path, name: str) -> None:
    result = run_transfer(TransferJob(find_protocol(name), mini_root, tmp_path / "run", scale="mini"))
    assert (result["status"], result["iterations"]) == ("ok", 120)
    assert result["metrics"]["mIoU"] > 2  # one class everywhere gives less


@pytest.mark.e2e
def test_two_processes_on_loopback_share_a_batch(mini_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = [word for key, value in QUICK.items() for word in ("--set", f"{key}={value}")]
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    command = [*torchrun, "-m", "benchmarks.commands", "transfer", PROTOCOL.name, "--init", "random", "--scale", "mini"]
    command += ["--data-root", str(mini_root), "--out", str(out), *settings]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    subprocess.run(command, env=environment, check=True, cwd=tmp_path)
    assert not (tmp_path / ".dist_test").exists()  # mmengine's place for the results of the processes
    assert not (out / ".collected").exists()
    result = read_result(out / "result.json")
    assert (result["status"], result["iterations"], result["host"]["processes"]) == ("ok", 4, 2)
    assert result["config"]["train_dataloader"]["batch_size"] == 1
    assert "naiveSyncBN instead of SyncBN, as several CPU processes need" in result["deviations"]
    assert (out / "log.rank1.txt").exists()
    names = [path.stem for path in (mini_root / "cityscapes/leftImg8bit/val").rglob("*.png")]
    samples = read_arrays(out / "result.json", result, "samples.npz")
    assert samples["images"].tolist() == [names[place] for place in chosen(names)]


def test_iou_of_what_nobody_labelled_or_predicted_is_no_number(tmp_path: Path) -> None:
    from transfer.segmentation.metrics import ObjectIoU

    Image.new("RGB", (4, 1)).save(tmp_path / "picture.png")
    truth, guess = torch.tensor([[0, 0, 1, 255]]), torch.tensor([[0, 2, 1, 3]])
    found = {}
    for first_object in (None, 3):
        metric = ObjectIoU(first_object=first_object, iou_metrics=["mIoU"])
        metric.dataset_meta = {"classes": tuple("abcd")}
        sample = {
            "pred_sem_seg": {"data": guess},
            "gt_sem_seg": {"data": truth},
            "img_path": str(tmp_path / "picture.png"),
        }
        metric.process({}, [sample])
        found[first_object] = metric.evaluate(1)
    assert found[3]["mIoU"] == pytest.approx(50)  # a 50, b 100, c 0 because it is predicted; d only where it is ignored
    assert found[3]["IoU/c"] == 0
    assert np.isnan([found[3]["IoU/d"], found[3]["fgIoU"]]).all()
    assert "fgIoU" not in found[None]
    assert {*found[3]} - {*found[None]} == {"fgIoU"}
    assert found[3]["boundary_mIoU"] == pytest.approx(
        100 / 3
    )  # beside the boundary of a and b: a predicted as c, and b
    kept = metric.kept.arrays
    assert kept["areas"]["images"].tolist() == ["picture"]
    assert kept["areas"]["intersection"].tolist() == [[1, 1, 0, 0]]
    assert kept["areas"]["union"].tolist() == [[2, 1, 1, 0]]
    assert kept["boundaries"]["union"].tolist() == [[1, 1, 1, 0]]
    assert kept["confusion"]["counts"].tolist() == [[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert scores(kept["confusion"]["counts"], False)["mIoU"] == pytest.approx(50)


def test_iou_of_classes_and_objects_by_hand(tmp_path: Path) -> None:
    from mmengine.structures import PixelData

    from transfer.segmentation.metrics import ObjectIoU

    metric = ObjectIoU(first_object=11, iou_metrics=["mIoU"])
    metric.dataset_meta = {"classes": tuple(f"class{i}" for i in range(19))}
    truth = torch.tensor([[0, 0, 11, 13, 255]])
    guess = torch.tensor([[0, 11, 11, 11, 11]])
    sample = {"pred_sem_seg": PixelData(data=guess), "gt_sem_seg": PixelData(data=truth)}
    pixels = {name: {"data": part.data} for name, part in sample.items()}
    Image.new("RGB", (5, 1)).save(tmp_path / "a.png")
    metric.process({}, [{**pixels, "img_path": str(tmp_path / "a.png")}])
    found = metric.evaluate(1)
    assert found["fgIoU"] == pytest.approx(100 * 2 / 3, abs=1e-3)
    assert found["IoU/class0"] == pytest.approx(50)
    assert found["IoU/class11"] == pytest.approx(100 / 3, abs=1e-3)
    assert found["IoU/class13"] == 0
    assert np.isnan(found["IoU/class1"])
    assert found["mIoU"] == pytest.approx(np.mean([50, 100 / 3, 0]), abs=0.01)

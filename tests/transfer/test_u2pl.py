"""U2PL's parts against numpy: thresholds, weights, negatives by rank, the contrastive loss, lists, mixing, and a short run."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pixbench.errors import UserError
from transfer.job import TransferJob
from transfer.protocols import find_protocol
from transfer.run import run_transfer
from transfer.segmentation.u2pl import contrast, losses, mixing
from transfer.segmentation.u2pl.contrast import Contrast, Memory

pytestmark = pytest.mark.frameworks
B, K, SIDE, D = 2, 5, 6, 4


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def entropies(logits: np.ndarray) -> np.ndarray:
    chances = softmax(logits)
    return -(chances * np.log(chances + 1e-10)).sum(1)


def cross_entropies(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of each pixel with a label, in the order of the pixels."""
    chances = softmax(logits).transpose(0, 2, 3, 1)[labels != 255]
    return -np.log(chances[np.arange(len(chances)), labels[labels != 255]])


@pytest.fixture
def numbers() -> np.random.Generator:
    return np.random.default_rng(0)


def some(numbers: np.random.Generator, count: int = B) -> tuple[np.ndarray, np.ndarray]:
    logits, labels = 3 * numbers.normal(size=(count, K, SIDE, SIDE)), numbers.integers(0, K, (count, SIDE, SIDE))
    labels[:, 0] = 255
    return logits, labels


def test_unreliable_pixels_are_left_out_and_the_others_weigh_more(numbers: np.random.Generator) -> None:
    logits, labels = some(numbers)
    teacher, _ = some(numbers)
    uncertainty = entropies(teacher)
    kept = np.where(uncertainty >= np.percentile(uncertainty[labels != 255], 70), 255, labels)
    expected = labels.size / (kept != 255).sum() * cross_entropies(logits, kept).mean()
    found = losses.pseudo_label_loss(*map(torch.from_numpy, (logits, labels, teacher)), 70)
    assert float(found) == pytest.approx(expected)


@pytest.mark.parametrize("min_kept", [5, 40, 1000])
def test_ohem_keeps_the_hardest_pixels(numbers: np.random.Generator, min_kept: int) -> None:
    logits, labels = some(numbers)
    each = cross_entropies(logits, labels)
    limit = max(np.sort(np.exp(-each))[min_kept - 1], 0.1) if min_kept <= len(each) else 1
    expected = each[np.exp(-each) <= limit * (1 + 1e-12)].mean()
    found = losses.supervised(torch.from_numpy(logits), torch.from_numpy(labels), {"thresh": 0.1, "min_kept": min_kept})
    assert float(found) == pytest.approx(expected)
    assert float(losses.supervised(torch.from_numpy(logits), torch.from_numpy(labels), None)) == pytest.approx(
        each.mean()
    )


def test_negatives_are_chosen_by_rank_as_the_code_of_the_authors_does(numbers: np.random.Generator) -> None:
    logits, labels = some(numbers, 2 * B)
    chances, high = softmax(logits), numbers.random((2 * B, 1, SIDE, SIDE)) < 0.7
    settings = Contrast(low_rank=2, high_rank=4)
    expected = np.zeros(chances.shape, dtype=bool)
    for b, k, y, x in np.ndindex(chances.shape):
        rank = int((chances[b, :, y, x] > chances[b, k, y, x]).sum())
        mine = labels[b, y, x] == k
        chosen = rank < 2 and not mine if b < B else 2 <= rank < 4
        expected[b, k, y, x] = chosen and mine and high[b, 0, y, x] and chances[b, k, y, x] < 1
    targets = losses.one_hot(torch.from_numpy(labels), K)
    found = contrast.negatives(torch.from_numpy(chances), targets, torch.from_numpy(high), B, settings)
    np.testing.assert_array_equal(found.numpy(), expected)
    assert expected[B:].any()
    assert not expected[:B].any()  # the two conditions of a labelled cell exclude each other


def test_contrastive_loss_is_that_of_the_authors_loop(
    numbers: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, labels = some(numbers)
    labels[labels == 1] = 2  # class 1 is missing: the next classes take anchors and centres of the class before
    chances = softmax(logits)
    student, teacher = numbers.normal(size=(2, B, D, SIDE, SIDE))
    low = numbers.random((B, 1, SIDE, SIDE)) < 0.8
    settings = Contrast(current_class_threshold=0.1, num_queries=3, num_negatives=2, temperature=0.5)
    memory = Memory([8] * K, D)
    for k in range(K):
        memory.add(k, torch.from_numpy(numbers.normal(size=(9, D))))
    assert all(len(kept) == 8 for kept in memory.kept)
    monkeypatch.setattr(contrast, "_draw", lambda count, number, device=None: torch.arange(number) % count)
    reliable = [(labels == k) & low[:, 0] for k in range(K)]
    present = [k for k in range(K) if reliable[k].any()]
    assert present == [0, 2, 3, 4]
    total = 0.0
    for n, k in enumerate(present):
        anchors = student.transpose(0, 2, 3, 1)[reliable[n] & (chances[:, n] > 0.1)]
        if not len(anchors):
            continue
        centre = teacher.transpose(0, 2, 3, 1)[reliable[n]].mean(0)
        bank = memory.kept[k].double().numpy()
        for q in range(3):
            anchor = anchors[q % len(anchors)]
            others = np.stack([centre, *(bank[(2 * q + i) % len(bank)] for i in range(2))])
            alike = others @ anchor / np.linalg.norm(others, axis=1) / np.linalg.norm(anchor) / 0.5
            total += (np.log(np.exp(alike).sum()) - alike[0]) / 3
    targets = losses.one_hot(torch.from_numpy(labels), K)
    args = (*map(torch.from_numpy, (student, teacher, chances)), targets, torch.from_numpy(low))
    assert float(contrast.contrastive_loss(*args, memory, settings)) == pytest.approx(total / len(present))


def test_mixing_takes_the_next_picture_outside_the_mask() -> None:
    torch.manual_seed(0)
    images = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 3, 8, 10)
    labels = torch.arange(3).view(3, 1, 1).expand(3, 8, 10).clone()
    found, truth = mixing.mixed(images, labels, "cutmix")
    assert torch.equal(found[:, 0].long(), truth)
    assert [set(one.unique().tolist()) for one in truth] == [{0, 1}, {1, 2}, {2, 0}]
    assert all(abs(int((one == n).sum()) - 40) <= 5 for n, one in enumerate(truth))  # half, but for rounding
    found, truth = mixing.mixed(images + 1, labels, "cutout")
    assert torch.equal(found[:, 0] == 0, truth == 255)
    halves = torch.tensor([[0, 1], [2, 3]])
    assert mixing.class_mask(halves).sum() == 2


def test_published_lists_have_the_authors_numbers_and_missing_pictures_are_named() -> None:
    from transfer.segmentation.u2pl.data import LISTS, labelled_names

    for dataset, counts in (("VOC2012aug", (662, 1323, 2646)), ("cityscapes", (186, 372, 744))):
        lines = (LISTS / f"{dataset}.txt").read_text().splitlines()
        names = [line.split()[0] for line in lines if not line.startswith("#")]
        assert tuple(len(labelled_names(names, dataset, fraction)) for fraction in (16, 8, 4)) == counts
        with pytest.raises(UserError, match=r"1 of the \d+ published labelled pictures .* draw others with --set"):
            labelled_names(sorted(labelled_names(names, dataset, 16))[1:], dataset, 16)
    with pytest.raises(UserError, match=r"no list of 1/3 .* \(train_dataloader.dataset.fraction\); .* 4, 8, 16"):
        labelled_names(names, "cityscapes", 3)
    assert labelled_names([*"abcdefgh"], "", 4) == labelled_names([*"hgfedcba"], "", 4)


def short(name: str, mini_root: Path, out: Path, **more: Any) -> TransferJob:
    few = {"train_cfg.max_iters": 4, "train_cfg.val_interval": 4, "default_hooks.checkpoint.interval": 2}
    overrides = {**few, "model.epoch_iterations": 2, "auto_scale_lr.base_batch_size": 4, **more}
    return TransferJob(find_protocol(name), mini_root, out, scale="mini", overrides=overrides)


def teacher_is_student(state: dict[str, torch.Tensor]) -> bool:
    names = [name for name in state if name.startswith("teacher.") and "weight" in name]
    return all(torch.equal(state[name], state[name.removeprefix("teacher.")]) for name in names)


@pytest.mark.e2e
def test_a_short_run_trains_a_teacher_that_is_the_student_in_its_first_epoch(mini_root: Path, tmp_path: Path) -> None:
    """VOC has a warm-up of an epoch, so that the last step is in the teacher's first epoch."""
    job = short("voc12aug_u2pl_16th", mini_root, tmp_path / "run")
    result = run_transfer(job)
    assert (result["status"], result["iterations"]) == ("ok", 4)
    assert set(result["deviations"]) >= set(job.protocol.differs)
    state = torch.load(job.out / "iter_4.pth", weights_only=True)["state_dict"]
    assert state["step"] == 4
    assert teacher_is_student(state)


@pytest.mark.e2e
def test_a_run_that_goes_on_ends_as_an_uninterrupted_one(
    mini_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the memory of the checkpoint. The framework saves no random state, so pictures and steps have seeds of their own."""
    from transfer.segmentation.run import run
    from transfer.segmentation.u2pl.data import PartlyLabelled
    from transfer.segmentation.u2pl.segmentor import U2PL

    read, compute = PartlyLabelled.__getitem__, U2PL.loss

    def seed(number: int) -> None:
        torch.manual_seed(number)
        np.random.seed(number)

    monkeypatch.setattr(PartlyLabelled, "__getitem__", lambda data, index: (seed(index), read(data, index))[1])
    monkeypatch.setattr(U2PL, "loss", lambda model, *batch: (seed(int(model.step)), compute(model, *batch))[1])
    job = short("cityscapes_u2pl_4th", mini_root, tmp_path / "straight", **{"train_dataloader.num_workers": 0})
    run(job, None)
    broken = replace(job, out=tmp_path / "broken")
    broken.out.mkdir()
    shutil.copy(job.out / "iter_2.pth", broken.out)
    run(broken, None)
    before = torch.load(job.out / "iter_2.pth", weights_only=True)["u2pl_memory"]
    assert sum(map(len, before)) > 0
    one, two = (torch.load(each.out / "iter_4.pth", weights_only=True) for each in (job, broken))
    for name, value in (one["state_dict"] | dict(enumerate(one["u2pl_memory"]))).items():
        assert value.equal((two["state_dict"] | dict(enumerate(two["u2pl_memory"])))[name]), name
    assert not teacher_is_student(one["state_dict"])


def test_a_batch_that_has_no_halves_is_refused(mini_root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"one GPU would get 3 pictures at a time .* give an even number"):
        run_transfer(short("voc12aug_u2pl_16th", mini_root, tmp_path, **{"train_dataloader.batch_size": 3}))
    with pytest.raises(UserError, match=r"with 1 labelled picture has no statistics .* give 4 pictures or more"):
        run_transfer(short("voc12aug_u2pl_16th", mini_root, tmp_path, **{"train_dataloader.batch_size": 2}))
    job = short("cityscapes_u2pl_4th", mini_root, tmp_path / "run")
    with pytest.raises(UserError, match="one GPU would get 1 pictures at a time"):
        run_transfer(replace(job, accumulate=4))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("train_dataloader.dataset.fraction", 1, r"fraction is 1, but .* from 2"),
        ("train_dataloader.dataset.published", "VOC2012", r"published is 'VOC2012', but .* VOC2012aug, cityscapes"),
        ("model.mixing", "mixup", r"model.mixing is 'mixup', but .* cutmix, cutout, classmix"),
        ("model.epochs", 0, "model.epochs is 0, but .* from 1"),
        ("model.epochs", 1, r"train_cfg.max_iters is 4, but .* model.epochs × model.epoch_iterations = 2 iterations"),
        ("model.epoch_iterations", 0, "model.epoch_iterations is 0, but .* from 1"),
        ("model.warm_up_epochs", -1, "model.warm_up_epochs is -1, but .* from 0"),
        ("model.ema_decay", 1.5, "model.ema_decay is 1.5, but .* from 0 to 1"),
        ("model.drop_percent", 0, "model.drop_percent is 0, but .* above 0 to 100"),
        ("model.low_entropy_threshold", 101, "model.low_entropy_threshold is 101, but .* from 0 to 100"),
        ("model.contrast.num_queries", 0, "model.contrast.num_queries is 0, but must be above 0"),
        ("model.contrast.num_negatives", -5, "model.contrast.num_negatives is -5, but .* from 1"),
        ("model.contrast.temperature", 0, "model.contrast.temperature is 0, but .* above 0"),
        ("model.ohem.min_kept", 0, "model.ohem.min_kept is 0, but .* from 1"),
        ("model.memory", [0, 3], r"model.memory is \(0, 3\), but .* two numbers from 1"),
    ],
)
def test_settings_that_would_stop_or_hang_a_run_are_refused_before_it(
    mini_root: Path, tmp_path: Path, key: str, value: Any, said: str
) -> None:
    from transfer.segmentation.config import resolve
    from transfer.segmentation.u2pl.settings import check

    name = "cityscapes_u2pl_4th" if "ohem" in key else "voc12aug_u2pl_16th"
    check(resolve(short(name, mini_root, tmp_path)))
    with pytest.raises(UserError, match=said):
        check(resolve(short(name, mini_root, tmp_path, **{key: value})))


@pytest.mark.parametrize("name", ["voc12aug_u2pl_16th", "cityscapes_u2pl_4th"])
def test_a_suite_is_checked_with_it(mini_root: Path, tmp_path: Path, name: str) -> None:
    from benchmarks.check import segmentation
    from transfer.initial_weights import random_backbone

    job = TransferJob(find_protocol(name), mini_root, tmp_path, scale="mini")
    resolved = segmentation.resolve(job, None, 1)
    assert segmentation.build(job, resolved.config, random_backbone(resolved.spec, 0)).trained > 0
    with pytest.raises(UserError, match="one GPU would get 1 pictures at a time"):
        segmentation.resolve(replace(job, accumulate=int(resolved.batch)), None, 1)


def gathered(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    memory = Memory([3, 9], D)
    for step in range(2):
        memory.gather(*of_process(rank, step))
    torch.save(memory.kept, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def of_process(rank: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Representations (1, D, 2, 2), and where they are negatives of two classes: of other numbers of cells in each process."""
    number = 10.0 * step + 100 * rank
    cells = torch.arange(4).view(1, 1, 2, 2) + number
    where = torch.tensor([[[True, rank == 0], [False, False]], [[rank == 1, False], [False, True]]])[None]
    return cells.expand(1, D, 2, 2), where


@pytest.mark.e2e
def test_two_processes_keep_the_negatives_of_both(tmp_path: Path) -> None:
    """Step by step, those of the first process before those of the second; the latest stay, as in the authors' code."""
    torch.multiprocessing.spawn(gathered, (tmp_path,), nprocs=2)
    for rank in range(2):
        first, second = torch.load(tmp_path / f"{rank}.pt")
        assert first[:, 0].tolist() == [10, 11, 110]
        assert second[:, 0].tolist() == [3, 100, 103, 13, 110, 113]
        assert first.shape == (3, D)

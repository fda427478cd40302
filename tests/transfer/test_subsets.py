"""The shares of COCO that the semi-supervised protocols train on."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from transfer.detection.subsets import FOLDS, subset


def test_anybody_can_derive_them() -> None:
    """Known answers, and the rule in words: order by the digest of "fold:id", take the first."""
    assert subset(range(1000), 1, 0) == [46, 87, 282, 306, 366, 392, 404, 864, 923, 942]
    ordered = sorted(range(1000), key=lambda number: sha256(f"3:{number}".encode()).hexdigest())
    assert subset(range(1000), 10, 3) == sorted(ordered[:100])


def test_they_are_nested_within_a_fold_and_differ_between_folds() -> None:
    ids = range(1, 118288)
    folds = [set(subset(ids, 1, fold)) for fold in range(FOLDS)]
    assert {len(fold) for fold in folds} == {1183}
    assert folds[2] < set(subset(ids, 10, 2))
    assert len(set.union(*folds)) > 5700
    assert subset(reversed(ids), 1, 4) == sorted(folds[4])
    assert subset([7, 7, 8], 1, 0) in ([7], [8])


@pytest.mark.frameworks
def test_detectron2_knows_them_and_the_run_keeps_its_list(mini_root: Path, tmp_path: Path) -> None:
    from detectron2.data import DatasetCatalog

    from transfer.datasets.prepared import Prepared
    from transfer.detection.datasets import register
    from transfer.job import TransferJob
    from transfer.protocols import find_protocol

    protocol = find_protocol("coco_semi_10pct")
    chosen = {}
    for seed in (0, 1, 5):
        register(TransferJob(protocol, mini_root, tmp_path / str(seed), seed=seed), Prepared())
        records = DatasetCatalog.get("coco_2017_train_10pct")
        listed = (tmp_path / str(seed) / "images.txt").read_text(encoding="utf-8").split()
        chosen[seed] = sorted(record["image_id"] for record in records)
        assert chosen[seed] == list(map(int, listed))
    assert chosen[0] == chosen[5]

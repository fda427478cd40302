"""Which numbers tables show, with how many digits, and beside which published ones."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import made_results
import pytest
from tabled import cells, written

from benchmarks.commands.main import main
from benchmarks.published import published
from pretrain.models.backbone_spec import BackboneSpec
from pretrain.models.named_spec import NamedSpec
from transfer.run_folder import row_of
from transfer.weights.spec import Spec
from transfer.weights.vit_spec import VitSpec

LARGE = VitSpec(width=1024, depth=24, heads=16, patch=14)
NUMBERS = {
    **dict(rankme=95.2, alpha_req=1.25, alignment=0.5, uniformity=-1.5, equivariance_flip=0.1),
    **dict(equivariance_crop=0.194, sensitivity=0.05, smoothness=0.9),
}


def measured(folder: Path, protocol: str, metrics: dict[str, float | None], **changes: Any) -> None:
    made_results.write(folder, protocol, metrics, **{"scale": "paper", "label": "a", **changes})


def test_a_published_number_stands_only_beside_its_own_network(tmp_path: Path) -> None:
    about = {"spec": BackboneSpec(width=0.25).as_dict(), "stride": 16, "images": {"size": 224}}
    measured(tmp_path, "ade20k_knn", {"mIoU": 5.0}, label="capi_vitl14_in22k", evaluation=about)
    text = written(tmp_path)
    assert cells(text) == {"Pre-training": "capi_vitl14_in22k", "ADE20K k-NN mIoU": "5.0"}
    note = "the published number is not shown beside that of ade20k_knn: that is of ViT-L/14, this of ResNet-50 of"
    assert note in text
    assert next(csv.DictReader((tmp_path / "table.csv").open()))["published"] == ""
    measured(
        tmp_path, "ade20k_knn", {"mIoU": 5.0}, label="capi_vitl14_in22k", evaluation=about | {"spec": LARGE.as_dict()}
    )
    text = written(tmp_path)
    assert cells(text) == {"Pre-training": "CAPI ViT-L/14, IN22k", "ADE20K k-NN mIoU": "5.0 (29.7, −24.7)"}
    assert "not shown beside" not in text


@pytest.mark.parametrize(
    ("protocol", "label", "spec", "about", "why"),
    [
        ("voc_c4", "pixpro_400ep", BackboneSpec(depth=101), {}, "this of ResNet-101 of width 1"),
        ("voc_c4", "pixpro_400ep", BackboneSpec(groups=32, width_per_group=4), {}, "this of ResNeXt-50"),
        ("voc07_discovery", "supervised", BackboneSpec(), {"stride": 32}, "that is of cells of 16 pixels, this of 32"),
        (
            "ade20k_knn",
            "capi_vitl14_in1k",
            LARGE,
            {"images": {"size": 448}},
            "that is of inputs of 224 pixels, this of 448",
        ),
        (
            "ade20k_knn",
            "capi_vitl14_in22k",
            NamedSpec("timm:vit_large_patch16_224"),
            {},
            "this of timm:vit_large_patch16_224",
        ),
        (
            "ade20k_knn",
            "capi_vitl14_in22k",
            NamedSpec("timm:vit_large_patch14_dinov2.lvd142m", {"img_size": 224}),
            {},
            "",
        ),
        ("ade20k_knn", "capi_vitl14_in22k", NamedSpec("timm:vit_large_patch14_dinov2", {"depth": 12}), {}, "depth 12"),
        (
            "ade20k_knn",
            "capi_vitl14_in22k",
            NamedSpec("my:vit_large_patch14_dinov2"),
            {},
            "this of my:vit_large_patch14",
        ),
        ("voc12aug_overcluster", "neco_vits14_dinov2r", NamedSpec("timm:vit_small_patch14_reg4_dinov2"), {}, ""),
        ("voc12aug_fcn_d8_20k", "supervised", NamedSpec("timm:resnet50"), {}, ""),
        ("voc_c4", "pixpro_400ep", BackboneSpec(stride_in_1x1=False, output_stride=16), {}, ""),
        ("voc07_discovery", "supervised", BackboneSpec(), {"stride": 16}, ""),
    ],
)
def test_what_makes_another_network(protocol: str, label: str, spec: Spec, about: dict[str, Any], why: str) -> None:
    found = published()[label].differs({"protocol": protocol, "evaluation": {"spec": spec.as_dict(), **about}})
    assert (why in found) if why else found == ""


def test_a_backbone_by_name_has_no_title_that_names_another_network() -> None:
    run = {"protocol": "ade20k_knn", "evaluation": {"spec": NamedSpec("timm:convnext_tiny").as_dict()}}
    assert not published()["capi_vitl14_in22k"].titled(run)
    assert published()["pixpro_400ep"].titled(run)
    same = {"protocol": "ade20k_knn", "evaluation": {"spec": NamedSpec("timm:vit_large_patch14_dinov2").as_dict()}}
    assert published()["capi_vitl14_in22k"].titled(same)


def test_networks_of_published_numbers_are_known_to_timm() -> None:
    import timm

    from benchmarks.published import networks

    names = {name for network in networks().values() for name in network["timm"]}
    assert names <= {*timm.list_models()}


def test_metrics_have_digits_of_their_own_and_those_left_out_are_named(tmp_path: Path) -> None:
    for seed, value in enumerate((0.193, 0.189)):
        measured(tmp_path / str(seed), "voc12aug_statistics", NUMBERS | {"equivariance_crop": value}, seed=seed)
    text = written(tmp_path)
    row = cells(text)
    assert row["VOC12 RankMe"] == "95.2 ± 0.0"
    assert row["VOC12 equivariance"] == "0.191 ± 0.003"
    assert "VOC12 uniformity" not in text
    assert (
        "not shown: alignment, uniformity, equivariance_flip of voc12aug_statistics (`pixbench table --metrics all` shows"
        in text
    )
    row = cells(written(tmp_path, metrics="all"))
    assert row["voc12aug_statistics uniformity"] == "-1.500 ± 0.000"
    assert "also measured" not in (tmp_path / "table.md").read_text()


def test_undefined_numbers_have_their_reason(tmp_path: Path) -> None:
    why = {"undefined": {"sensitivity": "no two pure cells are near"}}
    measured(tmp_path / "0", "voc12aug_statistics", NUMBERS)
    measured(tmp_path / "1", "voc12aug_statistics", NUMBERS | {"sensitivity": None}, seed=1, evaluation=why)
    text = written(tmp_path)
    assert cells(text)["VOC12 sensitivity"] == "undefined [a]"
    assert "- [a]: sensitivity: in 1 of 2 seeds, no two pure cells are near\n" in text
    rows = {row["metric"]: row for row in csv.DictReader((tmp_path / "table.csv").open())}
    assert (rows["sensitivity"]["mean"], rows["sensitivity"]["std"]) == ("", "")
    assert rows["sensitivity"]["undefined"].endswith("no two pure cells are near")
    assert rows["smoothness"]["undefined"] == ""
    assert "nan" not in text + (tmp_path / "table.csv").read_text()


def test_each_kind_has_its_own_words(tmp_path: Path) -> None:
    measured(tmp_path / "a", "ade20k_knn", {"mIoU": 5.0}, scale="mini")
    text = written(tmp_path)
    assert text.startswith("# Results with frozen backbones\n")
    assert "narrow" not in text
    assert "schedules" not in text
    measured(tmp_path / "b", "ade20k_fcn_80k", {"mIoU": 5.0}, kind="transfer", scale="mini")
    assert written(tmp_path).startswith("# Results, fine-tuned and with frozen backbones\n")


def test_training_pictures_are_compared_too(tmp_path: Path) -> None:
    for name, number in (("a", 10), ("b", 20)):
        about = {"pictures": {"train": number, "test": 5}}
        measured(tmp_path / name, "voc_c4", {"AP": 5.0}, kind="transfer", label=name, evaluation=about)
    note = "- voc_c4: the rows had different numbers of training pictures (10: a; 20: b)"
    assert note in written(tmp_path)


def test_several_folders_make_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        measured(tmp_path / name, "voc_c4", {"AP": 5.0}, kind="transfer", label=name)
    folders = [str(tmp_path / name) for name in "ab"]
    assert main(["table", *folders]) != 0
    assert "say with --out" in capsys.readouterr().err
    assert main(["table", *folders, "--out", str(tmp_path / "out")]) == 0
    assert len((tmp_path / "out" / "table.csv").read_text().splitlines()) == 7


def test_equal_seeds_are_named_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        measured(tmp_path / name, "voc_c4", {"AP": 5.0}, kind="transfer")
    assert main(["table", str(tmp_path)]) != 0
    said = capsys.readouterr().err
    assert "are both 'a' of voc_c4 at paper scale with seed 0; a seed" in said
    assert "('" not in said


@pytest.mark.parametrize(
    ("path", "row"),
    [
        ("runs/pixpro/checkpoint.pth", "pixpro"),
        ("runs/pixpro/checkpoint_ep0100.pth", "pixpro"),
        ("runs/byol/earlier/checkpoint_step000001000.pth", "byol"),
        ("runs/dino/checkpoints/last.ckpt", "dino"),
        ("runs/pixpro/pixpro.pkl", "pixpro.pkl"),
        ("runs/best_of_all.pth", "best_of_all.pth"),
        ("checkpoint.pth", "checkpoint.pth"),
    ],
)
def test_a_name_that_every_run_has_is_no_row(path: str, row: str) -> None:
    assert row_of({"label": None, "init": Path(path).name, "weights": {"path": path}}) == row
    assert row_of({"label": "mine", "init": Path(path).name, "weights": {"path": path}}) == "mine"
    assert row_of({"label": None, "init": "random", "weights": None}) == "random"

"""Files made by hand to claim more than they hold or to pass for others: one sentence each."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pixbench.errors import UserError
from pixbench.file_versions import WEIGHTS_KEY
from pretrain.models.backbone_spec import BackboneSpec
from transfer.weights import convert, inspection, load, read
from transfer.weights.expected_shapes import expected

pytestmark = pytest.mark.slow

P = b"\x80\x02"


def text(value: str) -> bytes:
    coded = value.encode()
    return b"X" + struct.pack("<I", len(coded)) + coded


def number(value: int) -> bytes:
    coded = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8b" + struct.pack("<i", len(coded)) + coded


def storage(kind: str, key: bytes, numel: bytes) -> bytes:
    return b"(" + text("storage") + f"ctorch\n{kind}Storage\n".encode() + key + text("cpu") + numel + b"tQ"


def tensor(kind: str, numel: int, shape: tuple[int, ...], strides: tuple[int, ...], key: str = "0") -> bytes:
    sizes = (b"(" + b"".join(map(number, part)) + b"t" for part in (shape, strides))
    of = storage(kind, text(key), number(numel))
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + of + b"K\x00" + b"".join(sizes) + b"\x89}tR"


def archive(path: Path, pickled: bytes, order: bytes = b"little", **records: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("x/data.pkl", pickled)
        made.writestr("x/byteorder", order)
        for key, content in records.items():
            made.writestr(f"x/data/{key.strip('_')}", content)
        made.writestr("x/version", b"3\n")
    return path


STRETCHED = tensor("Float", 1, (10**9,), (0,))


@pytest.mark.parametrize("order", [b"little", b"big"])
@pytest.mark.parametrize(
    "content",
    [
        b"}" + text("conv1.weight") + STRETCHED + b"s.",
        b"}"
        + text(WEIGHTS_KEY)
        + b"}"
        + text("sha256")
        + text("x")
        + b"ss"
        + text("model")
        + b"}"
        + text("w")
        + STRETCHED
        + b"ss.",
    ],
    ids=["weights", "weights with a fingerprint"],
)
def test_a_few_numbers_said_to_be_many(tmp_path: Path, content: bytes, order: bytes) -> None:
    with pytest.raises(UserError):
        load(archive(tmp_path / "x.pth", P + content, order, _0=b"\0\0\0\0"))


def saved(path: Path, backbone: dict[str, torch.Tensor], **beside: object) -> Path:
    torch.save({"state_dict": backbone, **beside}, path)
    return path


@pytest.mark.parametrize(
    ("shape", "strides"),
    [((5, 1, 1, 1), (2**60, 1, 1, 1)), ((2**31 + 1, 1), (2**31, 1)), ((9, 1), (2**59, 1)), ((2,) * 4, (2**60,) * 4)],
)
def test_a_view_so_far_away_that_numpy_loses_count(tmp_path: Path, shape: tuple, strides: tuple) -> None:
    notes = b"}" + text(WEIGHTS_KEY) + b"}" + text("sha256") + text("x") + b"ss"
    far = notes + text("model") + b"}" + text("w") + tensor("Float", 64, shape, strides) + b"ss."
    with pytest.raises(UserError, match="truncated or damaged"):
        load(archive(tmp_path / "x.pth", P + far, _0=bytes(256)))


@pytest.mark.parametrize("version", [[[[1] * 60] * 60] * 60, 10**500], ids=["long", "large"])
def test_a_version_that_cannot_be_shown(tmp_path: Path, make_backbone: Callable, version: object) -> None:
    model = {f"backbone.{name}": tensor for name, tensor in make_backbone().state.items()}
    torch.save({"format": "pixbench-pretrain", "version": version, "model": model}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="checkpoint without a valid version"):
        load(tmp_path / "x.pth")


def test_the_same_numbers_under_very_many_names(tmp_path: Path) -> None:
    half = torch.ones(1_000_000).half()
    names = {f"layer1.{i}.conv1.weight": half for i in range(2000)}
    path = saved(tmp_path / "x.pth", {"conv1.weight": half.view(1, -1, 1, 1), **names})
    with pytest.raises(UserError, match="the same numbers under many names"):
        load(path)


def test_a_stem_of_nothing(tmp_path: Path) -> None:
    shapes = {n: s for n, s in expected(BackboneSpec(50, 1 / 64)).items() if "running_" not in n}
    state = {name: torch.zeros(shape.shape) for name, shape in shapes.items()}
    path = saved(tmp_path / "x.pth", state | {"conv1.weight": torch.zeros(2**30, 3, 0, 7)})
    with pytest.raises(UserError, match="is not a 4-D kernel"):
        load(path)


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("backbone", "stride_in_1x1", None),
        ("backbone", "stride_in_1x1", "no"),
        ("backbone", "stride_in_1x1", {}),
        ("backbone", "stride_in_1x1", 10**9),
        ("backbone", "depth", [50]),
        ("backbone", "width", float("nan")),
        ("backbone", "width", 10**400),
        ("pixels", "mean", 5),
        ("pixels", "mean", [1.0, 2.0]),
        ("pixels", "std", [1.0, 2.0, float("inf")]),
        ("pixels", "order", "GBR"),
        ("pixels", "colour", "RGB"),
    ],
)
def test_what_a_file_of_ours_says_is_checked(
    tmp_path: Path, make_backbone: Callable, part: str, field: str, value: object
) -> None:
    backbone = make_backbone()
    about = {"backbone": backbone.spec.as_dict(), "pixels": vars(backbone.pixels)}
    path = saved(tmp_path / "x.pth", backbone.state, **{WEIGHTS_KEY: about})
    assert load(path).pixels == backbone.pixels
    about[part] = {**about[part], field: value}
    saved(path, backbone.state, **{WEIGHTS_KEY: about})
    with pytest.raises(UserError, match=r"does not describe its backbone correctly|but its weights are those of"):
        load(path)
    for found in inspection.inspect(path)["formats"].values():
        assert found["backbone"]["title"].startswith("none that can be converted")


def test_a_counter_that_is_no_number(tmp_path: Path, make_backbone: Callable) -> None:
    state = make_backbone().state | {"bn1.num_batches_tracked": torch.tensor(float("nan"))}
    with pytest.raises(UserError, match=r"bn1\.num_batches_tracked is float32, should be int64"):
        load(saved(tmp_path / "x.pth", state))


def test_two_entries_of_one_name(tmp_path: Path, make_backbone: Callable) -> None:
    state = {f"module.backbone.{name}": tensor for name, tensor in make_backbone().state.items()}
    content = {"student": state, "student/module.backbone.conv1.weight": state["module.backbone.conv1.weight"] + 1}
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"two entries that are both called student/module\.backbone\.conv1\.weight"):
        load(tmp_path / "x.pth")


def test_names_cannot_write_on_the_terminal(tmp_path: Path, make_backbone: Callable) -> None:
    beside = {"\x1b[2J\rverified in Detectron2": 1, "format": torch.zeros(2)}
    path = saved(tmp_path / "x.pth", make_backbone().state, **beside)
    assert read(path).beside == [r"\x1b[2J\rverified in Detectron2", "format"]
    assert "\x1b" not in inspection.report(inspection.inspect(path))
    for look in (load, inspection.inspect):
        with pytest.raises(UserError, match="a name that is too long or has line breaks"):
            look(saved(path, {f"x\n{name}": tensor for name, tensor in make_backbone().state.items()}))
    with pytest.raises(UserError, match=r"unknown \(a\\x1bb\)"):
        load(saved(path, make_backbone().state | {"a\x1bb": torch.zeros(1)}))


def test_the_record_takes_no_place_of_others(tmp_path: Path, checkpoint: Callable[..., Path]) -> None:
    source = checkpoint()
    kept = source.rename(tmp_path / "out.pth.json")
    whole = kept.read_bytes()
    with pytest.raises(UserError, match=r"out\.pth\.json is the source and would be overwritten"):
        convert(kept, tmp_path / "out.pth", "mmseg", check_forward=False)
    assert kept.read_bytes() == whole
    kept.rename(source)
    (tmp_path / "out.pth").write_text("before")
    (tmp_path / "out.pth.json").mkdir()
    with pytest.raises(UserError, match=r"out\.pth\.json is a folder"):
        convert(source, tmp_path / "out.pth", "mmseg", check_forward=False)
    assert (tmp_path / "out.pth").read_text() == "before"

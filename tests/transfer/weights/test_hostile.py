"""Files made by hand to run something, to read other memory, or to exhaust time and memory: one sentence each, and soon."""

from __future__ import annotations

import pickle
import signal
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from pixbench.errors import UserError
from pixbench.file_versions import WEIGHTS_KEY
from pretrain.models.backbone_spec import BackboneSpec
from transfer.weights import convert, inspection, load, read_arrays
from transfer.weights.containers import safe
from transfer.weights.expected_shapes import expected

pytestmark = pytest.mark.slow

P = b"\x80\x02"


@pytest.fixture(autouse=True)
def soon() -> Iterator[None]:
    """None of these may take long; ten seconds are for a busy machine."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def text(value: str) -> bytes:
    coded = value.encode()
    return b"X" + struct.pack("<I", len(coded)) + coded


def number(value: int) -> bytes:
    coded = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8b" + struct.pack("<i", len(coded)) + coded


def put(place: int) -> bytes:
    return b"r" + struct.pack("<I", place) + b"0"


def get(place: int) -> bytes:
    return b"j" + struct.pack("<I", place)


def pairs(depth: int, first: int = 0) -> bytes:
    """A list of twice the same list of twice the same list ...: short to write, endless to walk."""
    made = b"](K\x01K\x02e" + put(first)
    for place in range(first, first + depth):
        made += b"](" + get(place) * 2 + b"e" + put(place + 1)
    return made + get(first + depth)


def storage(kind: str, key: bytes, numel: bytes) -> bytes:
    return b"(" + text("storage") + f"ctorch\n{kind}Storage\n".encode() + key + text("cpu") + numel + b"tQ"


def tensor(kind: str, numel: int, shape: tuple[int, ...], strides: tuple[int, ...], key: str = "0") -> bytes:
    sizes = (b"(" + b"".join(map(number, part)) + b"t" for part in (shape, strides))
    of = storage(kind, text(key), number(numel))
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + of + b"K\x00" + b"".join(sizes) + b"\x89}tR"


def frozen(depth: int, first: int) -> bytes:
    made = b"(K\x01\x91" + put(first)
    for place in range(first, first + depth):
        made += b"(" + get(place) + b"K\x00\x86" + get(place) + b"K\x01\x86\x91" + put(place + 1)
    return made + get(first + depth)


def archive(path: Path, pickled: bytes, order: bytes = b"little", **records: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("x/data.pkl", pickled)
        made.writestr("x/byteorder", order)
        for key, content in records.items():
            made.writestr(f"x/data/{key.strip('_')}", content)
        made.writestr("x/version", b"3\n")
    return path


BF16 = (
    b"ctorch\nBFloat16Storage\n(K\x03"
    + text("|")
    + b"N"
    + text("bfloat16")
    + b"\x85}"
    + text("bfloat16")
    + b"ctorch\nint16\n"
)
MARKS = b"".join(b"(" + get(10 + k) * 2 + b"N(0t" + put(11 + k) for k in range(45))
KEYS = b"".join(number(k * (2**61 - 1)) + b"N" for k in range(60_000))
EMPTY = b"}" + text("_metadata") + b"Ns" + put(0)
EMPTY += b"".join(b"}" + text("a") + get(k) + b"s" + text("b") + get(k) + b"s" + put(k + 1) for k in range(60))
HOSTILE = {
    "a type changed under us": P + BF16 + number(1 << 34) + b"\x86sK\x02K\x01K\x00tb.",
    "a class changed under us": P
    + b"cargparse\nNamespace\nN}"
    + text("__new__")
    + b"ccollections\nOrderedDict\ns\x86b.",
    "a function changed under us": P + b"c_codecs\nencode\n}" + text("__defaults__") + b"Nsb.",
    "a mark taken off": P + b"}" + b"(" * 400_000 + b")" + b"N(0t" * 400_000 + b"K\x01s.",
    "hashed again and again": P + b")" + put(10) + MARKS + b"}" + get(55) + b"K\x01s.",
    "sets that are compared": b"\x80\x04"
    + frozen(40, 10)
    + frozen(40, 100)
    + b"}"
    + get(50)
    + b"K\x01s"
    + get(140)
    + b"K\x01s.",
    "told in a message": P + pairs(40) + b"Q.",
    "a type told in a message": P + b"cnumpy\ndtype\n(" + pairs(40) + b"tR.",
    "numbers of one hash": P + b"}(" + KEYS + b"u.",
    "a long number as a key": P + number(1 << 8_000_000) + put(1) + b"}(" + (get(1) + b"N") * 50_000 + b"u.",
    "a long tuple as a key": P + b"(" + b"K\x01" * 9_000 + b"t" + put(1) + b"}(" + (get(1) + b"N") * 50_000 + b"u.",
    "a text spelt again": P
    + (b"](c_codecs\nencode\n" + put(1) + b"(" + text("a" * 500_000) + text("latin1") + b"t" + put(2))
    + ((get(1) + get(2) + b"R") * 9_000 + b"e."),
    "sets made again": P
    + (b"](cbuiltins\nset\n" + put(1) + b"](" + b"".join(map(number, range(9_000))) + b"e\x85" + put(2))
    + ((get(1) + get(2) + b"R") * 9_000 + b"e."),
    "a version told in a message": pickle.dumps(safe._LEGACY, 2) + P + pairs(40) + b".",
    "a storage of two sizes": P
    + (storage("Float", text("0"), pairs(35)) + storage("Float", text("0"), pairs(35, 100)) + b"\x86."),
    "an author without end": P
    + b"}"
    + text("__author__")
    + pairs(40)
    + b"s"
    + text("model")
    + b"}"
    + text("x")
    + b"K\x01ss.",
    "notes without end": P
    + b"}"
    + text(WEIGHTS_KEY)
    + b"}"
    + text("sha256")
    + text("x")
    + b"s"
    + text("t")
    + pairs(40)
    + b"ss.",
    "weights without end": P
    + (
        b"}"
        + text(WEIGHTS_KEY)
        + b"}"
        + text("sha256")
        + text("x")
        + b"ss"
        + text("model")
        + b"}"
        + text("t")
        + pairs(40)
        + b"ss."
    ),
    "no entry ever": P + EMPTY + get(60) + b".",
    "long names": P + b"}" + text("k" * 1_000_000) + b"}(" + b"".join(number(i) + b"N" for i in range(9_000)) + b"us.",
    "a call with very much": P
    + (
        b"cargparse\nNamespace\n"
        + put(1)
        + b"("
        + b"N" * 9_000
        + b"t"
        + put(2)
        + b"]"
        + (get(1) + get(2) + b"Ra") * 90_000
    )
    + b".",
    "storages with very much": P
    + (
        b"("
        + text("storage")
        + b"ctorch\nFloatStorage\n"
        + text("0")
        + text("cpu")
        + b"K\x01"
        + b"N" * 9_000
        + b"t"
        + put(1)
    )
    + (b"]" + (get(1) + b"Qa") * 90_000 + b"."),
    "attributes with very much": P
    + (b"(" + b"N" * 9_000 + b"t" + put(1) + b"cargparse\nNamespace\n)R" + (get(1) + b"b") * 90_000 + b"."),
    "the same attributes of many": P
    + (b"}(" + b"".join(number(k) + b"N" for k in range(9_000)) + b"u" + put(1) + b"cargparse\nNamespace\n" + put(2))
    + (b"](" + (get(2) + b")R" + get(1) + b"b") * 90_000 + b"e."),
    "the same long text as a key": P
    + (
        text("a" * 900_000)
        + put(1)
        + text("a" * 900_000)
        + put(2)
        + b"}("
        + get(1)
        + b"N"
        + (get(2) + b"N") * 90_000
        + b"u."
    ),
    "a complex number of a text": P
    + (
        b"cbuiltins\ncomplex\n"
        + put(1)
        + text("0" * 900_000)
        + b"\x85"
        + put(2)
        + b"]("
        + (get(1) + get(2) + b"R") * 90_000
    )
    + b"e.",
    "names of storages without end": pickle.dumps(safe._LEGACY, 2)
    + (pickle.dumps(1001, 2) + pickle.dumps({}, 2) + pickle.dumps({}, 2))
    + (P + text("a" * 900_000) + put(1) + b"](" + get(1) * 90_000 + b"e."),
    "room for what is not there": b"\x80\x05\x96" + struct.pack("<Q", 2_000_000_000) + b".",
    "nothing but sets": b"\x80\x04" + b"\x8f" * 900_000 + b".",
    "nothing but dicts": P + b"}" * 900_000 + b".",
    "a number without end": P + b"}" + number(10**5000) + b"Ns.",
}


@pytest.mark.parametrize("pickled", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("zipped", [False, True])
def test_one_sentence_and_soon(tmp_path: Path, pickled: bytes, zipped: bool) -> None:
    path = archive(tmp_path / "x.pth", pickled) if zipped else tmp_path / "x.pkl"
    if not zipped:
        path.write_bytes(pickled)
    for look in (load, inspection.inspect):
        with pytest.raises(UserError):
            look(path)


def test_what_a_file_did_is_forgotten_with_it(tmp_path: Path) -> None:
    values = torch.tensor([1.0, 2.0, 3.0]).bfloat16()
    torch.save({"w": values}, tmp_path / "honest.pth")
    for pickled in HOSTILE.values():
        with pytest.raises(UserError):
            load(archive(tmp_path / "x.pth", pickled))
    found = safe.read(tmp_path / "honest.pth")["w"]["bfloat16"]
    assert np.array_equal(found, values.view(torch.uint16).numpy())


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
    with pytest.raises(UserError, match="larger than its stored data"):
        load(archive(tmp_path / "x.pth", P + far, _0=bytes(256)))


@pytest.mark.parametrize("version", [[[[1] * 60] * 60] * 60, 10**5000], ids=["long", "large"])
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
    assert read_arrays(path).beside == [r"\x1b[2J\rverified in Detectron2", "format"]
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


@pytest.mark.filterwarnings("ignore")
def test_honest_files_that_are_unusual(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"w": torch.ones(2), "e": torch.randn(5, 5)[5:, 2:]}, path)
    assert safe.read(path)["e"].shape == torch.load(path, weights_only=True)["e"].shape == (0, 3)
    torch.save({"w": torch.ones(2), "b": bytearray()}, path, _use_new_zipfile_serialization=False, pickle_protocol=3)
    assert safe.read(path)["b"] == torch.load(path, weights_only=True)["b"] == b""
    path.write_bytes(pickle.dumps({"z": np.zeros((0, 3))}, 2))
    assert safe.read(path)["z"].shape == (0, 3)
    noted = OrderedDict(a=1)
    noted.note = 5
    torch.save(noted, path)
    assert safe.read(path) == {"a": 1}
    torch.save({"t": tuple(range(20_000))}, path)
    assert safe.read(path)["t"] == tuple(range(20_000))
    torch.jit.save(torch.jit.trace(torch.nn.Linear(1, 1), torch.zeros(1)), path)
    with pytest.raises(UserError, match="asks for TorchScript's code"):
        safe.read(path)

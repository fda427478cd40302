"""Images of more than 8 bits are scaled by their range."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pixbench.errors import UserError
from pretrain import checkpoint
from pretrain.config import from_dict, parse
from pretrain.data import pixel_range, pixels
from pretrain.data.pixel_range import FoundRange, find_range
from pretrain.data.pixels import decode, to_8_bits
from pretrain.data.sources import open_source
from pretrain.resume import list_images

RAMP = np.linspace(0, 65535, 48 * 40).astype(np.uint16).reshape(40, 48)


def save(values: np.ndarray, path: Path, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if mode:
        image = Image.frombytes(mode, image.size, values.astype(">u2" if mode.endswith("B") else "<u2").tobytes())
    image.save(path)
    return path


def grey(path: Path, pixel_range: tuple[float, float] | None = None) -> np.ndarray:
    image = decode(path.read_bytes(), str(path), pixel_range)
    assert image.mode == "RGB"
    return np.asarray(image)[..., 0]


def range_of(root: Path, names: list[str]) -> FoundRange | None:
    (root / "list.txt").write_text("\n".join(names))
    return find_range(open_source(root / "list.txt"))


@pytest.mark.parametrize(("name", "mode"), [("a.png", None), ("a.tif", None), ("b.tif", "I;16B"), ("c.tif", "I;16L")])
def test_16_bits_become_their_upper_8(tmp_path: Path, name: str, mode: str | None) -> None:
    path = save(RAMP, tmp_path / name, mode)
    assert (grey(path) == RAMP >> 8).all()
    assert (grey(path, (0, 65535)) == RAMP >> 8).all()


def test_whole_numbers_of_other_ranges() -> None:
    values = np.arange(4096, dtype=np.uint16)
    assert (to_8_bits(values, 0, 4095) == values >> 4).all()
    signed = np.arange(-1000, 401, dtype=np.int32)
    assert (to_8_bits(signed, -1000, 400) == (signed + 1000) * 256 // 1401).all()
    assert to_8_bits(np.array([-5, 0, 100, 200]), 0, 100).tolist() == [0, 0, 253, 253]
    assert to_8_bits(np.array([0, 2**32 - 1]), 0, 2**32 - 1).tolist() == [0, 255]


def test_floats_are_rounded() -> None:
    values = np.array([-1, 0, 0.25, 0.5, 1, 7], np.float32)
    assert to_8_bits(values, 0, 1).tolist() == [0, 0, 64, 128, 255, 255]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (np.array([[0, 255]], np.uint16), (0, 255)),
        (np.array([[0, 1000]], np.uint16), (0, 1023)),
        (np.array([[3, 4000]], np.uint16), (0, 4095)),
        (np.array([[0, 4096]], np.uint16), (0, 16383)),
        (np.array([[0, 60000]], np.uint16), (0, 65535)),
        (np.array([[0, 70000]], np.int32), (0, 2**24 - 1)),
        (np.array([[-1000, 3000]], np.int32), (-1000, 3000)),
        (np.array([[0.0, 0.9]], np.float32), (0, 1)),
        (np.array([[0.0, 200.0]], np.float32), (0, 255)),
        (np.array([[0.0, 9000.0]], np.float32), (0, 65535)),
        (np.array([[-0.5, 0.5]], np.float32), (-0.5, 0.5)),
    ],
)
def test_the_range_is_found(tmp_path: Path, values: np.ndarray, found: tuple[float, float]) -> None:
    save(values, tmp_path / "wide.tif")
    save(np.zeros((2, 2), np.uint8), tmp_path / "usual.png")
    (tmp_path / "broken.png").write_bytes(b"")
    names = ["broken.png", "usual.png", "wide.tif"]
    seen = range_of(tmp_path, names)
    assert seen is not None
    assert (seen.low, seen.high, seen.name) == (*found, "wide.tif")
    assert range_of(tmp_path, names[:2]) is None
    assert "e.g. wide.tif" in str(seen)
    assert "becomes 0..255" in str(seen)


def test_a_constant_image_has_a_range(tmp_path: Path) -> None:
    save(np.full((2, 2), -5, np.int32), tmp_path / "a.tif")
    seen = range_of(tmp_path, ["a.tif"])
    assert seen is not None
    assert seen.low < seen.high


def test_the_sample_is_spread_over_all_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_range, "SAMPLE", 4)
    names = [save(np.array([[i]], np.uint16), tmp_path / f"{i:04}.png").name for i in range(0, 1200, 60)]
    seen = range_of(tmp_path, names)
    assert seen is not None
    assert seen.high == 1023  # of 0, 300, 600, 900


def test_what_has_no_range_is_refused(tmp_path: Path) -> None:
    floats = save(np.array([[0.0, 0.5]], np.float32), tmp_path / "f.tif")
    with pytest.raises(UserError, match=r"f\.tif is of mode F, .* data\.pixel_range"):
        grey(floats)
    with pytest.raises(UserError, match="is of mode I,"):
        grey(save(np.array([[0, 5]], np.int32), tmp_path / "i.tif"))
    save(RAMP, tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png \(mode I;16\) and f\.tif \(mode F\) hold whole numbers and floats"):
        range_of(tmp_path, ["a.png", "f.tif"])
    for bad in (np.nan, np.inf):
        path = save(np.array([[0.0, bad]], np.float32), tmp_path / "n.tif")
        assert range_of(tmp_path, ["n.tif"]) is None  # its turn comes later
        with pytest.raises(UserError, match=r"n\.tif holds NaN or infinity"):
            grey(path, (0, 1))


def test_what_is_outside_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pixels, "_said", [])
    path = save(RAMP, tmp_path / "a.png")
    for _ in range(2):
        assert grey(path, (0, 4095)).max() == 255
    assert capfd.readouterr().err.count("a.png (mode I;16) has values from 0 to 65535; what is outside") == 1


def settings(root: Path, **data: Any) -> dict[str, Any]:
    return {"method": {"name": "pixpro"}, "data": {"root": str(root), **data}, "out": str(root / "run")}


def test_a_run_keeps_its_range(tmp_path: Path) -> None:
    save(RAMP, tmp_path / "train" / "a" / "0.png")
    config, source, said = list_images(from_dict(settings(tmp_path)), None)
    assert config.data.pixel_range == source.pixel_range == (0, 65535)
    assert said == ["16-bit pictures (mode I;16, e.g. a/0.png): 0..65535 becomes 0..255 (data.pixel_range)"]
    assert from_dict(config.as_dict()) == config
    save(RAMP >> 8, tmp_path / "train" / "a" / "0.png")
    config, source, said = list_images(from_dict(settings(tmp_path)), {"config": config.as_dict()})
    assert config.data.pixel_range == source.pixel_range == (0, 65535)
    config, source, said = list_images(from_dict(settings(tmp_path, pixel_range=[0, 1000])), None)
    assert (source.pixel_range, said) == ((0, 1000), [])
    given = parse(["--method.name=pixpro", "--data.pixel_range", "[0, 4095]"])
    assert given.data.pixel_range == (0, 4095)
    checkpoint_of_8_bits = {"config": from_dict(settings(tmp_path)).as_dict(), "images": "abc"}
    checkpoint.check_same_run(
        checkpoint_of_8_bits, from_dict(settings(tmp_path, pixel_range=[0, 9])).as_dict(), "abc", tmp_path
    )
    before, now = (from_dict(settings(tmp_path, pixel_range=[0, high])).as_dict() for high in (9, 8))
    with pytest.raises(UserError, match=r"data\.pixel_range \(checkpoint: \(0\.0, 9\.0\), now: \(0\.0, 8\.0\)\)"):
        checkpoint.check_same_run({"config": before, "images": "abc"}, now, "abc", tmp_path)
    sentence = r"^data\.pixel_range is .*; it must be two numbers, the smaller one first, for example \[0, 4095\]$"
    for wrong in ([5, 5], [9, 1], [0, float("inf")], [float("nan"), 1], [1], [1, 2, 3], "abc", 7):
        with pytest.raises(UserError, match=sentence):
            from_dict(settings(tmp_path, pixel_range=wrong))
    for word in ("abc", "[1]", "[nan, 3]", "[.nan, 3]", "[9, 1]"):
        with pytest.raises(UserError, match=sentence):
            parse(["--method.name=pixpro", "--data.pixel_range", word])

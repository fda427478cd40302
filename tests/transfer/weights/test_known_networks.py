"""Networks that are recognised: the table against timm, files of all kinds, and the maps of the authors' own code."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

from pixbench.errors import UserError
from pretrain.models.named_spec import NamedSpec
from transfer.weights import inspection, load, read
from transfer.weights.contents import Contents
from transfer.weights.file_format import Pixels, formats
from transfer.weights.known_networks import recognise
from transfer.weights.models.networks import build_network
from transfer.weights.sources import Source

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "vits.npz")
State = dict[str, Tensor]
TINY = "embed_dim: 32, depth: 4, num_heads: 2"
AUTHORS = {
    "dinov2": f"timm:vit_small_patch14_dinov2 {{{TINY}}}",
    "dinov2_registers": f"timm:vit_small_patch14_reg4_dinov2 {{{TINY}}}",
    "dinov2_gated_chunked": f"timm:vit_giant_patch14_dinov2 {{{TINY}, mlp_ratio: 5.5}}",
    "franca": f"timm:vit_giant_patch14_dinov2 {{{TINY}, mlp_ratio: 5.5}}",
    "dinov3": f"timm:vit_small_patch16_dinov3_qkvb {{{TINY}}}",
    "dinov3_gated": f"timm:vit_small_plus_patch16_dinov3_qkvb {{{TINY}}}",
}
"""Networks whose maps were recorded with the authors' code -> the same of timm."""


def authors_state(name: str) -> State:
    """The weights of the recording, see tests/golden/README.md."""
    made = {}
    for key, shape in json.loads(str(GOLDEN[f"{name}/names"])).items():
        if f"{name}/{key}" in GOLDEN:
            made[key] = torch.from_numpy(GOLDEN[f"{name}/{key}"])
            continue
        drawn = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(int(np.prod(shape))) * 0.2
        drawn += key.endswith(("norm1.weight", "norm2.weight", "norm.weight", "gamma"))
        made[key] = torch.from_numpy(drawn.reshape(shape)).float()
    return made


def tokens_of(path: Path, words: str | None = None) -> Tensor:
    """The patch tokens (N, C) of the network in a file for the image of the recording."""
    backbone = load(path, format_name=words)
    network: Any = build_network(backbone.spec).eval()
    network.load_state_dict(backbone.state)
    side = 42 if backbone.spec.as_dict()["name"].count("patch14") else 48
    image = torch.from_numpy(np.random.RandomState(900).standard_normal((1, 3, side, side))).float()
    with torch.no_grad():
        return network(image)[0].flatten(1).T


@pytest.mark.parametrize("name", AUTHORS)
def test_the_maps_are_those_of_the_authors_code(name: str, tmp_path: Path) -> None:
    state = {f"module.backbone.{key}": x for key, x in authors_state(name).items()}
    torch.save({"teacher": state | {"dino_head.last_layer.weight_g": torch.ones(3)}}, tmp_path / "it.pth")
    wanted = torch.from_numpy(GOLDEN[f"{name}/tokens"])
    torch.testing.assert_close(tokens_of(tmp_path / "it.pth", AUTHORS[name]), wanted, rtol=1e-4, atol=1e-5)
    other = AUTHORS[name].replace("num_heads: 2", "num_heads: 4")
    if name.startswith("dinov3"):  # the periods of its positions show the heads
        with pytest.raises(UserError, match="other periods of rotary positions"):
            load(tmp_path / "it.pth", format_name=other)
    else:
        assert (tokens_of(tmp_path / "it.pth", other) - wanted).abs().max() > 0.01


def test_a_dinov3_with_other_positions_or_a_bias_of_keys_is_refused(tmp_path: Path) -> None:
    state = authors_state("dinov3")
    changes: dict[str, State] = {
        "other periods of rotary positions": {"rope_embed.periods": state["rope_embed.periods"] * 1.01},
        "biases that .* does not have": {"blocks.2.attn.qkv.bias_mask": torch.ones(96)},
    }
    for says, change in changes.items():
        torch.save(state | change, tmp_path / "it.pth")
        with pytest.raises(UserError, match=says):
            load(tmp_path / "it.pth", format_name=AUTHORS["dinov3"])
    rounded = {"rope_embed.periods": state["rope_embed.periods"].bfloat16()}
    torch.save(state | rounded, tmp_path / "it.pth")
    assert "rounded to bfloat16" in " ".join(read(tmp_path / "it.pth", format_name=AUTHORS["dinov3"]).notes)


RENAMED = {
    "reg_token": "register_tokens", "gamma_1": "ls1.gamma", "gamma_2": "ls2.gamma", "mlp.fc1_g.": "mlp.w1.",
    "mlp.fc1_x.": "mlp.w2.",
}  # fmt: skip
"""timm's name -> the authors', for all networks; written without the code that is tested."""


def authors(state: State, heads: int, gated: bool) -> State:
    """The weights of a network of timm by its authors' names."""
    made, width = dict(state), state["patch_embed.proj.weight"].shape[0]
    if "pos_embed" not in made:
        made["storage_tokens"] = made.pop("reg_token")
        made["rope_embed.periods"] = 100 ** (torch.arange(width // heads // 4) / (width // heads // 4))
        for at in [name.removesuffix("qkv.weight") for name in state if name.endswith("qkv.weight")]:
            query, value = (made.pop(at + part, None) for part in ("q_bias", "v_bias"))
            made[f"{at}qkv.bias"] = torch.zeros(3 * width) if query is None else torch.cat([query, 0 * query, value])
    elif "reg_token" in made:
        made["pos_embed"] = torch.cat([torch.ones(1, 1, width), state["pos_embed"]], 1)
        made["cls_token"] = made["cls_token"] - 1
    if gated:
        made = {n.replace("mlp.fc1.", "mlp.w12.").replace("mlp.fc2.", "mlp.w3."): x for n, x in made.items()}
    for ours, theirs in RENAMED.items():
        made = {n.replace(ours, theirs): x for n, x in made.items()}
    return made | {"mask_token": torch.ones(1, width)}


ROWS = [(fmt.name, row) for fmt in formats().values() for row in fmt.networks]


@pytest.mark.parametrize(
    ("fmt", "row"),
    [pytest.param(*row, marks=[pytest.mark.slow] * (row[1]["depth"] > 12)) for row in ROWS],
    ids=lambda value: value if isinstance(value, str) else f"{value['timm']}-{value['width']}",
)
def test_the_table_says_what_timms_networks_are(fmt: str, row: dict[str, Any]) -> None:
    """And files of these networks are recognised by the authors' names and by timm's, if their heads are known."""
    with torch.device("meta"):
        net: Any = timm.create_model(row["timm"], num_classes=0, **row.get("options", {}))
    shapes, mlp, gated = net.state_dict(), net.blocks[0].mlp, row.get("gated", False)
    assert shapes["patch_embed.proj.weight"].shape == (row["width"], 3, row["patch"], row["patch"])
    assert (len(net.blocks), net.blocks[0].attn.num_heads) == (row["depth"], row["heads"])
    first = mlp.fc1_g if hasattr(mlp, "fc1_g") else mlp.fc1
    packed = 2 if gated and first is not getattr(mlp, "fc1_g", None) else 1
    assert (first.out_features, mlp.fc2.in_features) == (packed * row["inner"], row["inner"])
    assert shapes.get("reg_token", torch.ones(1, 0)).shape[1] == row.get("registers", 0)
    if "cells" in row and "options" not in row:
        assert net.patch_embed.grid_size == (row["cells"][0],) * 2
    cells = row.get("cells", [14])[0] ** 2 + ("reg_token" not in shapes)
    sizes = {n: (1, cells, row["width"]) if n == "pos_embed" else x.shape for n, x in shapes.items()}
    state = {n: torch.zeros(1).expand(size) for n, size in sizes.items()}
    for names in (state, authors(state, row["heads"], gated)):
        found = recognise(Contents({"teacher": names}), Source("it", ()), None, None, None)
        if fmt == "dinov3_sat" and "rope_embed.periods" in names:
            more = names | {"local_cls_norm.weight": torch.zeros(row["width"])}
            found = recognise(Contents(more), Source("it", ()), None, None, None)
            assert found == (formats()[fmt], NamedSpec("timm:vit_large_patch16_dinov3"))
        elif fmt == "huggingface_vit":
            assert found is None
        elif fmt != "dinov3_sat":
            assert found == (formats()[fmt], NamedSpec(f"timm:{row['timm']}", row.get("options", {})))


@pytest.mark.parametrize(
    ("fmt", "name"), [("dinov2", "vit_small_patch14_reg4_dinov2"), ("dinov3", "vit_small_patch16_dinov3_qkvb")]
)
def test_a_file_of_the_authors_needs_no_name(fmt: str, name: str, tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = {n: x.shape for n, x in timm.create_model(name, num_classes=0).state_dict().items()}
    state = {n: torch.full(shape, i % 17 - 8.0) for i, (n, shape) in enumerate(shapes.items())}
    written = {f"backbone.{n}": x for n, x in authors(state, 6, False).items()}
    torch.save({"teacher": written}, tmp_path / "it.pth")
    found = read(tmp_path / "it.pth")
    assert (found.format, found.backbone.spec, found.backbone.pixels) == (fmt, NamedSpec(f"timm:{name}"), Pixels())
    assert found.backbone.state.keys() == {f"net.{n}" for n in state}
    assert all(torch.equal(found.backbone.state[f"net.{n}"], x) for n, x in state.items())
    assert "such as registers, cannot be seen" in " ".join(found.notes)
    seen = inspection.inspect(tmp_path / "it.pth")
    assert "note     the network was recognised by names and shapes" in inspection.report(seen)
    about = seen["formats"]
    assert {key: (about[fmt][key], about[fmt]["backbone"]["name"]) for key in ("converted", "unknown")} == {
        "converted": (len(written), f"timm:{name}"),  # as in the file: timm is not asked
        "unknown": ([], f"timm:{name}"),
    }


def test_what_is_not_published_is_refused_with_the_way_on(tmp_path: Path) -> None:
    torch.save(authors_state("dinov2"), tmp_path / "it.pth")
    with pytest.raises(UserError, match=r"LayerScale.*(?s:.)*--from timm:vit_small_patch14_dinov2"):
        load(tmp_path / "it.pth")
    with pytest.raises(UserError, match=r"not of the format dinov2 \(.*\), or of none of its sizes.*--from timm:NAME"):
        load(tmp_path / "it.pth", format_name="dinov2")


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (
            "backbone.encoder.blocks.0.residual1.fn.rope.freqs",
            "rotary positions of their own, as in CAPI and no network of timm",
        ),
        (
            "blocks.0.attn.relative_position_bias_table",
            "tables of relative positions, which are for one size of images",
        ),
    ],
)
def test_networks_that_cannot_be_taken_are_named(key: str, says: str, tmp_path: Path) -> None:
    """CAPI's names are those of facebookresearch/capi, model.py."""
    state = {"backbone.registers": torch.ones(1, 16, 8), "backbone.patch_embed.weight": torch.ones(8, 3, 14, 14)}
    torch.save(state | {key: torch.ones(2, 4)}, tmp_path / "it.pth")
    with pytest.raises(UserError, match=says):
        load(tmp_path / "it.pth")


def test_a_network_for_satellite_images_has_its_pixels() -> None:
    sat = formats()["dinov3_sat"]
    assert sat.pixels.mean == pytest.approx([255 * value for value in (0.430, 0.411, 0.296)])
    assert sat.pixels.std == pytest.approx([255 * value for value in (0.213, 0.156, 0.143)])
    assert sat.networks == tuple(
        row for row in formats()["dinov3"].networks if row["width"] == 1024 and "gated" not in row
    )


def test_a_file_is_inspected_without_importing_timm(tmp_path: Path) -> None:
    """Importing it takes many times as long as reading the names in a file."""
    with torch.device("meta"):
        shapes = timm.create_model("vit_small_patch14_dinov2", num_classes=0).state_dict()
    state = {name: torch.zeros(x.shape) for name, x in shapes.items()}
    torch.save({**state, "mask_token": torch.zeros(1, 384)}, tmp_path / "it.pth")
    code = (
        "import sys\nfrom transfer.weights import inspection\n"
        f"found = inspection.inspect({str(tmp_path / 'it.pth')!r})\n"
        "assert found['formats']['dinov2']['backbone']['name'] == 'timm:vit_small_patch14_dinov2', found\n"
        "print(*(name for name in ('timm', 'transformers', 'scipy.stats') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == ""


def test_a_file_with_two_such_networks_is_described_with_the_way_to_choose(tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = timm.create_model("vit_small_patch14_dinov2", num_classes=0).state_dict()
    state = {name: torch.zeros(x.shape) for name, x in shapes.items()}
    both = {f"{part}.{name}": x for part in ("student", "teacher") for name, x in state.items()}
    torch.save(both, tmp_path / "it.pth")
    title = inspection.inspect(tmp_path / "it.pth")["formats"]["dinov2"]["backbone"]["title"]
    assert "holds this network several times; choose one with" in title
    assert "--prefix teacher." in title
    chosen = inspection.inspect(tmp_path / "it.pth", prefix="teacher.")["formats"]["dinov2"]
    assert chosen["backbone"]["title"] == "timm:vit_small_patch14_dinov2"
    assert chosen["dropped"] == {"beside the backbone": len(state)}

"""Recognise networks of timm in files that do not name them: by the numbers that weights show, and by config.json beside them.

No weight shows how many heads a vision transformer has. So names and shapes must be those of a published network, whose heads
are known (`Format.networks`), or `transformers`' config.json must say it. Names and shapes show no more: a DINOv2 with
registers whose registers were taken out of the file is taken for DINOv2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from pixbench.errors import UserError
from pixbench.file_versions import WEIGHTS_KEY
from pretrain.models.named_spec import NamedSpec
from transfer.weights import huggingface_vit
from transfer.weights.contents import Contents
from transfer.weights.declarations import spec_in, spec_in_file
from transfer.weights.file_format import Format, formats
from transfer.weights.recognition import named_spec_in
from transfer.weights.sources import Source
from transfer.weights.stand_ins import entries
from transfer.weights.tensors import as_tensor

_PATCHES = re.compile(
    r"^(.*?)(?:patch_embed\.proj|embeddings\.patch_embeddings(?:\.projection)?)\.weight$", re.MULTILINE
)
_CHUNKED = re.compile(r"^blocks\.\d+\.(\d+\.(?:norm|attn|ls|mlp))")


_TWICE = (1024, 4096)
"""Widths of DINOv3's networks that were trained on photographs and, with other pixels, on satellite images."""


class Known(NamedTuple):
    """A network that was recognised."""

    format: Format
    spec: NamedSpec


@dataclass(frozen=True)
class Shown:
    """What the weights of a vision transformer show."""

    width: int
    depth: int
    patch: int
    inner: int
    """Width inside its MLPs."""
    gated: bool = False
    """Whether its MLPs are gated (SwiGLU)."""
    registers: int = 0
    cells: int = 0
    """Side in patches of the images for which its positions were learnt; 0 without learnt positions."""


def recognise(
    contents: Contents, source: Source, wanted: str | None, container: str | None, prefix: str | None
) -> Known | None:
    """Return the network in a file and its format, or None if it is none of those that are known.

    Args:
        contents: What the file holds.
        source: Where it comes from, for what is declared beside it.
        wanted: Name of the format that the user chose, if any.
        container: Where the user says that the weights are, as for `transfer.weights.read`, and so ``prefix``.
        prefix: See ``container``.

    Raises:
        UserError: config.json declares what timm's network of this kind does not have.
    """
    found: list[Known] = []
    for place in contents.containers if container is None else [container]:
        table = contents.table(place)
        for under in _PATCHES.findall(table.text):
            if prefix is not None and under != prefix.removesuffix(".") + "." * bool(prefix):
                continue
            weights = {
                key.removeprefix(under): x
                for key, value in table.weights.items()
                if key.startswith(under) and (x := as_tensor(value)) is not None
            }
            if known := _network(contents, source, weights, wanted):
                found.append(known)
    return found[0] if found and all(known == found[0] for known in found) else None


def flat(name: str) -> str:
    """Return a name without the number of the chunk of blocks that FSDP wrapped, as in "blocks.1.7.norm1.weight"."""
    return _CHUNKED.sub(r"blocks.\1", name)


def notes(source: Source, fmt: Format) -> list[str]:
    """Return what a user should know of a network that was recognised in a file of ``fmt``, one sentence each."""
    found = []
    if fmt.networks and fmt.name != "huggingface_vit":
        found.append(
            "the network was recognised by names and shapes; whether something was taken out of the file, such as registers, "
            "cannot be seen"
        )
    kind = huggingface_vit.MODELS.get(source.config.get("model_type", "")) if fmt.name == "huggingface_vit" else None
    if kind and source.config.get("layer_norm_eps", kind.settings["layer_norm_eps"][0]) == 1e-12:
        found.append("config.json says layer_norm_eps 1e-12; the network takes 1e-6, as timm and the authors' code do")
    if kind and kind.format == "dinov3" and source.pixels is None:
        found.append(
            "no preprocessor_config.json says which pixels it takes; taken are those of ImageNet, but DINOv3's networks for "
            "satellite images (SAT-493M) have others"
        )
    return found


def _network(contents: Contents, source: Source, weights: Mapping[str, Tensor], wanted: str | None) -> Known | None:
    translated = huggingface_vit.is_huggingface("\n".join(weights))
    if translated:
        fmt = formats()["huggingface_vit"]
        if named_spec_in(spec_in(entries(contents.entries.get(WEIGHTS_KEY)) or {})):  # written by PixBench
            spec = spec_in_file(contents, fmt, {}, source.name)
            return Known(fmt, spec) if isinstance(spec, NamedSpec) and wanted in (None, fmt.name) else None
        weights = huggingface_vit.as_authors_name_it(weights)
    named = {flat(name): x for name, x in weights.items()}
    shown = shown_by(named)
    if shown is None:
        return None
    declared = source.config.get("model_type", "")
    if translated and wanted in (None, "huggingface_vit") and declared in huggingface_vit.MODELS:
        return Known(formats()["huggingface_vit"], _declared(source, shown, named))
    text = "\n".join(named)
    for fmt in formats().values():
        if not fmt.networks or fmt.name == "huggingface_vit" or wanted not in (None, fmt.name):
            continue
        if translated and fmt.name == "dinov3" and shown.width in _TWICE and source.pixels is None:
            continue
        has = [bool(re.search(rf"^(?:{pattern})$", text, re.MULTILINE)) for pattern in fmt.required + fmt.forbidden]
        if has == [True] * len(fmt.required) + [False] * len(fmt.forbidden):
            for row in fmt.networks:
                if _of(row, shown.cells) == shown and shown.cells in row.get("cells", [0]):
                    return Known(fmt, _spec(row, shown, row["heads"], named))
    return None


def shown_by(named: Mapping[str, Tensor]) -> Shown | None:
    """Return what weights by the authors' or timm's names show; None if they are no plain stack of blocks."""
    patches, blocks = named.get("patch_embed.proj.weight"), set(re.findall(r"(?m)^blocks\.(\d+)\.", "\n".join(named)))
    last = next((named[n] for leaf in ("w3", "fc2") if (n := f"blocks.0.mlp.{leaf}.weight") in named), None)
    if patches is None or patches.dim() != 4 or last is None or last.dim() != 2:
        return None
    if blocks != {str(number) for number in range(len(blocks))}:
        return None
    first = named.get("blocks.0.mlp.fc1.weight")
    gated = first is None or len(first) == 2 * last.shape[1]
    tokens = next((named[n] for n in ("register_tokens", "storage_tokens", "reg_token") if n in named), None)
    registers = 0 if tokens is None or tokens.dim() != 3 else tokens.shape[1]
    positions, cells = named.get("pos_embed"), 0
    if positions is not None:
        length = positions.shape[1] - ("reg_token" not in named) if positions.dim() == 3 else 0
        cells = round(max(length, 0) ** 0.5)
        if not cells or cells**2 != length:
            return None
    return Shown(len(patches), len(blocks), patches.shape[-1], last.shape[1], gated, registers, cells)


def _of(row: Mapping[str, Any], cells: int) -> Shown:
    """Return what the weights of a row of `Format.networks` show, with positions for images of ``cells``² patches."""
    return Shown(
        **{key: value for key, value in row.items() if key not in ("timm", "heads", "cells", "options")}, cells=cells
    )


def _declared(source: Source, shown: Shown, named: Mapping[str, Tensor]) -> NamedSpec:
    """Return the network that config.json declares: a published one, or one of its kind with other numbers."""
    config, kind = source.config, huggingface_vit.MODELS[source.config["model_type"]]
    for key, allowed in kind.settings.items():
        if (value := config.get(key, allowed[0])) not in allowed:
            raise UserError(
                f"{source.name} has {key} {value!r} in its config.json, where timm's network has {allowed[0]!r}; it cannot be "
                "converted"
            )
    held = {"hidden_size": shown.width, "num_hidden_layers": shown.depth, "patch_size": shown.patch}
    for key, number in (held | {"num_register_tokens": shown.registers}).items():
        if (value := config.get(key, number)) != number:
            raise UserError(
                f"{source.name} has {key} {value!r} in its config.json, but its weights have {number}; download it again"
            )
    if kind.format == "dinov3" and (config.get("hidden_act") == "silu") != shown.gated:
        raise UserError(
            f"{source.name} has hidden_act {config.get('hidden_act')!r} in its config.json, where timm's network has "
            f"{'silu' if shown.gated else 'gelu'!r}; it cannot be converted"
        )
    heads = config.get("num_attention_heads")
    if type(heads) is not int or not 1 <= heads <= shown.width or shown.width % heads:
        raise UserError(f"{source.name} has no valid num_attention_heads in its config.json; write it again")
    rows = [row for row in formats()[kind.format].networks if row.get("gated", False) == shown.gated]
    alike = [row for row in rows if bool(row.get("registers")) == bool(shown.registers)] or rows
    if not alike:
        raise UserError(f"{source.name} holds a ViT with gated MLPs, which timm does not have; it cannot be converted")
    exact = (row for row in alike if (_of(row, shown.cells), row["heads"]) == (shown, heads))
    return _spec(next(exact, alike[0]), shown, heads, named)  # the first have no options


def _spec(row: Mapping[str, Any], shown: Shown, heads: int, named: Mapping[str, Tensor]) -> NamedSpec:
    """Return timm's network of ``row``, with what is other there as options."""
    name, usual, dinov3 = row["timm"], _of(row, shown.cells), "_dinov3" in row["timm"]
    options = dict(row.get("options", {}))
    if (usual, row["heads"]) != (shown, heads):
        packed = 2 if shown.gated and not dinov3 else 1  # both halves of a gated layer are one there
        numbers = {
            "embed_dim": (shown.width, usual.width),
            "depth": (shown.depth, usual.depth),
            "num_heads": (heads, row["heads"]),
            "patch_size": (shown.patch, usual.patch),
            "num_reg_tokens" if dinov3 else "reg_tokens": (shown.registers, usual.registers),
            "mlp_ratio": (packed * shown.inner / shown.width, packed * usual.inner / usual.width),
        }
        options = {key: value for key, (value, before) in numbers.items() if value != before}
    if dinov3 and any(_has_bias(key, x) for key, x in named.items()):
        name += "_qkvb"
    return NamedSpec(f"timm:{name}", options)


def _has_bias(name: str, tensor: Tensor) -> bool:
    """Whether it is the bias of a query, key or value that timm's network without them would lose."""
    return name.endswith(".attn.q_bias") or (name.endswith(".attn.qkv.bias") and bool(tensor.any()))

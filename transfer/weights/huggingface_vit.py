"""Names of vision transformers in `transformers`, and those of their authors, in both directions.

Sources: `transformers/models/{vit,vit_msn,vit_mae,dinov2,dinov2_with_registers,dinov3_vit}/modeling_*.py`; the authors' names
are those of timm's ViT and of DINOv2 and DINOv3 (facebookresearch). Names are as `transformers` writes them into files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from transfer.weights.naming import Naming, same

_FIRST = re.compile(r"^(.*?)embeddings\.patch_embeddings\.(?:projection\.)?weight$", re.MULTILINE)
_PARTS = {name: f"embeddings.{name}" for name in ("cls_token", "mask_token", "register_tokens")} | {
    "pos_embed": "embeddings.position_embeddings"
}
_ENDS = {"patch_embed.proj": "embeddings.patch_embeddings.projection", "norm": "layernorm"}
_SPLIT = {"attn.q": "query", "attn.k": "key", "attn.v": "value"}
_ATTENTION = {name: f"attention.attention.{theirs}" for name, theirs in _SPLIT.items()} | {
    "attn.proj": "attention.output.dense"
}
_NORMS = same(("norm1", "norm2"))
_SCALES = {f"ls{i}.gamma": f"layer_scale{i}.lambda1" for i in (1, 2)}


def _dinov3(mlp: dict[str, str]) -> Naming:
    attention = {f"attn.{part}": f"attention.{part}_proj" for part in "qkv"} | {"attn.proj": "attention.o_proj"}
    ends, parts = {"patch_embed.proj": "embeddings.patch_embeddings", "norm": "norm"}, dict(_PARTS)
    parts["storage_tokens"] = parts.pop("register_tokens")
    return Naming(ends, {"blocks": "layer"}, _NORMS | attention | mlp, parts, _SCALES)


NAMES = {
    "vit": Naming(
        _ENDS,
        {"blocks": "encoder.layer"},
        _ATTENTION
        | {"norm1": "layernorm_before", "norm2": "layernorm_after"}
        | {"mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"},
        _PARTS,
    ),
    "dinov2": Naming(
        _ENDS,
        {"blocks": "encoder.layer"},
        _NORMS | _ATTENTION | same(("mlp.fc1", "mlp.fc2")) | {"mlp.w12": "mlp.weights_in", "mlp.w3": "mlp.weights_out"},
        _PARTS,
        _SCALES,
    ),
    "dinov3": _dinov3({"mlp.fc1": "mlp.up_proj", "mlp.fc2": "mlp.down_proj"}),
    "dinov3, gated": _dinov3({"mlp.w1": "mlp.gate_proj", "mlp.w2": "mlp.up_proj", "mlp.w3": "mlp.down_proj"}),
}
"""Kind of network -> names of the authors ("canonical" here), with query, key and value still apart, and of `transformers`."""


class Model(NamedTuple):
    """What `transformers` calls a kind of network in config.json, and what must stand there for timm's to be the same."""

    format: str
    """The format with the networks of timm of this kind."""
    settings: Mapping[str, tuple[Any, ...]]
    """Key -> values that timm's networks have; the first is the one of a file that does not say it."""


_ALWAYS: dict[str, tuple[Any, ...]] = {"num_channels": (3,)}
_VIT = _ALWAYS | {"hidden_act": ("gelu",), "qkv_bias": (True,), "layer_norm_eps": (1e-12, 1e-6)}
_DINOV2 = _ALWAYS | {"hidden_act": ("gelu",), "qkv_bias": (True,), "layer_norm_eps": (1e-6,)}
_DINOV3 = _ALWAYS | {
    "hidden_act": ("gelu", "silu"),
    "layer_norm_eps": (1e-5,),
    "rope_theta": (100.0,),
    **{name: (value,) for name, value in (("key_bias", False), ("proj_bias", True), ("mlp_bias", True))},
}
MODELS = {
    "vit": Model("huggingface_vit", _VIT),
    "vit_mae": Model("huggingface_vit", _VIT),
    "vit_msn": Model("huggingface_vit", _VIT | {"layer_norm_eps": (1e-6, 1e-12)}),
    "dinov2": Model("dinov2", _DINOV2),
    "dinov2_with_registers": Model("dinov2", _DINOV2),
    "dinov3_vit": Model("dinov3", _DINOV3),
}
"""By ``model_type``. ViT's epsilon is 1e-12 in `transformers` and 1e-6 in its authors' code, and so in timm."""


def is_huggingface(keys: str) -> bool:
    """Whether ``keys``, one per line, are those of a vision transformer of `transformers`."""
    return _FIRST.search(keys) is not None


def prefix_of(keys: str) -> str:
    """Return what stands before the names of the network, as in "dinov2."."""
    found = _FIRST.search(keys)
    return found[1] if found else ""


def as_authors_name_it(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights by the authors' names: query, key and value of a block are one matrix there.

    DINOv3 has no bias on keys; the authors write 0 there.
    """
    names = NAMES[_kind_of("\n".join(weights))]
    named = {names.to_canonical(name) or name: tensor for name, tensor in weights.items()}
    for name in [name for name in named if ".attn.q." in name]:
        parts = [named.pop(name.replace(".q.", f".{part}."), None) for part in "qkv"]
        of_query = parts[0]
        assert of_query is not None
        joined = [torch.zeros_like(of_query) if part is None else part for part in parts]
        named[name.replace(".q.", ".qkv.")] = torch.cat(joined)
    return named


def _kind_of(keys: str) -> str:
    if "layernorm_before." in keys:
        return "vit"
    if "embeddings.patch_embeddings.projection." in keys:
        return "dinov2"
    return "dinov3, gated" if ".gate_proj." in keys else "dinov3"


def as_transformers_names_it(weights: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Return weights, by the authors' names, by those that a file of `transformers` has; ``kind`` is a key of `NAMES`.

    Raises:
        ValueError: Such a network has no place for one of them.
    """
    named: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        split = ".attn.qkv." in name
        pieces = zip("qkv", tensor.chunk(3), strict=True) if split else [("", tensor)]
        for part, piece in pieces:
            theirs = NAMES[kind].to_framework(name.replace(".qkv.", f".{part}.") if split else name)
            if theirs is None:
                raise ValueError(f"{name} has no place in a {kind} of transformers")
            named[theirs] = piece
    return named

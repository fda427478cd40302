"""Names of vision transformers in `transformers`, translated to those of their authors.

Sources: `transformers/models/{vit,vit_msn,vit_mae,dinov2,dinov2_with_registers,dinov3_vit}/modeling_*.py`; the authors' names
are those of timm's ViT and of DINOv2 and DINOv3 (facebookresearch).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_FIRST = re.compile(r"(.*?)embeddings\.patch_embeddings\.(?:projection\.)?weight")
_NAMES = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.mask_token", "mask_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.(?:projection\.)?", "patch_embed.proj."),
    (r"(?:encoder\.)?layer\.(\d+)\.", r"blocks.\1."),
    (r"layernorm_before\.", "norm1."),
    (r"layernorm_after\.", "norm2."),
    (r"attention\.(?:attention\.)?(?:query|q_proj)\.", "attn.q."),
    (r"attention\.(?:attention\.)?(?:key|k_proj)\.", "attn.k."),
    (r"attention\.(?:attention\.)?(?:value|v_proj)\.", "attn.v."),
    (r"attention\.(?:output\.dense|o_proj)\.", "attn.proj."),
    (r"layer_scale(\d)\.lambda1", r"ls\1.gamma"),
    (r"intermediate\.dense\.|mlp\.up_proj\.", "mlp.fc1."),
    (r"(?<!attention\.)output\.dense\.|mlp\.down_proj\.", "mlp.fc2."),
    (r"mlp\.weights_in\.", "mlp.w12."),
    (r"mlp\.weights_out\.", "mlp.w3."),
    (r"^layernorm\.", "norm."),
)
"""Pattern -> authors' name."""


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
    registers = "storage_tokens" if not any("position_embeddings" in name for name in weights) else "register_tokens"
    named = {_renamed(name, registers): tensor for name, tensor in weights.items()}
    for name in [name for name in named if ".attn.q." in name]:
        parts = [named.pop(name.replace(".q.", f".{part}."), None) for part in "qkv"]
        of_query = parts[0]
        assert of_query is not None
        joined = [torch.zeros_like(of_query) if part is None else part for part in parts]
        named[name.replace(".q.", ".qkv.")] = torch.cat(joined)
    return named


def _renamed(name: str, registers: str) -> str:
    for pattern, replacement in (*_NAMES, (r"embeddings\.register_tokens", registers)):
        name = re.sub(pattern, replacement, name)
    return name

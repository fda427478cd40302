"""Networks that are similar to ours and are not: by their names, by missing statistics, or by what their file declares."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from transfer.weights.contents import Contents, text_in
from transfer.weights.stand_ins import entries

_SIGNS = {
    "GroupNorm": r"(.*\.)?gn\d*\.(weight|bias)|.*_gn_(s|b)",
    "efficient channel attention": r".*\.(eca\w*\..*|se\.conv\.weight)",
    "squeeze-and-excitation": r".*\.(se|se_module|se_layer|senet)\d?\..*",
    "weight standardisation": r".*\.(weight_gamma|weight_beta)",
    "deformable convolutions": r".*\.conv\d_offset\..*|.*\.conv_offset\w*\..*",
    "anti-aliased down-sampling": r".*\.filt",
    "instance norm in its batch norms (IBN)": r".*\.(IN|BN)\.(weight|bias|running_\w+|num_batches_tracked)",
    "Res2Net's split convolutions": r".*\.(convs|bns)\.\d\.\w+",
    "split attention (ResNeSt)": r".*layer\d\.\d+\.conv2\.(conv|bn0|fc1|bn1|fc2)\..*",
    "global context blocks": r".*\.(context_block|gc_?\w*|gcb)\..*",
    "attention in place of pooling (CLIP)": r"(.*\.)?attnpool\..*",
    "a stem of several convolutions": r"(conv|bn)[2-9]\.\w+|stem\.conv[2-9]\..*",
    "weights in its pooling": r"(max|avg)pool\.\d.*",
    "register tokens": r"(.*\.)?(reg_token|reg_tokens|register_tokens|storage_tokens)",
    "a distillation token": r"(.*\.)?(dist_token|distill_token)",
    "LayerScale": r".*\.(ls\d\.gamma|gamma_\d|layer_scale\w*|lambda\d)",
    "SwiGLU": r".*\.mlp\.(w12|w3|fc1_g|fc1_x)\..*",
    "norms of queries and keys": r".*\.attn\.[qk]_norm\..*",
    "a norm before its blocks": r"(.*\.)?(norm_pre|ln_pre)\..*",
    "registers that have rotary positions of their own, as in CAPI and no network of timm": r".*residual1\.fn\.rope\.freqs",
    "tables of relative positions, which are for one size of images or windows (BEiT, Swin)": (
        r"(.*\.)?(rel_pos\w*|relative_position_bias_table)(\..*)?"
    ),
    "rotary positions": r"(.*\.)?(rope|rope_embed)(\..*)?",
    "prompts": r"(.*\.)?prompt\w*(\..*)?",
    "parametric ReLUs": r".*layer\d\.\d+\.(relu|prelu|act)\d?\.weight",
}
"""What distinguishes a network -> pattern of a key that only such a network has."""


def seen_in(keys: Iterable[str]) -> str | None:
    """Return what the network has that ours have not, with the first key that shows it; None if no key shows anything."""
    for what, pattern in _SIGNS.items():
        if found := next((key for key in keys if re.fullmatch(pattern, key)), None):
            return f"{what} ({found})"
    return None


_CLASSES = {
    "another activation than ReLU": r"torch\.nn\.modules\.activation\.(?!ReLU$)\w+",
    "another norm than BatchNorm": r".*\.(GroupNorm\w*|InstanceNorm\w*|LayerNorm\w*|EvoNorm\w*|FilterResponseNorm\w*)",
    "anti-aliased down-sampling": r".*\.(BlurPool\w*|AvgPool2dAA)",
    "weight standardisation": r".*\.(StdConv2d\w*|ScaledStdConv2d\w*|ConvA?WS2d)",
}
"""What no weight shows -> pattern of a class of which only such a network, saved whole, has objects."""


def seen_in_classes(names: Iterable[str]) -> str | None:
    """Return what the classes of a network that was saved whole show of it; None if they are those of our ResNets."""
    for what, pattern in _CLASSES.items():
        if found := next((name for name in names if re.fullmatch(pattern, name)), None):
            return f"{what} ({found})"
    return None


_DECLARED = {
    "anti-aliased down-sampling": r"(?i)(?:se|eca)?res(?:net|next)(?:aa|blur)\d+\w*",
    "weight standardisation": r"(?i)res(?:net|next)\w*_ws",
    "leaky ReLUs (InPlaceABN)": r"(?i)tresnet_\w+",
}
"""What no weight shows -> pattern of the name of such a network."""
_CONFIGURED = {
    "weight standardisation": r"(?s)\bbackbone\W{1,4}dict\((?:(?!_head\b|\bneck\b).)*?['\"]ConvA?WS['\"]",
    "branches of several dilations (TridentNet)": r"['\"]TridentResNet['\"]",
}
"""What no weight shows -> pattern of an OpenMMLab configuration that has it."""
_NAMING = {"arch", "architecture", "architectures", "model_name", "backbone", "base_model", "base_encoder", "network"}
_SETTINGS = ("args", "hyper_parameters", "opt", "config", "cfg", "hparams", "meta")


def declared_architecture(contents: Contents) -> str | None:
    """Return the name of the network that a file declares beside its weights, if it is in one of the usual places."""
    places: list[Mapping[Any, Any]] = [contents.entries]
    places += [held for key in _SETTINGS if (held := entries(contents.entries.get(key)))]
    for place in places:
        for key, value in place.items():
            inner = entries(value)
            name = inner.get("name") if inner is not None and key == "backbone" else value
            is_name = key in _NAMING or (key == "model" and place is not contents.entries)
            if is_name and isinstance(name, str) and re.fullmatch(r"[\w.\-/]{3,60}", name):
                return name
    return None


def declared_in(contents: Contents, architecture: str | None) -> str | None:
    """Return what a file declares of its network that no weight shows and ours have not; None if it declares nothing of it."""
    name = (architecture or "").rpartition("/")[2].partition(".")[0]
    if what := next((what for what, pattern in _DECLARED.items() if re.fullmatch(pattern, name)), None):
        return f"{what} ({name})"
    text = "\n".join(text_in(contents.entries.get(key))[:500_000] for key in ("meta", "config", "cfg"))
    return next((what for what, pattern in _CONFIGURED.items() if re.search(pattern, text)), None)

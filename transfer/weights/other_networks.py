"""Networks that are similar to ours and are not: by their names, by missing statistics, or by what their file declares."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from transfer.weights.contents import Contents, text_in
from transfer.weights.stand_ins import entries

_SIGNS = {
    "GroupNorm": r"(.*\.)?gn\d*\.(weight|bias)",
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
    "parametric ReLUs": r".*layer\d\.\d+\.(relu|prelu|act)\d?\.weight",
}
"""What distinguishes a network -> pattern of a key that only such a network has."""


def seen_in(keys: Iterable[str]) -> str | None:
    """Return what the network has that ours have not, with the first key that shows it; None if no key shows anything."""
    for what, pattern in _SIGNS.items():
        if found := next((key for key in keys if re.fullmatch(pattern, key)), None):
            return f"{what} ({found})"
    return None


_DECLARED = {
    "anti-aliased down-sampling": r"(?i)(?:\A|\W|_)(?:se|eca)?res(?:net|next)(?:aa|blur)\d+",
    "weight standardisation": r"['\"]ConvA?WS['\"]|\bresnet\w*_ws\b",
    "leaky ReLUs (InPlaceABN)": r"(?i)\btresnet_|inplace_?abn",
}
"""What no weight shows -> pattern of a text in which a file declares it."""
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
    texts = [architecture or "", *(text_in(contents.entries.get(key)) for key in _SETTINGS)]
    for what, pattern in _DECLARED.items():
        # long texts are logs and configurations; a name in them must stand as a type
        if any(re.search(pattern, text[:200_000]) for text in texts):
            return what
    return None

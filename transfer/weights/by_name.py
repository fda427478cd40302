"""Read weights of a network of timm that the user names (`--from "timm:vit_small_patch14_dinov2"`) or that was recognised.

Authors name the parts of such networks in their own ways. timm translates these names when it loads them into a network
(``checkpoint_filter_fn`` in the network's file), and the same function does so here: for DINOv2 and DINOv3 of Meta, BEiT, EVA,
MAE, MoCo v3, Swin, ConvNeXt and others. Names of `transformers` become those of the authors first. What that function leaves
out is reported. A tensor that it resized is refused, because then the network would be another one.
"""

from __future__ import annotations

import io
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from typing import Any

import torch
import yaml
from torch import Tensor

from pixbench.errors import UserError
from pretrain.models.named_network import with_shapes_only
from pretrain.models.named_spec import NamedSpec
from transfer.weights import huggingface_vit
from transfer.weights.contents import Contents
from transfer.weights.known_networks import flat
from transfer.weights.sources import Source
from transfer.weights.tensors import as_tensor

CLASSIFIER = re.compile(r"(?:head|heads|head_dist|fc|classifier|last_linear|pooler)\..*")
"""Names of a classifier's weights."""


@dataclass(frozen=True)
class ByName:
    """The tensors of a network in a file."""

    spec: NamedSpec
    state: dict[str, Tensor]
    """By the names of `NamedNetwork`; whether they are complete is for `transfer.weights.backbone.check`."""
    dropped: dict[str, list[str]]
    """Keys that were left out: reason -> keys."""
    notes: list[str]
    """What a user should know, one sentence each."""
    container: str


def spec_named(words: str) -> NamedSpec:
    """Return the spec for a name with options in braces, as in "timm:vit_small_patch16_224 {num_heads: 12}".

    Raises:
        UserError: It is no name, or the options are none.
    """
    name, brace, options = words.partition("{")
    try:
        given = yaml.safe_load(brace + options) if brace else {}
        if isinstance(given, dict):
            return NamedSpec(name.strip(), given)
    except yaml.YAMLError:
        pass
    except ValueError as error:
        raise UserError(f"--from {words}: {error}") from error
    raise UserError(f"--from {words}: the options cannot be read; write them as 'timm:NAME {{key: value}}'")


def spec_of(source: Source) -> NamedSpec | None:
    """Return the spec of a pretrained model of timm that is neither a ResNet nor a plain ViT; None for anything else."""
    if not source.name.startswith("timm:") or source.architecture is None:
        return None
    from timm.models.resnet import ResNet
    from timm.models.vision_transformer import VisionTransformer

    spec = NamedSpec(f"timm:{source.architecture}")
    net = with_shapes_only(spec).net
    plain = (
        type(net) is VisionTransformer and net.num_prefix_tokens == 1 and "blocks.0.ls1.gamma" not in net.state_dict()
    )
    return None if plain or isinstance(net, ResNet) else spec


def read_named(spec: NamedSpec, contents: Contents, path: object, prefix: str | None, container: str | None) -> ByName:
    """Return the weights of ``spec`` in ``contents``; a ViT takes the image size for which its positions were learnt.

    Raises:
        UserError: They are not there, or several times; the message says how to choose.
    """
    network = with_shapes_only(spec)
    names = {name.removeprefix("net.") for name in network.state_dict()}
    container, prefix = _place(contents, network.net, names, path, prefix, container)
    table = contents.table(container)
    tensors = {key: x for key, value in table.weights.items() if (x := as_tensor(value)) is not None}
    source = {key.removeprefix(prefix): x for key, x in tensors.items() if key.startswith(prefix)}
    if not _is_chunked(names):
        source = {flat(name): x for name, x in source.items()}
    if huggingface_vit.is_huggingface("\n".join(source)):
        source = huggingface_vit.as_authors_name_it(source)
    if (fitting := _for_its_positions(spec, network.net, source)) != spec:
        return read_named(fitting, contents, path, prefix, container)
    found = _by_timm(network.net, source)
    classifier = [name for name in found if name not in names and CLASSIFIER.fullmatch(name)]
    from_file = {x.untyped_storage().data_ptr() for x in source.values()}
    taken = {x.untyped_storage().data_ptr() for x in found.values()}
    computed = [name for name, x in found.items() if x.untyped_storage().data_ptr() not in from_file]
    left = [n for n, x in source.items() if n not in found and x.untyped_storage().data_ptr() not in taken]
    _refuse_losses(spec, path, source, found, computed, left)
    dropped = {
        "beside the backbone": [table.written[key] for key in tensors if not key.startswith(prefix)],
        "classifier": classifier,
        "no part of timm's network": left,
    }
    _refuse_other_shapes(spec, path, network.net, found)
    state = {f"net.{name}": x for name, x in found.items() if name not in classifier}
    notes = [f"{', '.join(computed)} was computed from several tensors of the file"] if computed else []
    notes += _rounded(network.net, source, path)
    return ByName(spec, state, {why: keys for why, keys in dropped.items() if keys}, notes, container)


def _refuse_other_shapes(spec: NamedSpec, path: object, net: torch.nn.Module, found: dict[str, Tensor]) -> None:
    """Raise UserError if tensors have other shapes than in the network, as if it had another width."""
    wanted = {name: x.shape for name, x in net.state_dict().items()}
    if wrong := [name for name, x in found.items() if name in wanted and x.shape != wanted[name]]:
        first, more = wrong[0], f", and {len(wrong) - 1} more tensors differ" if wrong[1:] else ""
        raise UserError(
            f"{path} holds another network than {spec.title}: {first} is {tuple(found[first].shape)}, but should be "
            f"{tuple(wanted[first])}{more}; name the fitting one"
        )


def _is_chunked(names: Iterable[str]) -> bool:
    return any(flat(name) != name for name in names)


def _rounded(net: Any, source: dict[str, Tensor], path: object) -> list[str]:
    """Return a note if the periods of rotary positions in the file are those of DINOv3's network, rounded to bfloat16.

    Raises:
        UserError: They are others.
    """
    periods = source.get("rope_embed.periods")
    rope: Any = getattr(net, "rope", None)
    if periods is None or getattr(rope, "temperature", None) is None:
        return []
    wanted = rope.temperature ** (torch.arange(rope.dim // 4) / (rope.dim // 4))
    if periods.shape != wanted.shape or not torch.allclose(periods.float(), wanted, rtol=2**-8, atol=0):
        raise UserError(f"{path} has other periods of rotary positions than timm's network; it cannot be converted")
    if torch.allclose(periods.float(), wanted, rtol=1e-6, atol=0):
        return []
    return [
        "the periods of rotary positions are rounded to bfloat16 in the file; the network computes them in float32, as timm "
        "and transformers do, so its maps differ a little from those of the authors' code"
    ]


def _place(
    contents: Contents, net: Any, names: set[str], path: object, prefix: str | None, container: str | None
) -> tuple[str, str]:
    """Return the container and the prefix under which most of ``names`` stand."""
    found: Counter[tuple[str, str]] = Counter()
    chunked = _is_chunked(names)
    for place in contents.containers if container is None else [container]:
        table = contents.table(place)
        if huggingface_vit.is_huggingface(table.text):
            found[place, huggingface_vit.prefix_of(table.text)] = len(table.weights)
        for key in table.weights:
            parts = key.split(".")
            for start in range(len(parts)):
                name = ".".join(parts[start:])
                if (name if chunked else flat(name)) in names:
                    found[place, ".".join(parts[:start]) + "." * (start > 0)] += 1
                    break
        if max(found.values(), default=0) < len(names) / 2:
            found.update({(place, under): count for under, count in _translated(net, names, table.weights).items()})
    if prefix is not None:
        plain = prefix if not prefix or prefix.endswith(".") else f"{prefix}."
        found = Counter({where: count for where, count in found.items() if where[1] == plain})
    best = [where for where, count in found.items() if count > max(found.values()) * 0.9]
    if not best:
        raise UserError(
            f"{path} holds no weights with names of this network; `pixbench weights inspect` shows what it holds"
        )
    return only(best, path)


def only(places: list[tuple[str, str]], path: object) -> tuple[str, str]:
    """Return the one container and prefix of ``places``; raise UserError that says how to choose if there are several."""
    if len(places) > 1:
        options = "; ".join(
            f"--container {place or chr(39) * 2} --prefix {under or chr(39) * 2}" for place, under in places
        )
        raise UserError(f"{path} holds this network several times; choose one with {options}")
    return places[0]


def _translated(net: Any, names: set[str], weights: Mapping[str, Any]) -> dict[str, int]:
    """Return the prefixes under which timm finds weights by the authors' names -> how many; of ConvNeXt all are others."""
    tensors = {key: x for key, value in weights.items() if (x := as_tensor(value)) is not None}
    starts = Counter(key[:dot] for key in tensors for dot in (0, *(i + 1 for i, c in enumerate(key) if c == ".")))
    found = {}
    for under in (start for start, count in starts.items() if count >= len(names) / 2):
        try:
            made = _by_timm(net, {key.removeprefix(under): x for key, x in tensors.items() if key.startswith(under)})
        except Exception:  # these are not the names that it translates
            continue
        if count := len(made.keys() & names):
            found[under] = count
    return found


def _for_its_positions(spec: NamedSpec, net: Any, source: dict[str, Tensor]) -> NamedSpec:
    """Return ``spec`` with the image size of the positions in the file, if it does not give one itself."""
    positions: Tensor | None = source.get("pos_embed")
    patches: Any = getattr(net, "patch_embed", None)
    if positions is None or positions.dim() != 3 or "img_size" in spec.options or not hasattr(patches, "grid_size"):
        return spec
    rows, columns = patches.grid_size
    sides = [round((positions.shape[1] - tokens) ** 0.5) for tokens in (0, 1, 2, 5)]
    fits = [side for side, tokens in zip(sides, (0, 1, 2, 5), strict=True) if side**2 + tokens == positions.shape[1]]
    if not fits or fits[0] == rows == columns:
        return spec
    return replace(spec, options={**spec.options, "img_size": fits[0] * patches.patch_size[0]})


def _by_timm(net: Any, source: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights by the names of timm's network, as timm itself translates them."""
    translate = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    if translate is None:
        return source
    with redirect_stdout(io.StringIO()):  # timm prints there what it tries
        return dict(translate(dict(source), net))


def _refuse_losses(
    spec: NamedSpec,
    path: object,
    source: dict[str, Tensor],
    found: dict[str, Tensor],
    computed: list[str],
    left: list[str],
) -> None:
    """Raise UserError if tensors were resized, or if some that change the maps are left out."""
    if resized := [name for name in computed if name in source and source[name].shape != found[name].shape]:
        sizes = ", ".join(f"{name} from {tuple(source[name].shape)} to {tuple(found[name].shape)}" for name in resized)
        raise UserError(
            f"{path} holds another network than {spec.title}: timm would resize {sizes}; name the fitting one"
        )
    biases = [name for name in left if re.search(r"attn\.(qkv|[qkv])\.bias$", name) and bool(source[name].any())]
    for name in (name for name in source if name.endswith("qkv.bias") and name[: -len("qkv.bias")] + "q_bias" in found):
        mask = source.get(f"{name}_mask", torch.ones(()))
        biases += [f"the keys' part of {name}"] if bool((source[name] * mask).chunk(3)[1].any()) else []
    if biases:
        raise UserError(
            f"{path} holds biases that {spec.title} does not have ({', '.join(biases[:3])}, ...); name the network of timm "
            "that has them, such as one ending in _qkvb"
        )

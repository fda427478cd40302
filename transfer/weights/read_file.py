"""Read a file into a `Backbone`. `recognition` and `discovery` assign the keys; the values are checked and converted here."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from os import PathLike

import torch
from torch import Tensor

from pixbench.errors import UserError, an
from pretrain.models.backbone_spec import BackboneSpec
from pretrain.models.named_spec import NamedSpec
from transfer.weights import by_name, discovery, files, known_networks, other_networks, pyramid_head, recognition
from transfer.weights.backbone import Backbone, Counts, Problems, check
from transfer.weights.contents import Contents
from transfer.weights.declarations import as_the_file_says, pretraining_in, resized_in, spec_in_file
from transfer.weights.expected_shapes import expected
from transfer.weights.file_format import Format, formats
from transfer.weights.known_networks import Known
from transfer.weights.naming import is_counter
from transfer.weights.recognition import Match, Sorting
from transfer.weights.sources import Source, locate
from transfer.weights.spec import Spec
from transfer.weights.tensors import as_tensor, cast, equal, in_order, is_finite, is_stretched, type_name
from transfer.weights.vit_spec import VitSpec

AVERAGE = "ema"
"""The branch that takes the moving average of the weights, if a file holds one beside them."""
State = dict[str, Tensor]


@dataclass(frozen=True)
class Choice:
    """What a user may choose in a file; everything else follows from the file."""

    branch: str | None = None
    """Which backbone to read if the file holds two: a branch of its format, or `AVERAGE`. The default is the first branch."""
    format: str | None = None
    """Name of the format."""
    prefix: str | None = None
    """What stands before the names of the backbone, as in "module.encoder."; all other keys are then left out."""
    container: str | None = None
    """The entry of the file that holds the weights, as in "model_state_dict"."""


@dataclass(frozen=True)
class Reading:
    """A backbone and how it was read."""

    backbone: Backbone
    layout: Format
    """Its format."""
    branch: str
    counts: Counts
    beside: list[str]
    """Other entries of the file: "epoch", "optimizer", ..."""
    dropped: dict[str, list[str]] = field(default_factory=dict)
    """Keys that were left out, as written in the file: reason -> keys."""
    averages: list[str] = field(default_factory=list)
    """Entries of the file with a moving average of the weights, which the branch "ema" takes."""
    asked: list[str] = field(default_factory=list)
    """Classes of which the file holds objects; these were read as plain data, and nothing of them was run."""
    notes: list[str] = field(default_factory=list)
    """What a user should know of the backbone, one sentence each."""
    architecture: str | None = None
    """The name of the network that the file declares, if any."""

    @property
    def format(self) -> str:
        """Name of its format."""
        return self.layout.name


def load(
    source: str | PathLike[str] | Source, branch: str | None = None, format_name: str | None = None, **place: str
) -> Backbone:
    """Return the backbone in a file of any known format; all its weights are present and finite.

    Args:
        source: A file or folder, or a name of the hub or of timm, see `transfer.weights.sources.locate`.
        branch: Which backbone to read if the file holds two; see `Choice`.
        format_name: Name of the format. The default is to recognise it.
        **place: ``prefix`` and ``container`` of the backbone, for a file of no known format; see `Choice`.
    """
    return read(source, branch, format_name, **place).backbone


def read(
    source: str | PathLike[str] | Source,
    branch: str | None = None,
    format_name: str | None = None,
    prefix: str | None = None,
    container: str | None = None,
) -> Reading:
    """Read a backbone as `load` does; also return its format and what was converted, dropped and left alone.

    Raises:
        UserError: The file cannot be read, is of no known format, does not hold the chosen backbone, or holds a network that
            is not one of ours; the message says what is inside.
    """
    choice = Choice(branch, format_name, prefix, container)
    located = source if isinstance(source, Source) else locate(source)
    content, path = files.read_source(located), located.name
    whole = Contents(content.value)
    contents, branch = (whole.averaged(path), None) if branch == AVERAGE else (whole, branch)
    if format_name is not None and ":" in format_name:
        return _by_name(by_name.spec_named(format_name), contents, located, choice)
    if choice == Choice() and (named := by_name.spec_of(located)) is not None:
        return _by_name(named, contents, located, choice)
    if known := known_network(contents, located, choice):
        return _by_name(known.spec, contents, located, choice, known.format)
    match = recognise(contents, path, replace(choice, branch=branch))
    fmt = match.format
    architecture = located.architecture or other_networks.declared_architecture(contents)
    what = located.other_network or other_networks.declared_in(contents, architecture)
    if what is None and contents.is_network(match.container) and "layer1" in fmt.names.stages:
        what = other_networks.seen_in_classes(content.asked)
    if what:
        raise UserError(
            f"{path} declares a network with {what}, which PixBench cannot convert; its weights do not show it"
        )
    branch = branch or match.branch
    if branch not in fmt.branches:
        raise UserError(
            f"{path} is of the format {fmt.name} ({fmt.title}), which has no branch {branch!r};"
            f" choose one of: {', '.join([*fmt.branches, *([AVERAGE] if whole.averages else [])])}"
        )
    sorting = match.sort(branch)
    state, extras, dropped, types = _values(match, sorting, branch, located)
    spec = spec_in_file(contents, fmt, state, path)
    if isinstance(spec, BackboneSpec) and spec.stem in fmt.other_stems:
        raise UserError(
            f"{path} holds a ResNet with a {spec.stem} stem, which in {an(fmt.title)} is another one than ours "
            f"({fmt.other_stems[spec.stem]}), though no weight shows it; `--prefix {fmt.branches[branch]}` takes its weights "
            "nevertheless, with our stem"
        )
    counts = Counts(len(state) + len(extras), dropped, _fill_norms(state, extras, fmt, spec, path), types)
    spec, pixels = as_the_file_says(contents, fmt, spec, located)
    norm = _last_norm(match, sorting, spec, path)
    backbone = Backbone(spec, state, path, extras, pixels, norm, pretraining_in(contents), resized_in(contents))
    check(backbone)
    if "heads" not in fmt.backbone and _has_undecided_heads(state):
        raise UserError(
            f"{path} holds a ViT of width 384 with fixed positions: MoCo v3 has 12 attention heads in it, DeiT 6, and no "
            "weight shows which; it cannot be converted, but a checkpoint of MoCo v3 itself can (moco_v3_vit)"
        )
    return Reading(
        backbone,
        fmt,
        AVERAGE if choice.branch == AVERAGE else branch,
        counts,
        contents.beside(match.container),
        _by_reason(match, sorting),
        [name for name in whole.averages if name != match.container],
        content.asked,
        _notes(spec, whole),
        architecture,
    )


def known_network(contents: Contents, source: Source, choice: Choice) -> Known | None:
    """Return the network of timm that a file is known to hold; None if it is none, or the user chose something else.

    Raises:
        UserError: The user chose a format of such networks, and the file is not of it.
    """
    chosen = recognition.known_as(choice.format) if choice.format else None
    if choice.branch not in (None, AVERAGE) or (chosen and not chosen.networks):
        return None
    found = known_networks.recognise(contents, source, choice.format, choice.container, choice.prefix)
    if chosen and not found:
        raise UserError(
            f"{source.name} is not of the format {chosen.name} ({chosen.title}), or of none of its sizes; to read it as a "
            "network that you know, write --from timm:NAME"
        )
    return found


def _by_name(spec: NamedSpec, contents: Contents, source: Source, choice: Choice, fmt: Format | None = None) -> Reading:
    """Return the backbone that the user named, or that was recognised in a file of the format ``fmt``."""
    if choice.branch not in (None, AVERAGE):
        raise UserError(
            f"--branch {choice.branch} belongs to a known format; with --from {spec.name}, choose by --prefix"
        )
    if spec.family != "timm":
        raise UserError(
            f"--from {spec.name}: only networks of timm can be named for a file; it must say itself what it holds"
        )
    found, types = by_name.read_named(spec, contents, source.name, choice.prefix, choice.container), Counter[str]()
    state = {name: _uniform(name, in_order(tensor), types) for name, tensor in found.state.items()}
    fmt = fmt or formats()["timm_named"]
    _, pixels = as_the_file_says(contents, fmt, found.spec, source)
    backbone = Backbone(found.spec, state, source.name, {}, pixels, {}, pretraining_in(contents), resized_in(contents))
    check(backbone)
    counts = Counts(len(state), {reason: len(keys) for reason, keys in found.dropped.items()}, {}, dict(types))
    notes, beside = found.notes + known_networks.notes(source, fmt), contents.beside(found.container)
    return Reading(
        backbone, fmt, choice.branch or "student", counts, beside, found.dropped, [], [], notes, spec.function
    )


def _notes(spec: Spec, contents: Contents) -> list[str]:
    notes = []
    if isinstance(spec, BackboneSpec) and spec.stem == "3x3":
        notes.append("no weight shows what else its 3×3 stem has; taken are stride 1, padding 1 and no pooling")
    if contents.is_swapped:
        notes.append(
            "MMEngine swapped the weights: state_dict is the moving average, ema_state_dict holds the raw weights"
        )
    return notes


def recognise(contents: Contents, path: object, choice: Choice) -> Match:
    """Return the format of a file and the place of its weights.

    Raises:
        UserError: If no format fits, more than one does, or what the user chose does not.
    """
    if choice.prefix is not None or choice.container is not None:
        if choice.branch is not None:
            raise UserError(
                f"--prefix and --container choose a backbone by its place, so leave out --branch {choice.branch}; that "
                "backbone has a place of its own, which `pixbench weights inspect` shows"
            )
        return discovery.choose(contents, path, choice.container, choice.prefix, choice.format)
    if choice.format is not None:
        return recognition.wanted(contents, path, choice.format)
    matches = recognition.candidates(contents)
    if not matches or matches[0].sorted.unknown:
        if found := discovery.only_one(contents, path):
            return found
        raise discovery.no_format(contents, path, matches)
    if len(matches) > 1:
        looks = recognition.titles(matches)
        raise UserError(f"{path} may be of the format {looks}, and its keys do not show which one; choose with --from")
    return matches[0]


def _has_undecided_heads(state: State) -> bool:
    """Whether it is a ViT-S with positions that were not learnt: those of a class token, the first, are then 0."""
    positions = state.get("pos_embed")
    return positions is not None and positions.shape[-1] == 384 and not positions[0, 0].any()


def _by_reason(match: Match, sorting: Sorting) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, reason in sorting.dropped.items():
        found.setdefault(reason, []).append(match.table.written[key])
    return found


def _values(
    match: Match, sorting: Sorting, branch: str, source: Source
) -> tuple[State, State, dict[str, int], dict[str, int]]:
    """Return backbone and extras of the branch by canonical name, the number of dropped keys by reason, and of cast types."""
    fmt, weights, path = match.format, match.table.weights, source.name
    if not sorting.backbone:
        raise UserError(
            f"{path} holds no {branch} backbone: no key begins with {fmt.branches[branch]!r}; choose another branch or file"
        )
    problems, dropped = Problems(), Counter(sorting.dropped.values())
    problems.add("unknown", (match.table.written[key] for key in sorting.unknown))
    named = sorting.backbone | sorting.extras
    owners = {name: key for key, name in named.items()}
    problems.add("with the same name as another key", (key for key, name in named.items() if owners[name] != key))
    tensors = {name: as_tensor(weights[key]) for key, name in named.items()}
    problems.add("not a plain tensor", (name for name, tensor in tensors.items() if tensor is None))
    sound = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    problems.add("larger than their stored data", (name for name, tensor in sound.items() if is_stretched(tensor)))
    found = {name: sound[name] for name in sorting.backbone.values() if name in sound}
    extras = {name: sound[name] for name in sorting.extras.values() if name in sound}
    if pyramid_head.is_detectron2(extras):
        extras, second = _of_detectron2(extras, problems)
        dropped.update({"second tower of the head": second} if second else {})
    else:
        known = pyramid_head.TWO_STAGE if pyramid_head.two_stage(extras) else pyramid_head.NAMES
        problems.add("unknown", (name for name in extras if name not in known))
    sign = other_networks.seen_in(sorting.unknown)
    advice = "`pixbench weights inspect` lists them and all backbones in the file"
    if fmt.name != discovery.NAME:
        advice += f", and `--prefix {fmt.branches[branch] or chr(39) * 2}` takes the backbone alone and names what it leaves out"
    problems.raise_if_any(
        f"{path} holds "
        + (f"a network with {sign}, and " if sign else "")
        + f"keys that {an(fmt.title)} should not have",
        f"unknown keys are never skipped in silence; {advice}",
        most=12,
    )
    if sum(tensor.nbytes for tensor in sound.values()) > 2 * source.size:
        raise UserError(f"{path} holds the same numbers under many names, together larger than the file; save it again")
    types: Counter[str] = Counter()
    uniform = {name: _uniform(name, in_order(tensor), types) for name, tensor in {**found, **extras}.items()}
    return {n: uniform[n] for n in found}, {n: uniform[n] for n in extras}, dict(dropped), dict(types)


def _last_norm(match: Match, sorting: Sorting, spec: Spec, path: str) -> State:
    """Return "weight" and "bias" of the last norm of a ViT in float32; nothing if the file does not hold it.

    Raises:
        UserError: it is not the norm of this ViT.
    """
    if not isinstance(spec, VitSpec) or not sorting.last_norm:
        return {}
    found = {leaf: as_tensor(match.table.weights[key]) for key, leaf in sorting.last_norm.items()}
    norm = {leaf: in_order(tensor).float() for leaf, tensor in found.items() if tensor is not None}
    sound = norm.keys() == {"weight", "bias"} and all(t.shape == (spec.width,) and is_finite(t) for t in norm.values())
    if not sound:
        raise UserError(
            f"the last norm in {path} ({', '.join(match.table.written[key] for key in sorting.last_norm)}) is not the weight and "
            f"bias of {spec.width} channels that the ViT there needs; use a complete checkpoint"
        )
    return norm


def _of_detectron2(extras: State, problems: Problems) -> tuple[State, int]:
    """Return pyramid and head by our names, and the number of tensors of the second tower, which must equal the first."""
    ours = pyramid_head.from_detectron2(extras)
    again = pyramid_head.to_detectron2(ours)
    second = [place for place in again if pyramid_head.TOWERS[1] in place and place in extras]
    problems.add("unknown", (place for place in extras if place not in again))
    different = (place for place in second if not equal(extras[place], again[place]))
    problems.add("of a second tower that differs from the first", different)
    return ours, len(second)


def _uniform(name: str, tensor: Tensor, types: Counter[str]) -> Tensor:
    """Cast to the type of a backbone if no value changes. Otherwise return ``tensor`` unchanged; `check` will refuse it."""
    wanted, others = (torch.int64, _INTEGERS) if is_counter(name) else (torch.float32, _FLOATS)
    if tensor.dtype not in others or (other := cast(tensor, wanted)) is None:
        return tensor
    types[f"{type_name(tensor)} to {type_name(other)}"] += 1
    return other


_FLOATS = (torch.float16, torch.bfloat16, torch.float64)
_INTEGERS = (torch.int32, torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _fill_norms(state: State, extras: State, fmt: Format, spec: Spec, path: object) -> dict[str, int]:
    """Fill in what norms lack by design, and return how many tensors were added for which reason.

    Added are counters (0), and in formats that say so, statistics that were folded into weight and bias (mean 0, variance 1,
    as in Detectron2). Nothing is added to a file that has some of the counters or statistics; `check` refuses it. Detectron2
    is an exception for counters: its frozen norms have none, but its trained norms do.
    """
    wanted, filled = expected(spec), {}
    if isinstance(spec, NamedSpec):
        return {}  # its norms are as its network has them
    if not any(map(is_counter, state)) or not fmt.names.counts:
        missing = [name for name in expected(spec, extras) if is_counter(name) and name not in state | extras]
        for name in missing:
            (state if name in wanted else extras)[name] = torch.zeros((), dtype=torch.int64)
        filled["BatchNorm counters"] = len(missing)
    statistics = [name for name in wanted if name.endswith((".running_mean", ".running_var"))]
    if statistics and not any(name in state for name in statistics):
        if not fmt.folded:
            raise UserError(
                f"{path}: the norms of this network have a weight and a bias but no running_mean and running_var, so they are "
                "not BatchNorm but GroupNorm or another norm; PixBench converts ResNets with BatchNorm only. (Of the known "
                f"formats only {', '.join(n for n, f in formats().items() if f.folded)} have statistics folded into the weights)"
            )
        state |= {n: torch.full(wanted[n].shape, 1.0 if n.endswith("var") else 0.0) for n in statistics}
        filled["BatchNorm statistics, folded into weight and bias"] = len(statistics)
    return {what: number for what, number in filled.items() if number}

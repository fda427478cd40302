"""Load a backbone into a model of a framework: completely, or raise an error before anything changes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import torch
from torch import Tensor, nn

from pixbench.errors import UserError
from pretrain.models.backbone_spec import BackboneSpec
from transfer.weights import pyramid_head
from transfer.weights.backbone import Backbone, Counts, Problems, check
from transfer.weights.frameworks import find_framework, names_of, to_framework
from transfer.weights.models import pyramid_head_fit
from transfer.weights.naming import COUNTER, is_counter


def load_into(model: nn.Module, backbone: Backbone, framework: str) -> Counts:
    """Copy ``backbone`` into ``model`` (a whole detector or segmentor) and check that every value was copied.

    The model's heads do not change, unless the checkpoint holds a pyramid and a head and the framework has a place for
    them. Then they are copied and checked as well, except for what `pyramid_head_fit.fit` counts as by design.

    Raises:
        UserError: If a weight of the backbone has no place in the model or another shape there, or if a parameter or buffer
            of the model's backbone would get no value. The message lists the keys. BatchNorm's counters may be missing on
            either side.
    """
    check(backbone)
    rules, places = find_framework(framework), model.state_dict()
    state, fit = _wanted(model, backbone, framework)
    design = {n: what for n in places for what, names in rules.by_design.items() if names.fullmatch(n)}
    own = [name for name in places if rules.owns.match(name) and name not in design]
    state = {name: tensor for name, tensor in state.items() if name in places or not is_counter(name)}
    problems = Problems()
    problems.add("without a place in the model", (name for name in state if name not in places))
    problems.add(
        "of another shape in the model",
        (
            f"{name} is {tuple(tensor.shape)}, the model's is {tuple(places[name].shape)}"
            for name, tensor in state.items()
            if name in places and places[name].shape != tensor.shape
        ),
    )
    problems.add(
        "in the model that would get no value", (name for name in own if name not in state and not is_counter(name))
    )
    problems.add("in the model's pyramid or head that would get no value", fit.lacking)
    problems.add("with the stride in another convolution in the model", _strides_elsewhere(model, backbone, framework))
    problems.raise_if_any(
        f"the backbone from {backbone.source} does not fit the model as {framework}",
        f"build the model with the backbone's depth, width and stem ({backbone.spec.title}) and no other changes"
        + (f"; pyramid and head with {pyramid_head.width(backbone.extras)} channels" if backbone.extras else ""),
    )
    with torch.no_grad():
        for name, tensor in state.items():
            places[name].copy_(tensor)
    if wrong := unequal(model, backbone, framework):
        raise UserError(
            f"{len(wrong)} weights changed when copied into the model ({', '.join(wrong)}); use a float32 model"
        )
    untouched = Counter({COUNTER: sum(name not in state for name in own)}) + Counter(design.values())
    untouched.update(fit.initialised)
    untouched["outside the backbone"] = len(places) - len(state) - sum(untouched.values())
    counters = len(backbone.state) - (len(state) - len(fit.placed))
    return Counts(len(state), _nonzero(Counter({COUNTER: counters}) + Counter(fit.dropped)), _nonzero(untouched))


def _strides_elsewhere(model: nn.Module, backbone: Backbone, framework: str) -> list[str]:
    """Return the first block of the second stage if its stride is in the 1×1 instead of the 3×3 convolution, or vice versa.

    The weights do not show this. A model with the stride in the other convolution silently computes something else.
    """
    if not isinstance(backbone.spec, BackboneSpec) or backbone.spec.basic:
        return []
    names, modules = names_of(backbone, framework), dict(model.named_modules())
    place = {i: (names.to_framework(f"layer2.0.conv{i}.weight") or "").removesuffix(".weight") for i in (1, 2)}
    strides = {i: getattr(modules.get(name), "stride", (1, 1))[0] for i, name in place.items()}
    return [place[1]] if max(strides.values()) > 1 and (strides[1] > 1) != backbone.spec.stride_in_1x1 else []


def _wanted(model: nn.Module, backbone: Backbone, framework: str) -> tuple[dict[str, Tensor], pyramid_head_fit.Fit]:
    """Return all tensors by their names in ``model``, and how pyramid and head fit into it."""
    state = to_framework(replace(backbone, extras={}), framework)
    if find_framework(framework).pyramid_head:
        fit = pyramid_head_fit.fit(model, backbone.extras)
    else:
        fit = pyramid_head_fit.Fit({}, {"pyramid and head": len(backbone.extras)}, {}, [])
    return state | fit.placed, fit


def unequal(model: nn.Module, backbone: Backbone, framework: str) -> list[str]:
    """Return the names of weights that differ between model and backbone in any bit, except for counters."""
    places = model.state_dict()
    return [
        name
        for name, tensor in _wanted(model, backbone, framework)[0].items()
        if not is_counter(name) and not same(places.get(name), tensor)
    ]


def same(mine: Tensor | None, theirs: Tensor) -> bool:
    """Whether two tensors have the same type, shape and values; False if ``mine`` is None."""
    return mine is not None and mine.dtype == theirs.dtype and torch.equal(mine.cpu(), theirs.cpu())


def _nonzero(table: dict[str, int]) -> dict[str, int]:
    return {reason: number for reason, number in table.items() if number}

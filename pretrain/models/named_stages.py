"""The stages of a hierarchical network by name, for a learning rate by stage."""

from __future__ import annotations

from typing import Any

from pixbench.errors import UserError
from pretrain.models.backbone_spec import STAGES
from pretrain.models.named_build import empty
from pretrain.models.named_look import look
from pretrain.models.named_spec import NamedSpec

_BEGINNING = ("downsample", "conv_down")
"""timm's names of the layers that begin a stage before its blocks; a shortcut with such a name is part of a block."""


def stage_places(spec: NamedSpec) -> dict[str, int]:
    """Return the name of each parameter that maps depend on -> its stage, from 1; 0 for the stem and for downsampling.

    A stage consists of the module that timm's ``feature_info`` declares for its map. The maps must agree with that: those of
    earlier stages do not depend on it. What is in none of these modules is the stem, if the first map depends on it.

    Raises:
        UserError: The network declares no such stages, or they are not all that its maps depend on.
    """
    net: Any = empty(spec)
    seen, declared = look(spec), getattr(net, "feature_info", None)
    if not declared or any(stage not in seen.stages for stage in STAGES[1:]):
        raise UserError(
            f"{spec.title} declares no four stages of strides 4 to 32, as hierarchical networks of timm do, so it has no "
            "learning rates by stage; choose a protocol without a learning rate by stage"
        )
    modules = [f"{declared[seen.stages[stage].index]['module']}." for stage in STAGES[1:]]
    places = {}
    for name, _ in net.named_parameters():
        first = next((number for number, stage in enumerate(STAGES[1:], 1) if name in seen.behind[stage]), None)
        if first is None:
            continue
        inside = next((number for number, module in enumerate(modules, 1) if name.startswith(module)), 0)
        if inside != first and (inside or first > 1):
            raise UserError(
                f"{spec.title} has no learning rates by stage: its map of stage {first} is the first that depends on {name}, "
                f"which is not part of the module {modules[first - 1].rstrip('.')} that it declares for this stage; choose a "
                "protocol without a learning rate by stage"
            )
        begins = inside and name.removeprefix(modules[inside - 1]).split(".")[0] in _BEGINNING
        places[f"net.{name}"] = 0 if begins else inside
    if empty_stages := {1, 2, 3, 4} - {*places.values()}:
        raise UserError(
            f"{spec.title} has no learning rates by stage: the module {modules[min(empty_stages) - 1].rstrip('.')} that it "
            f"declares for stage {min(empty_stages)} has no parameters; choose a protocol without a learning rate by stage"
        )
    return places

"""The network that a source file was made for, from the library that it comes from."""

from __future__ import annotations

from typing import NamedTuple

from pixbench.errors import UserError
from transfer.weights.frameworks import FRAMEWORKS, Framework, FrameworkModel, express
from transfer.weights.models.framework_models import quiet
from transfer.weights.models.load_into import load_into
from transfer.weights.read_file import Reading


class SourceNetwork(NamedTuple):
    """A network with the weights of a source."""

    title: str
    model: FrameworkModel | None
    """None if the network does not take these weights."""


def network_of(reading: Reading) -> SourceNetwork | None:
    """Return the source's own network with its weights, in eval mode; None if no installed library has it.

    A network that the file names and a library knows is built by that name, because the name may mean what no weight shows.
    """
    own = next((rules for rules in FRAMEWORKS.values() if reading.layout.naming in rules.families), None)
    if own is None:
        return None
    try:
        with quiet():
            if named := _named(reading.architecture):
                return _loaded(reading, *named, f"{named[0].words[0]}'s {reading.architecture}")
            express(reading.backbone, own.name)
            found = _loaded(reading, own, own.build(reading.backbone), f"{own.words[0]}'s network of this kind")
    except (ImportError, UserError):  # not installed, or of a width or with pixels that the library does not have
        return None
    return found if found.model else None


def _named(architecture: str | None) -> tuple[Framework, FrameworkModel] | None:
    for rules in FRAMEWORKS.values():
        if architecture and rules.named and (built := rules.named(architecture)):
            return rules, built
    return None


def _loaded(reading: Reading, rules: Framework, built: FrameworkModel, title: str) -> SourceNetwork:
    try:
        load_into(built.model, reading.backbone, rules.name)
    except UserError:
        return SourceNetwork(title, None)
    built.model.eval()
    return SourceNetwork(title, built)

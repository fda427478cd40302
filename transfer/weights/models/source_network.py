"""The network that a source file was made for, from the library that it comes from."""

from __future__ import annotations

from typing import NamedTuple

from pixbench.errors import UserError
from transfer.weights.frameworks import FRAMEWORKS, FrameworkModel, express, timm
from transfer.weights.models.framework_models import quiet
from transfer.weights.models.load_into import load_into
from transfer.weights.read_file import Reading

_LIBRARY_OF = {
    "torchvision": "torchvision",
    "sequential": "torchvision",
    "timm_c": "timm",
    "timm_d": "timm",
    "huggingface": "huggingface",
}
"""Naming of a format -> framework whose own network has these names."""


class SourceNetwork(NamedTuple):
    """A network with the weights of a source."""

    title: str
    model: FrameworkModel | None
    """None if the network does not take these weights."""


def network_of(reading: Reading) -> SourceNetwork | None:
    """Return the source's own network with its weights, in eval mode; None if no installed library has it.

    A ResNet that the file names and timm knows is built by that name, because the name may mean what no weight shows.
    """
    library = _LIBRARY_OF.get(reading.layout.naming)
    backbone = reading.backbone
    if library is None:
        return None
    title, named = f"{library}'s network of this kind", False
    try:
        with quiet():
            built = timm.named(reading.architecture) if reading.architecture else None
            if built is not None:
                library, title, named = "timm", f"timm's {reading.architecture}", True
            else:
                express(backbone, library)
                built = FRAMEWORKS[library].build(backbone)
            load_into(built.model, backbone, library)
    except ImportError:
        return None
    except UserError:  # of another kind than its name says, or of a width or with pixels that the library does not have
        return SourceNetwork(title, None) if named else None
    built.model.eval()
    return SourceNetwork(title, built)

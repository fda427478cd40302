"""What is known of one framework: one `Framework` in one file of this folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from transfer.weights.naming import Naming

if TYPE_CHECKING:
    from torch import Tensor, nn

    from transfer.weights.backbone import Backbone

STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")


class FrameworkModel(NamedTuple):
    """A model of a framework, and how to run it."""

    model: nn.Module
    """The model; its tensors have the framework's names."""
    stages: dict[str, str]
    """Outputs to compare: stage of our own backbone -> module of ``model`` with the same output."""
    run: Callable[[Tensor], Any]
    """Run the backbone on images (B, 3, H, W) as the framework does."""
    pyramid_head: Callable[[Tensor], dict[str, Tensor]] | None = None
    """Return the maps of pyramid and head for images, named "p3", "p3 cls_subnet" and `pyramid_head.BOX`. None if absent."""
    maps: Callable[[Tensor], dict[str, Tensor]] | None = None
    """Return the maps of the stages for images, of a network whose stages are no modules. None if they are."""


def stages(stem: str, prefix: str = "", names: tuple[str, ...] = STAGES[1:]) -> dict[str, str]:
    """Return the modules of the stages of a ResNet: our stage -> name in the model."""
    return dict(zip(STAGES, [stem, *(prefix + name for name in names)], strict=True))


def nothing(_backbone: Backbone) -> str | None:
    """Return None: the framework has a network for every backbone of its variants."""
    return None


@dataclass(frozen=True)
class Framework:
    """Describe how one framework names the tensors of a backbone, what it can express, and how its model is built and loaded."""

    name: str
    """Key of `FRAMEWORKS`."""
    title: str
    words: tuple[str, ...]
    """Words behind ``--to`` that mean it."""
    variants: Mapping[str, Naming]
    """Variants of backbones (`BackboneSpec.variant`) that the framework can build -> their naming."""
    owns: re.Pattern[str]
    """Pattern that matches the start of each name in a model that belongs to the backbone."""
    build: Callable[[Backbone], FrameworkModel]
    """Return the framework's own model for a backbone, newly initialised."""
    load: Callable[[nn.Module, Path], None]
    """Load a file into such a model with the framework's own loader."""
    usage: Callable[[Backbone, Path], str]
    """Return the lines of the framework's configuration or program that use the file."""
    detector: str | None = None
    """Word behind ``--detector`` that means it."""
    reads: tuple[str, ...] = ()
    """Names of the formats that `load` reads as they are."""
    families: tuple[str, ...] = ()
    """Families of names (keys of `NAMINGS`) that are those of its own network, with which such a source is compared."""
    named: Callable[[str], FrameworkModel | None] | None = None
    """Return its own network of a name that a file declares ("resnet50d"), newly initialised; None if there is none."""
    proved_in: str | None = None
    """Model in which files are proved, if it is another framework's with the same code."""
    suffixes: tuple[str, ...] = (".pth", ".pt", ".safetensors")
    """Allowed file suffixes. The suffix decides how the file is written; safetensors files hold the tensors alone."""
    container: str | None = None
    """Entry of a PyTorch file that holds the weights, with notes beside it; None for a file of the weights alone."""
    counters: bool = True
    """Whether BatchNorm's ``num_batches_tracked`` is written."""
    pyramid_head: bool = False
    """Whether a pyramid and a head can be written, see `transfer.weights.pyramid_head`."""
    pixels: bool = True
    """Whether channel order, mean and std of pixels are settings. If not, they are RGB and those of ImageNet."""
    fit: Callable[[Backbone], Backbone] | None = None
    """Return a backbone as its model takes it, if that needs other weights; the backbone itself if it does not."""
    lacks: Callable[[Backbone], str | None] = nothing
    """Return what a backbone of its variants has that the framework has no network for; None if it has one."""
    translate: Callable[[Backbone], dict[str, Tensor]] | None = None
    """Return the tensors of a backbone by name (`NamedSpec`) by their names in a file, if more than names change."""
    config: Callable[[Backbone], dict[str, Any]] | None = None
    """Return the content of the config.json that the framework reads beside a file; empty for a backbone without one."""
    by_design: Mapping[str, re.Pattern[str]] = field(default_factory=dict)
    """Tensors in the backbone of a model that no checkpoint contains, by design: description -> pattern of names."""

    @property
    def options(self) -> str:
        """The options of `pixbench convert` that mean it."""
        return f"--to {self.words[0]}" + (f" --detector {self.detector}" if self.detector else "")


def tensors_in(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file that holds nothing else."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    import torch

    return torch.load(path, weights_only=True)


def reader(path: Path) -> str:
    """Return the expression that reads such a file in a program."""
    if path.suffix == ".safetensors":
        return f"safetensors.torch.load_file({str(path)!r})"
    return f"torch.load({str(path)!r}, weights_only=True)"

"""Description of a backbone that has a name: a network of timm, or a function of one's own.

It is separate from the network, so that reading a description needs neither PyTorch nor timm.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

_NAME = re.compile(r"timm:[\w.\-/]+|[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class NamedSpec:
    """Shape of a backbone that is built by its name.

    Args:
        name: "timm:NAME" for a network of timm, such as timm:convnext_tiny; "MODULE:FUNCTION" for one of your own, see
            docs/methods/backbones.md.
        options: arguments of the network by name, e.g. "{img_size: 64, drop_path_rate: 0.1}".
        output_stride: side in image pixels of a cell of the map that the method takes; 0 takes the last map.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    output_stride: int = 0

    variant: ClassVar[str] = "named"

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"backbone name {self.name!r} is not known; give resnet, timm:NAME (such as timm:vit_small_patch16_224) or "
                "MODULE:FUNCTION"
            )
        if self.output_stride < 0:
            raise ValueError(f"backbone output_stride {self.output_stride} is negative; give 0 for the last map")
        try:
            plain = json.loads(json.dumps(self.options))
        except TypeError as error:
            raise ValueError(f"backbone options must be plain numbers, words and lists ({error})") from error
        object.__setattr__(self, "options", plain)  # lists instead of tuples, as files have them

    def __hash__(self) -> int:
        return hash(json.dumps(self.as_dict(), sort_keys=True))

    @property
    def family(self) -> str:
        """The word "timm", or the module of a network of one's own."""
        return self.name.partition(":")[0]

    @property
    def function(self) -> str:
        """Name of the network within its family."""
        return self.name.partition(":")[2]

    @property
    def title(self) -> str:
        """Name and options in one phrase."""
        given = ", ".join(f"{key} {value}" for key, value in self.options.items())
        return self.name + (f" ({given})" if given else "")

    def with_drop_path(self, rate: float | None) -> NamedSpec:
        """Return the spec with a rate of stochastic depth; itself if the rate is None, or if the network is not one of timm."""
        if rate is None or self.family != "timm":
            return self
        return replace(self, options={**self.options, "drop_path_rate": rate})

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)

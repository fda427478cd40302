"""The published config of a protocol, resolved by the framework of the protocol."""

from __future__ import annotations

import json
from typing import Any

from transfer.protocols import Protocol


def published_config(protocol: Protocol) -> dict[str, Any]:
    """Return the config file of ``protocol``, resolved by its framework, as plain data."""
    if protocol.framework == "detectron2":
        from transfer.detection.config import config_as_dict, read_config

        return config_as_dict(read_config(protocol))
    if protocol.framework == "frozen":
        from transfer.frozen.config import published

        return published(protocol).as_dict()
    from mmengine.config import Config

    return dict(json.loads(json.dumps(Config.fromfile(str(protocol.config)).to_dict())))

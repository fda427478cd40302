"""The pre-training methods by the name they have in configs and checkpoints; one file each."""

from __future__ import annotations

from pretrain.methods.base import Method

METHODS: dict[str, type[Method]] = {}

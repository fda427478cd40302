"""The random trunk a run starts from when it has no weights."""

from __future__ import annotations

import torch

from pretrain.models.resnet import TrunkSpec
from transfer.weights.trunk import Trunk


def random_trunk(spec: TrunkSpec, seed: int) -> Trunk:
    """The trunk of ``spec`` as pre-training starts it (He fan-out, last gamma of each block 0), drawn from ``seed`` alone.

    Loaded through the same path as a checkpoint, so that rows of a table differ in the trunk's weights and in nothing else:
    the frameworks' own initialisations are others. The global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Trunk(spec, spec.build().state_dict(), f"random initialisation, seed {seed}")

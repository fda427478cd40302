"""Build the network of a frozen protocol on the CPU, send one small picture through it, and count the bytes of its features."""

from __future__ import annotations

import torch

from benchmarks.check.built import Built, Resolved
from pixbench.errors import UserError
from transfer.frozen import features
from transfer.frozen.config import FrozenConfig
from transfer.frozen.config import resolve as config_of
from transfer.frozen.fair_random import uncalibrated
from transfer.frozen.methods import METHODS
from transfer.frozen.network import for_images
from transfer.frozen.run import views_of
from transfer.job import TransferJob
from transfer.weights import Backbone

SIDE = 64
"""Side of the picture in pixels."""


def resolve(job: TransferJob, backbone: Backbone | None, processes: int) -> Resolved:
    """Return the config of ``job``; UserError if it has a mistake."""
    spec = backbone.spec if backbone else uncalibrated(job).spec
    config = config_of(job, spec)
    if job.batch is not None or job.accumulate > 1:
        raise UserError(f"{job.protocol.name} trains nothing in batches; leave out --batch and --accumulate")
    return Resolved(config, config.as_dict(), spec, batch=1, iterations=0, kept=0)


def build(job: TransferJob, config: FrozenConfig, backbone: Backbone) -> Built:
    """Build the network and compute the map of one picture; what the method adds to it is not known before.

    Raises:
        UserError: the network cannot be as the config wants it.
    """
    network = for_images(backbone, config.images)
    with torch.inference_mode():
        network(torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8))
    state = sum(x.numel() * x.element_size() for x in network.state_dict().values())
    return Built(state=state, trained=0, states=0, activations=None)


def features_of(job: TransferJob, config: FrozenConfig, backbone: Backbone) -> dict[str, int]:
    """Return the bytes of the features of each split that the method reads, by all that decides which features they are.

    Raises:
        UserError: the data is not as it should be.
    """
    network, found = for_images(backbone, config.images), {}
    for split in METHODS[config.method].SPLITS:
        views = views_of(job, config, split)
        found[f"{job.protocol.datasets} {split} {config.images} {len(views)}"] = features.size_of(network, views)[1]
    return found

"""Two real processes (gloo) against one with the doubled batch.

BN differs between one and two processes unless it is synchronised, which PyTorch does on GPUs only; so the methods run
with BN in evaluation mode here.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from tiny import VIT, backbone_for, views
from torch.nn.parallel import DistributedDataParallel

from pixbench.distributed import all_gather_cat, rank, world_size
from pretrain.data.views import Views
from pretrain.methods import METHODS
from pretrain.methods.base import Method
from pretrain.models.named_network import NamedNetwork
from pretrain.models.named_spec import NamedSpec
from pretrain.models.resnet import ResNet

pytestmark = pytest.mark.slow

BATCH = 4
KNOBS = {"hidden": 32, "dim": 16, "queue_size": 16, "classes": BATCH}
"""Small values of whichever of these a method has."""
VARIANTS = {name: {} for name in METHODS} | {
    "pixpro contrastive": {"instance": "contrastive"},
    "pixpro regression": {"instance": "regression"},
    "cds simclr": {"contrast": "simclr"},
    "simclr q-score": {"q_weight": 0.01},
    "cds semi": {"last_stage": True, "semi_supervised": True},
    "cds distilled": {"last_stage": True, "distill_temperature": 3.0},
    "ibot": {
        "mask_ratios": (1.0,),
        "mask_spreads": (0.0,),
        "mask_shape": "random",
    },  # else the processes draw other masks
    **{f"{name} on {family}": {} for name in ("pixpro", "densecl") for family in ("vit", "convnext")},
}
"""Name of a method, and what tells a variant of it -> its further knobs."""
NETWORKS = {
    "vit": VIT,
    "convnext": NamedSpec("timm:convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}, output_stride=16),
}
"""Last word of a variant -> its backbone, if it is no ResNet."""
LABELS = {"cds semi": [0, -1, -1, -1]}
"""Variant -> labels; the second process may have none."""


def build(variant: str) -> Method:
    method = METHODS[variant.split()[0]]
    knobs = {f.name: KNOBS[f.name] for f in fields(method.Config) if f.name in KNOBS} | VARIANTS[variant]
    torch.manual_seed(0)
    named = NETWORKS.get(variant.split()[-1])
    network = NamedNetwork(named) if named else backbone_for(variant.split()[0])
    model = method(network, method.Config(**knobs), total_steps=10)
    if variant == "cds distilled":
        model.take_teacher(method(ResNet((1, 1, 1, 1), width=1 / 16), method.Config(classes=BATCH), total_steps=10))
    return model.double().eval()


def batch(variant: str) -> Views:
    """The first and the last image are of one class, so that classes reach over the processes."""
    return views(BATCH, dtype=torch.float64)._replace(label=torch.tensor(LABELS.get(variant, [0, 1, 2, 0])))


def share(images: Views, of: int, processes: int) -> Views:
    return images.chunks(processes)[of]


def measure(model: torch.nn.Module, images: Views) -> dict[str, torch.Tensor]:
    loss = model(images)["loss"]
    loss.backward()
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    found = {f"grad/{n}": p.grad for n, p in inner.named_parameters() if p.grad is not None}
    found |= {n: b for n, b in inner.named_buffers() if n.startswith(("queue", "centre", "patch_centre"))}
    return found | {"loss": loss.detach()}


def process(index: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=index, world_size=2)
    assert (rank(), world_size()) == (index, 2)
    gathered = all_gather_cat(torch.full((2, 3), float(index)), grad=False)
    assert gathered.tolist() == [[0.0] * 3] * 2 + [[1.0] * 3] * 2
    results = {}
    for name in VARIANTS:
        model = DistributedDataParallel(build(name))
        results[name] = measure(model, share(batch(name), index, 2))
    torch.save(results, folder / f"{index}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, torch.Tensor]]]:
    folder = tmp_path_factory.mktemp("ddp")
    torch.multiprocessing.spawn(process, (folder,), nprocs=2)
    return [torch.load(folder / f"{index}.pt") for index in range(2)]


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_two_processes_equal_one(name: str, two_processes: list[dict[str, dict[str, torch.Tensor]]]) -> None:
    first, second = (results[name] for results in two_processes)
    expected = measure(build(name), batch(name))
    assert (first["loss"] + second["loss"]).item() / 2 == pytest.approx(expected.pop("loss").item(), abs=1e-12)
    assert expected.keys() == first.keys() - {"loss"}
    for key, value in expected.items():
        torch.testing.assert_close(first[key], value, rtol=1e-8, atol=1e-12, msg=lambda m, key=key: f"{key}: {m}")
        assert first[key].equal(second[key])


def test_one_process_without_a_group() -> None:
    x = torch.randn(2, 3, requires_grad=True)
    assert (rank(), world_size()) == (0, 1)
    assert all_gather_cat(x, grad=True) is x
    assert not all_gather_cat(x, grad=False).requires_grad

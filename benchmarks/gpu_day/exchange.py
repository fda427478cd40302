"""Exchange tensors between all processes, check what arrives, and measure how fast: a command that `torchrun` starts.

torchrun --standalone --nproc_per_node=8 -m benchmarks.gpu_day.exchange FILE
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from pixbench import distributed
from pixbench.errors import run_command
from pixbench.files import write_json
from pixbench.process_group import check_alike, process_group

TIMES = 10


def exchange(path: Path) -> None:
    """Try what training uses, and write the speed of the exchange of gradients to ``path``."""
    on_gpu = torch.cuda.is_available()
    kind, backend = ("cuda", "cpu:gloo,cuda:nccl") if on_gpu else ("cpu", "gloo")  # as in pretrain.engine
    megabytes = 256 if on_gpu else 4
    with process_group(kind, hours=0.05, backend=backend) as device:
        rank, size = distributed.rank(), distributed.world_size()
        own = torch.full((2, 3), float(rank), device=device, requires_grad=True)
        together = distributed.all_gather_cat(own, grad=True)
        together.sum().backward()
        assert together[::2, 0].tolist() == list(range(size)), together
        assert own.grad is not None
        assert own.grad.unique().tolist() == [size], own.grad
        assert distributed.mean_over_processes(own.detach())[0, 0] == (size - 1) / 2
        assert distributed.any_process(rank == size - 1, False) == [True, False]
        assert distributed.objects_of_all(rank) == list(range(size))
        check_alike("the exchange", {"size": size})
        block = torch.ones(megabytes * 250_000, device=device)
        for number in range(TIMES + 2):
            if number == 2:  # the first ones make connections
                _wait(on_gpu)
                began = time.perf_counter()
            dist.all_reduce(block, op=dist.ReduceOp.MAX)
        _wait(on_gpu)
        seconds = (time.perf_counter() - began) / TIMES
        if rank == 0:
            bus = 2 * (size - 1) / size * megabytes / 1000 / seconds  # what each link carries, as nccl-tests count it
            write_json(
                path, {"backend": dist.get_backend_config(), "MB": megabytes, "ms": 1000 * seconds, "GB/s a link": bus}
            )


def _wait(on_gpu: bool) -> None:
    if on_gpu:
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(run_command(lambda: exchange(Path(sys.argv[1])), name="gpu_day"))

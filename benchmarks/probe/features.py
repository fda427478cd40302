"""Features of a frozen backbone.

Shapes: n images, B images of a batch, C channels of C5.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.probe.parallel import gathered, in_turns
from pixbench.distributed import rank, world_size
from pixbench.errors import UserError, explain, is_out_of_memory
from pixbench.interrupt import shielded
from pixbench.shared_memory import shared_by_machine
from pretrain.data.centre_crops import Crops
from pretrain.data.folders import SUFFIXES, class_names, split_folder
from pretrain.data.index import Index
from pretrain.data.pixel_range import find_range
from pretrain.data.sources import Source, classes_in
from pretrain.models.resnet import build_resnet
from transfer.weights.backbone import Backbone


class Frozen(nn.Module):
    """A backbone in eval mode without gradients: images (n, 3, H, W) in RGB, 0 to 255 -> C5 (n, C, h, w).

    The images get the channel order and the normalisation that the backbone was trained with (`Backbone.pixels`).

    Args:
        backbone: a ResNet.
        output_stride: output stride that replaces the backbone's own.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, output_stride: int | None = None) -> None:
        super().__init__()
        self.network = build_resnet(
            replace(backbone.resnet, output_stride=output_stride or backbone.resnet.output_stride)
        )
        self.network.load_state_dict(backbone.state)
        self.reverse = backbone.pixels.order == "BGR"
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(backbone.pixels, name)).view(3, 1, 1))
        self.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.mean.device

    def forward(self, images: Tensor) -> Tensor:
        """Return C5 (n, C, h, w) of ``images`` (n, 3, H, W)."""
        images = images.to(self.device, non_blocking=True).to(self.mean.dtype)  # bytes travel, not floats
        return self.network(((images.flip(1) if self.reverse else images) - self.mean) / self.std)


@torch.inference_mode()
def embed(model: Frozen, source: Source, size: int, batch: int, workers: int) -> Tensor:
    """Return C5 of every image of ``source``, averaged over its cells, in the order of ``source``: (n, C) float32.

    The features are on the device of ``model``, in rank 0 only; the other processes get (0, C). Each process computes whole
    batches, those that one process would compute too, so the features do not depend on the number of processes.

    Raises:
        UserError: An image cannot be read, in any of the processes.
    """
    starts = range(0, len(source), batch)
    mine = [range(start, min(start + batch, len(source))) for start in starts[rank() :: world_size()]]
    features, first = room(len(source), model), 0
    for images in in_turns(loader(Crops(source, size), mine, _stacked, workers, model.device), len(starts)):
        part = features.new_zeros(batch, features.shape[1])
        if images is not None:
            part[: len(images)] = model(images).mean((2, 3))
        for rows in gathered(part):
            features[first : first + batch] = rows[: max(0, len(source) - first)]
            first += batch
    return features


def room(count: int, model: Frozen) -> Tensor:
    """Return a tensor for ``count`` features of ``model``: (count, C) float32 in rank 0, (0, C) in the other processes.

    Raises:
        UserError: There is not enough memory for it.
    """
    shape = count if rank() == 0 else 0, model.network.channels
    try:
        return torch.empty(shape, device=model.device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"{count} features of {shape[1]} channels take {4e-9 * math.prod(shape):.1f} GB, more memory than there is "
            f"({model.device}); use a machine with more, or fewer images"
        ) from error


def loader(
    dataset: Dataset[Any],
    batches: Sequence[Sequence[int]],
    collate: Callable[[list[Any]], Any],
    workers: int,
    device: torch.device,
) -> DataLoader[Any]:
    """Return a loader of ``batches`` of indices. What cannot be read is a `UserError` among the items that ``collate`` gets."""
    return shielded(
        DataLoader(
            _Attempts(dataset),
            batch_sampler=batches,  # type: ignore[arg-type]
            collate_fn=collate,
            num_workers=min(workers, len(batches)),
            pin_memory=device.type == "cuda",
        )
    )


class _Attempts(Dataset[Any]):
    """The items of ``dataset``. An error is returned, because a raised one would get the traceback of a worker."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self._dataset = dataset

    def __getitem__(self, index: int) -> Any:
        try:
            return self._dataset[index]
        except (UserError, OSError) as error:
            return UserError(explain(error))


def _stacked(images: list[Tensor | UserError]) -> Tensor | UserError:
    """Return the images as one tensor (B, 3, S, S), or the first error."""
    return next((image for image in images if isinstance(image, UserError)), None) or torch.stack(images)  # type: ignore[arg-type]


def cores() -> int:
    """Return the number of cores that this process may use: an equal share for each that torchrun started on this machine."""
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def class_folders(home: Path) -> tuple[Source, Source]:
    """Open the class folders ``home``/train and ``home``/val, in any capitals; hidden folders are no classes.

    Images of more than 8 bits are scaled in both by the range that those in train have.

    Raises:
        UserError: One is missing, holds a class without images, or they do not hold the same classes.
    """
    splits = {split: split_folder(home, split) for split in ("train", "val")}
    sources: list[Source] = []
    for split, folder in splits.items():
        if folder is None:
            what = "is missing" if home.is_dir() else f"is missing, as {home} is not a folder"
            raise UserError(
                f"{home / split} {what}; it must hold a folder of images for each class: put them there, or generate a mini "
                "world (pixbench data mini --root DIR)"
            )
        sources.append(Source(_listed(folder)))
    first, second = ({Path(name).parts[0] for name in source.names} for source in sources)
    if differ := sorted(first ^ second):
        capitals = {name.casefold() for name in first} == {name.casefold() for name in second}
        raise UserError(
            f"{splits['train']} and {splits['val']} contain different classes ({', '.join(differ[:5])}); "
            f"{'give them the same capitals' if capitals else 'add the missing ones'}"
        )
    found = find_range(sources[0])
    pixel_range = (found.low, found.high) if found else None
    train, val = (replace(source, pixel_range=pixel_range) for source in sources)
    return train, val


def _listed(folder: Path) -> Index:
    """List the images in the class folders of ``folder``: once on each machine, for all of its processes."""

    def found() -> Index:
        index = classes_in(folder, class_names(folder, "the folder"))
        if not len(index) or index.empty:
            where = folder / index.empty[0] if index.empty else folder
            raise UserError(
                f"{where} holds no images ({', '.join(SUFFIXES)}); {folder} must hold a folder of images for each class"
            )
        return index

    if world_size() == 1:
        return found()
    return shared_by_machine("pixbench-index", lambda stream: found().write(stream), lambda path, _: Index.read(path))

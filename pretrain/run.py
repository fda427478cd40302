"""Set up the run of a `RunConfig`: its images, network, optimiser and schedule, and all that its checkpoint holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from pixbench.distributed import processes_here, rank, world_size
from pixbench.errors import UserError
from pixbench.file_versions import CHECKPOINT_FILE
from pixbench.process_group import check_alike
from pixbench.provenance import now
from pixbench.usage import Usage
from pretrain import checkpoint, earlier, resume
from pretrain.bad_steps import BadSteps
from pretrain.config import flatten
from pretrain.cpu import bf16_note
from pretrain.data.in_flight import shortages
from pretrain.data.loader import Batches
from pretrain.data.order import EpochOrder
from pretrain.data.sources import Source
from pretrain.initial_weights import InitialWeights, check_backbone, require
from pretrain.methods import METHODS
from pretrain.methods.base import Method
from pretrain.models.families import build_backbone, check_images
from pretrain.optim import build_optimizer, scaled_lr
from pretrain.part_size import advice, check_part
from pretrain.schedule import LRSchedule
from pretrain.settings import RunConfig
from pretrain.teacher import add_teacher, find_teacher
from pretrain.undo import StatisticsGuard


@dataclass
class Run:
    """All objects of a run in progress. ``step`` is the number of finished steps."""

    config: RunConfig
    """Settings, with the range of pixel values that was found."""
    device: torch.device
    source: Source
    order: EpochOrder
    images: str
    """Fingerprint of ``source``."""
    method: Method
    model: nn.Module
    """``method``, wrapped in `DistributedDataParallel` if there are several processes."""
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    schedule: LRSchedule
    steps_per_epoch: int
    guard: StatisticsGuard
    bad_steps: BadSteps
    initial: dict[str, str] | None = None
    """Source and digest of the weights that the run started from."""
    teacher: dict[str, Any] | None = None
    """Source, digest and settings of the network that it distils from."""
    lengthened: list[list[int]] = field(default_factory=list)
    """Each time the run got more epochs: the step, the epochs before, the epochs now."""
    precisions: list[list[Any]] = field(default_factory=list)
    """Each time the run went on in another precision: the step, the precision before, the precision now."""
    notes: list[str] = field(default_factory=list)
    """What to tell the user at the start."""
    skipped: dict[int, str] = field(default_factory=dict)
    """Index of each broken image met so far -> what is wrong with it."""
    step: int = 0
    seconds: float = 0.0
    aside: float = 0.0
    """Seconds of this process that went into no step since it began: k-NN accuracies, a profile, keeping the first views."""
    finished: bool = False
    loaded: int = 0
    """Modification time in ns of the newest checkpoint when the run was set up; 0 if there was none."""
    started: str = field(default_factory=now)
    usage: Usage | None = None
    """What this process takes while it trains."""
    recovered: Path | None = None
    """Path of the earlier checkpoint that was loaded, if the newest one is damaged."""

    @property
    def out(self) -> Path:
        """Run folder."""
        return Path(self.config.out)

    @property
    def latest(self) -> Path:
        """Path of the checkpoint from which the run continues."""
        return self.out / CHECKPOINT_FILE

    @property
    def total_steps(self) -> int:
        """Number of steps of the whole run."""
        return self.config.epochs * self.steps_per_epoch


def setup(config: RunConfig, device: torch.device, initial: InitialWeights | None = None) -> Run:
    """Build all objects of the run, and load the newest good checkpoint in ``config.out`` if there is one.

    ``initial`` are the weights that ``config.init_from`` names; a run that is continued does not need them.
    """
    if not config.out:
        raise UserError("out is not set; give the folder for checkpoints and logs, for example --out runs/pixpro")
    if config.precision == "fp16" and device.type == "cpu":
        raise UserError("precision fp16 needs a GPU; use fp32 or bf16 on a CPU")
    if config.augment.device == "cuda" and device.type == "cpu":
        raise UserError("augment.device is cuda, but this process has no GPU; set it to cpu")
    loaded = modified(Path(config.out) / CHECKPOINT_FILE)
    found = earlier.find(Path(config.out))
    run = build(config, device, initial, found)
    run.loaded = loaded
    settings = {key: value for key, value in flatten(run.config.as_dict()).items() if key not in checkpoint.MAY_CHANGE}
    check_alike("this run", {"step": run.step, "images": run.images, **settings})
    if found is not None and found.note:
        run.recovered = found.path
        run.notes.insert(0, found.note)
    if world_size() > 1:
        # As in the official code, each process keeps its own BN buffers (on GPUs, the statistics are synchronised anyway).
        devices = [device] if device.type == "cuda" else None
        run.model = DistributedDataParallel(run.method, device_ids=devices, broadcast_buffers=False)
    return run


def build(config: RunConfig, device: torch.device, initial: InitialWeights | None, found: earlier.Found | None) -> Run:
    """Build all objects of the run as they are after the checkpoint ``found``, or at the start if it is None."""
    content = found.content if found is not None else None
    bf16_notes = [bf16_note()] if config.precision == "bf16" and device.type == "cpu" else []
    config, source, notes = resume.list_images(config, content)
    order = EpochOrder.of(source.index, config.data.shuffle_shards)
    steps_per_epoch = batches(config, order, 0, 0).per_epoch
    synchronised = world_size() > 1 and device.type == "cuda"  # there is no synchronised batch norm for CPUs
    check_part(config, world_size(), synchronised)
    record = initial.record() if initial else None
    if found is not None and content is not None:
        checkpoint.check_same_run(content, config.as_dict(), source.fingerprint(), found.path, record)
        initial, record = None, content.get("initial")  # they are in the checkpoint
    else:
        require(config.init_from, initial)
    torch.manual_seed(config.seed)
    check_crops(config)
    backbone = build_backbone(config.backbone, config.zero_init_residual)
    if initial is not None:
        check_backbone(initial, config.backbone)
        backbone.load_state_dict(initial.state)  # before the momentum encoder copies it
        notes.append(str(initial))
    # As in the official code (its variable K), the last, incomplete batch of an epoch counts here although it is left out.
    updates = int(len(order) / config.batch_size * config.epochs)
    method = METHODS[config.method.name](backbone, config.method.settings, updates)
    freeze(backbone, config.freeze)  # after the method, which says whose maps it takes, and so what learns
    teacher = find_teacher(config.method.settings, content.get("teacher") if content is not None else None)
    add_teacher(method, teacher)
    if teacher is not None and content is None:
        notes.append(str(teacher))
    if config.activation_checkpointing:
        method.backbone.keep_inputs_only()  # not the momentum encoder, which keeps nothing anyway
    method.steps_per_epoch = steps_per_epoch
    method.check_labels(int(source.labels.min()), int(source.labels.max()))
    method.to(device)
    if config.channels_last:
        method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if synchronised:
        method = nn.SyncBatchNorm.convert_sync_batchnorm(method)
    schedule = LRSchedule(
        config.schedule, scaled_lr(config.optimizer, config.batch_size), steps_per_epoch, config.epochs
    )
    run = Run(
        config=config,
        device=device,
        source=source,
        order=order,
        images=source.fingerprint(),
        method=method,
        model=method,
        optimizer=build_optimizer(method, config.optimizer),
        scaler=torch.amp.GradScaler(device.type, enabled=config.precision == "fp16"),
        schedule=schedule,
        steps_per_epoch=steps_per_epoch,
        guard=StatisticsGuard(method),
        bad_steps=BadSteps(config.max_bad_steps),
        initial=record,
        teacher=teacher.record() if teacher else None,
        notes=[*notes, *bf16_notes, *advice(config, source.labels), *too_little(config, device)],
    )
    if content is not None:
        load(run, content)
    return run


def check_crops(config: RunConfig) -> None:
    """Raise UserError if the network does not take the crops of ``config``, or the method no local crops."""
    data, name = config.data, config.method.name
    check_images(config.backbone, data.image_size)
    if not data.local_crops:
        return
    if not METHODS[name].takes_local_crops:
        raise UserError(f"data.local_crops is {data.local_crops}, but {name} does not use local crops; set it to 0")
    check_images(config.backbone, data.local_size)


def freeze(backbone: nn.Module, prefixes: Sequence[str]) -> None:
    """Keep the parameters of ``backbone`` whose names begin with one of ``prefixes`` as they are.

    Raises:
        UserError: No parameter has such a name, or none learns even without ``prefixes``.
    """
    if not any(weight.requires_grad for weight in backbone.parameters()):
        raise UserError(
            "the maps of this backbone depend on none of its parameters, so nothing in it can learn; leave out what cuts the "
            "gradient in its forward, such as detach() or torch.no_grad()"
        )
    for prefix in prefixes:
        found = [weight for name, weight in backbone.named_parameters() if name.startswith(prefix)]
        if not found:
            first = ", ".join(dict.fromkeys(name.rpartition(".")[0] for name, _ in backbone.named_parameters()))
            raise UserError(
                f"freeze: no parameter of the backbone begins with {prefix!r}; there are {first[:300]}, ..."
            )
        for weight in found:
            weight.requires_grad_(False)


def too_little(config: RunConfig, device: torch.device) -> list[str]:
    """Return a warning for each place of this machine that is too small for the batches in flight."""
    return [f"warning: {line}" for line in shortages(config, world_size(), processes_here(), gpu=device.type == "cuda")]


def batches(config: RunConfig, order: EpochOrder, first: int, last: int) -> Batches:
    """Return this process's part of the batches ``first``, ..., ``last - 1`` of the run."""
    return Batches(order, config.batch_size, seed=config.seed, first=first, last=last, rank=rank(), world=world_size())


def load(run: Run, content: dict[str, Any]) -> None:
    """Load the ``content`` of the run's checkpoint into ``run``. If ``run`` has more epochs, it is not finished."""
    run.method.load_state_dict(content["model"])
    run.optimizer.load_state_dict(content["optimizer"])
    run.scaler.load_state_dict(content["scaler"])
    run.step, run.seconds, run.finished = content["step"], content["seconds"], content["finished"]
    run.lengthened, run.skipped = content.get("lengthened", []), content.get("skipped", {})
    run.bad_steps = BadSteps(run.config.max_bad_steps, **content.get("bad_steps", {}))
    run.precisions = content.get("precisions", [])
    if (precision := content["config"].get("precision", "fp32")) != run.config.precision:
        run.precisions = [*run.precisions, [run.step, precision, run.config.precision]]
        run.bad_steps.in_a_row = 0
        run.notes.append(f"going on in {run.config.precision}; until step {run.step} it was {precision}")
    before, now = content["config"]["epochs"], run.config.epochs
    if now > before:
        run.finished = False
        run.lengthened = [*run.lengthened, [run.step, before, now]]
        run.notes.append(resume.lengthening(run.schedule, run.step, before, now))


def modified(path: Path) -> int:
    """Return the modification time of ``path`` in ns; 0 if there is no such file."""
    return path.stat().st_mtime_ns if path.exists() else 0

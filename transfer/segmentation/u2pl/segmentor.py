"""U2PL's student and teacher as a segmentor of MMSegmentation. Importing this file registers it and its hook.

Shapes: a batch has B labelled and B unlabelled pictures of H × W pixels, in turns; maps have h × w cells; K classes.
"""

from __future__ import annotations

import copy
from dataclasses import asdict
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmseg.models.segmentors import EncoderDecoder
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from torch import Tensor, nn

from transfer.segmentation.u2pl.contrast import Contrast, Memory, contrastive_loss, negatives
from transfer.segmentation.u2pl.losses import entropy, one_hot, pseudo_label_loss, shrunk, supervised, threshold
from transfer.segmentation.u2pl.mixing import IGNORED, mixed


class Teacher(nn.Module):
    """A copy of the student's backbone and decoder without gradients."""

    def __init__(self, backbone: nn.Module, decode_head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.decode_head = copy.deepcopy(backbone), copy.deepcopy(decode_head)
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, K, h, w) and representations (B, D, h, w) of images (B, 3, H, W)."""
        head: Any = self.decode_head
        return head.maps(self.backbone(images))


@MODELS.register_module()
class U2PL(EncoderDecoder):
    """A student that learns from labels and a teacher's pseudo-labels; the teacher, its moving average, is what is validated.

    Args:
        epochs: epochs of the schedule; the unreliable share of pixels falls to 0 over them.
        epoch_iterations: iterations of an epoch.
        warm_up_epochs: epochs on labelled pictures only.
        ema_decay: of the teacher.
        drop_percent: share of reliable pixels at the start, in percent.
        low_entropy_threshold: share of pixels that are reliable or unreliable in the contrastive loss at the start, in percent.
        mixing: one of `settings.MODES`, in half of the iterations.
        ohem: settings of `losses.supervised`.
        contrast_weight: weight of the contrastive loss. The authors' gradient of it is divided by the number of GPUs.
        contrast: settings of `Contrast`.
        memory: representations that the memory keeps of class 0 and of each other class.
        options: those of EncoderDecoder.
    """

    step: Tensor

    def __init__(
        self,
        *,
        epochs: int,
        epoch_iterations: int,
        warm_up_epochs: int,
        ema_decay: float,
        drop_percent: float,
        low_entropy_threshold: float,
        mixing: str,
        ohem: dict[str, float] | None,
        contrast_weight: float,
        contrast: dict[str, Any],
        memory: tuple[int, int],
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.epochs, self.epoch_iterations, self.warm_up_epochs = epochs, epoch_iterations, warm_up_epochs
        self.ema_decay, self.drop_percent, self.low_entropy_threshold = ema_decay, drop_percent, low_entropy_threshold
        self.mixing, self.ohem, self.contrast_weight = mixing, ohem, contrast_weight
        self.contrast = Contrast(**{**asdict(Contrast()), **contrast})
        self.memory = Memory([memory[0], *[memory[1]] * (self.num_classes - 1)], self.decode_head.channels)
        self.teacher = Teacher(self.backbone, self.decode_head)
        self.register_buffer("step", torch.zeros((), dtype=torch.long))  # iterations done; a run that goes on needs it

    @property
    def epoch(self) -> int:
        """The current epoch of the schedule."""
        return int(self.step) // self.epoch_iterations

    def loss(self, inputs: Tensor, data_samples: list[Any]) -> dict[str, Tensor]:
        """Return the losses of a batch (2B, 3, H, W) whose pictures are labelled and unlabelled in turns."""
        labels = torch.stack([sample.gt_sem_seg.data[0] for sample in data_samples[::2]]).long()
        if int(self.step) in (0, self.warm_up_epochs * self.epoch_iterations):
            self.follow(0)
        if self.epoch < self.warm_up_epochs:
            logits, representation, aux = self.student(inputs[::2])
            self.teacher.train()
            self.teacher(inputs[::2])  # for its BatchNorm statistics
            return {**self.supervised(logits, aux, labels), "loss_rest": 0 * representation.sum()}
        return self.semi_supervised(inputs[::2], labels, inputs[1::2])

    def semi_supervised(self, labelled: Tensor, labels: Tensor, unlabelled: Tensor) -> dict[str, Tensor]:
        """Return the three losses of pictures (B, 3, H, W) with ``labels`` (B, H, W) and pictures without."""
        count, left = len(labelled), 1 - self.epoch / self.epochs
        self.teacher.eval()
        pseudo = self.large(self.teacher(unlabelled)[0], unlabelled).argmax(1)
        if torch.rand(()) < 0.5:
            unlabelled, pseudo = mixed(unlabelled, pseudo, self.mixing)
        images = torch.cat([labelled, unlabelled])
        logits, representation, aux = self.student(images)
        self.teacher.train()
        opinion, centres = self.teacher(images)
        sure = self.large(opinion[count:], images)
        found = self.supervised(logits[:count], None if aux is None else aux[:count], labels)
        percent = 100 - (100 - self.drop_percent) * left
        found["loss_pseudo"] = pseudo_label_loss(self.large(logits[count:], images), pseudo, sure, percent)
        uncertainty, share, size = entropy(sure), self.low_entropy_threshold * left, logits.shape[2:]
        known = pseudo != IGNORED
        low = known & (uncertainty <= threshold(uncertainty, pseudo, share))
        high = known & (uncertainty >= threshold(uncertainty, pseudo, 100 - share))
        low, high = (shrunk(torch.cat([labels != IGNORED, cells])[:, None], size) for cells in (low, high))
        targets = shrunk(one_hot(torch.cat([labels, pseudo]), self.num_classes), size)
        chances = opinion.softmax(1)
        self.memory.gather(centres, negatives(chances, targets, high, count, self.contrast))
        contrast = contrastive_loss(representation, centres, chances, targets, low, self.memory, self.contrast)
        return {**found, "loss_contrast": self.contrast_weight * contrast}

    def student(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return logits (B, K, h, w), representations (B, D, h, w) and logits of the auxiliary head, if there is one."""
        maps = self.extract_feat(images)
        return *self.decode_head.maps(maps), self.auxiliary_head(maps) if self.with_auxiliary_head else None

    def supervised(self, logits: Tensor, aux: Tensor | None, labels: Tensor) -> dict[str, Tensor]:
        """Return the losses of the logits (B, K, h, w) of head and auxiliary head."""
        found = {"loss_labels": supervised(self.large(logits, labels), labels, self.ohem)}
        if aux is not None:
            weight = self.auxiliary_head.loss_decode.loss_weight
            found["loss_aux"] = weight * supervised(self.large(aux, labels), labels, self.ohem)
        return found

    def large(self, logits: Tensor, images: Tensor) -> Tensor:
        """Return logits at the height and width of ``images``."""
        return resize(logits, size=images.shape[-2:], mode="bilinear", align_corners=True)

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Move the teacher's parameters to the student's; at the very first, its statistics too."""
        for ours, theirs in ((self.backbone, self.teacher.backbone), (self.decode_head, self.teacher.decode_head)):
            if self.step == 0:
                theirs.load_state_dict(ours.state_dict())
            for new, old in zip(ours.parameters(), theirs.parameters(), strict=True):
                old.copy_(decay * old + (1 - decay) * new)

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict[str, Any]]) -> Tensor:
        """Return the logits (B, K, H, W) of the teacher, or of the student until the warm-up is over."""
        network: Any = self.teacher if self.step > self.warm_up_epochs * self.epoch_iterations else self
        return network.decode_head.predict(network.backbone(inputs), batch_img_metas, self.test_cfg)


@HOOKS.register_module()
class FollowStudent(Hook):
    """Move U2PL's teacher after each step of the optimiser, count the iterations, and save the memory with them.

    Where the authors' memory is empty when a run goes on, this one is that of the checkpoint.

    The authors' smaller momentum of the first 100 steps falls into the epoch in which teacher and student share their memory.
    """

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Update the teacher unless the warm-up is not over."""
        model = getattr(runner.model, "module", runner.model)
        since = int(model.step) - model.warm_up_epochs * model.epoch_iterations
        if since >= 0 and runner.optim_wrapper.should_update():
            first = since < model.epoch_iterations  # in this epoch the teacher is the student, as in the authors' code
            model.follow(0 if first else model.ema_decay)
        model.step += 1

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Put the memory into the checkpoint."""
        checkpoint["u2pl_memory"] = getattr(runner.model, "module", runner.model).memory.kept

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Take the memory of the checkpoint."""
        getattr(runner.model, "module", runner.model).memory.kept = checkpoint["u2pl_memory"]

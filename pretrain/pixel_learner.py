"""`PixelLearner`: PixPro or PixContrast, with the regression instance branch, around any network.

The arguments and the training loop are those of the package `pixel-level-contrastive-learning` 0.1.1. The losses, geometry,
PPM, heads, instance branch and momentum encoder are those of this project. `docs/methods/pixel_learner.md` lists the
differences.

Shapes: B batch, S image size, C channels, (H, W) map of cells, N = H·W.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from pixbench.errors import UserError
from pretrain.data.augment import BLUR_RADIUS, MEAN, RECIPES, STD, Photometric
from pretrain.data.views import Crop, Views, box_of, random_flip
from pretrain.losses import unit
from pretrain.losses.pixel import contrast_one_way, pulls
from pretrain.methods.base import add_up
from pretrain.models.heads import ConvHead
from pretrain.models.instance_branch import PixelConfig, add_instance_loss, instance_keys
from pretrain.models.layer_outputs import LayerOutputs, Layout
from pretrain.models.momentum_encoder import MomentumEncoder
from pretrain.models.ppm import PixelPropagation

BLUR_KERNEL = 13
"""Kernel size in pixels: three standard deviations of the widest blur on each side."""


class PixelLearner(nn.Module):
    """Compute the loss with ``learner(images)``; call ``learner.update_moving_average()`` after each optimiser step.

    loss = alpha · pixel loss + instance loss, in [−4 alpha − 4, 4 alpha + 4] with ``use_pixpro``. ``net`` is trained in
    place and can be used alone afterwards.

    Args:
        net: any network that takes images (B, 3, S, S); its own output is not used.
        image_size: S, side length of the views that are cut from the images.
        hidden_layer_pixel: layer whose output (B, C, H, W) is used for the pixel loss: a name of `net.named_modules()`, or an
            index into `net.children()`.
        hidden_layer_instance: the same for the instance loss; its output may also be (B, C).
        projection_size, projection_hidden_size: number of channels of the heads' outputs and hidden layers.
        augment_fn, augment_fn2: functions from views (B, 3, S, S) to the input of ``net``, for view 1 and view 2 (default:
            as for view 1). Without both: this project's "byol" recipe and ImageNet normalisation, after clamping to 0..1.
        prob_rand_hflip: probability of flipping a view.
        moving_average_decay: constant momentum of the momentum encoder.
        ppm_num_layers, ppm_gamma: settings of the PPM, see `PixelPropagation`.
        distance_thres: T: two cells at a distance below T cell diagonals are a positive pair.
        similarity_temperature: temperature τ of PixContrast.
        alpha: weight of the *pixel* loss, as in that package (elsewhere in this project, α weights the instance loss).
        use_pixpro: whether to use PixPro; if False, use PixContrast.
        cutout_ratio_range: range of a crop's side as a fraction of the image's side; the fraction is drawn uniformly.
        layout: order of the dimensions of both layers' maps: "NCHW", "NHWC" (B, H, W, C) or "tokens" (B, N, C); None takes it
            from the network, if that declares it.

    Raises:
        UserError: A layer does not exist (the message lists the existing layers), does not run, has no such output, or nothing
            declares the layout of its map.
    """

    def __init__(
        self,
        net: nn.Module,
        image_size: int,
        hidden_layer_pixel: str | int = -2,
        hidden_layer_instance: str | int = -2,
        projection_size: int = 256,
        projection_hidden_size: int = 2048,
        augment_fn: Callable[[Tensor], Tensor] | None = None,
        augment_fn2: Callable[[Tensor], Tensor] | None = None,
        prob_rand_hflip: float = 0.25,
        moving_average_decay: float = 0.99,
        ppm_num_layers: int = 1,
        ppm_gamma: float = 2,
        distance_thres: float = 0.7,
        similarity_temperature: float = 0.3,
        alpha: float = 1.0,
        use_pixpro: bool = True,
        cutout_ratio_range: tuple[float, float] = (0.6, 0.8),
        layout: Layout | None = None,
    ) -> None:
        super().__init__()
        low, high = cutout_ratio_range
        if not 0 < low <= high <= 1:
            raise UserError(
                f"cutout_ratio_range {cutout_ratio_range} must be two fractions of a side with 0 < low <= high <= 1"
            )
        self.image_size, self.hflip, self.cutout = image_size, prob_rand_hflip, (low, high)
        default = [_on_tensors(recipe) for recipe in RECIPES["byol"]]
        self.augment = (augment_fn or default[0], augment_fn2 or augment_fn or default[1])
        self.use_pixpro, self.temperature, self.alpha = use_pixpro, similarity_temperature, alpha
        self.threshold, hidden, dim = distance_thres, projection_hidden_size, projection_size
        self.instance_config = PixelConfig(instance="regression", alpha=1.0)  # read by `add_instance_loss`

        self.backbone = LayerOutputs(net, hidden_layer_pixel, hidden_layer_instance, layout)
        place = next(net.parameters())
        probe = copy.deepcopy(self.backbone).eval()  # a copy, so that the BN statistics of ``net`` do not change
        with torch.no_grad():
            pixel, instance = probe(torch.zeros(1, 3, image_size, image_size).to(place))
        self.projector = ConvHead(pixel.shape[1], hidden, dim)
        if use_pixpro:
            self.propagation = PixelPropagation(dim, ppm_num_layers, ppm_gamma)
        self.projector_instance = ConvHead(instance.shape[1], hidden, dim)
        self.predictor = ConvHead(dim, hidden, dim)
        self.to(place.device)
        self.momentum_encoder = MomentumEncoder(
            self, ("backbone", "projector", "projector_instance"), moving_average_decay
        )

    def forward(self, images: Tensor, return_positive_pairs: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss of images (B, 3, any, any) in 0..1; with ``return_positive_pairs``, also the number of such pairs."""
        if images.dim() != 4 or images.shape[1] != 3 or not images.is_floating_point() or len(images) < 2:
            what = f"{tuple(images.shape)} {images.dtype}"
            raise UserError(f"PixelLearner takes floating-point images (B, 3, H, W) in 0..1 with B > 1, not {what}")
        loss, positives = self.loss(self.views(images))
        return (loss, positives) if return_positive_pairs else loss

    def update_moving_average(self) -> None:
        """Move the momentum encoder towards the student."""
        self.momentum_encoder.update(self)

    @torch.no_grad()
    def views(self, images: Tensor) -> Views:
        """Cut two crops of each image. The random numbers come from PyTorch's global generator."""
        rng = random.Random(int(torch.randint(2**62, ())))
        height, width = images.shape[2:]
        index = torch.arange(len(images), device=images.device)
        made = []
        for augment in self.augment:
            crops = [self._crop(rng, width, height) for _ in images]
            cut = torch.stack([self._cut(image, crop) for image, crop in zip(images, crops, strict=True)])
            made.append((augment(cut), torch.tensor([box_of(c, width, height) for c in crops], device=images.device)))
        (view1, box1), (view2, box2) = made
        return Views(view1, view2, box1, box2, torch.full_like(index, -1), index)

    def loss(self, views: Views) -> tuple[Tensor, Tensor]:
        """Return the loss and the number of positive pairs of cells in the batch."""
        images, boxes = (views.view1, views.view2), (views.box1, views.box2)
        pixel, instance = zip(*(self.backbone(x) for x in images), strict=True)
        queries = [self.projector(x) for x in pixel]  # (B, C, H, W) each
        with torch.no_grad():
            momentum_pixel, momentum_instance = zip(*(self.momentum_encoder.backbone(x) for x in images), strict=True)
            keys = [unit(self.momentum_encoder.projector(x)) for x in momentum_pixel]
            of_instance = instance_keys(self.momentum_encoder, self.instance_config, momentum_instance)
        if self.use_pixpro:
            queries = [unit(self.propagation(x)) for x in queries]
            pull, count = pulls(keys, boxes, self.threshold)
            losses = [(query * towards).sum() for query, towards in zip(queries, pull, strict=True)]
        else:
            losses = []
            for view, query in enumerate(queries):
                loss, count = contrast_one_way(
                    unit(query), keys[1 - view], boxes[view], boxes[1 - view], self.threshold, self.temperature
                )
                losses.append(loss)
        scalars = add_up(
            [
                add_instance_loss(
                    self, self.instance_config, instance[view], of_instance, view, {"loss": self.alpha * loss}
                )
                for view, loss in enumerate(losses)
            ]
        )
        return scalars["loss"], count.sum().long()

    def _crop(self, rng: random.Random, width: int, height: int) -> Crop:
        fraction = rng.uniform(*self.cutout)
        w, h = max(int(fraction * width), 1), max(int(fraction * height), 1)
        return random_flip(rng, Crop(rng.randint(0, height - h), rng.randint(0, width - w), h, w), self.hflip)

    def _cut(self, image: Tensor, crop: Crop) -> Tensor:
        """Do the same as `pretrain.data.pil.cut`, for an image (3, H, W)."""
        side = [self.image_size, self.image_size]
        view = F.resized_crop(image, crop.top, crop.left, crop.height, crop.width, side, antialias=True)
        return view.flip(2) if crop.flipped else view


PixelCL = PixelLearner
"""Its name in the package `pixel-level-contrastive-learning`, whose programs then need no change but the import."""


def _on_tensors(recipe: Photometric) -> Callable[[Tensor], Tensor]:
    """Return a function for views (B, 3, S, S) in 0..1: ``recipe`` for each image separately, then ImageNet normalisation."""
    strengths = (recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue)
    change = v2.Compose(
        [
            v2.RandomApply([v2.ColorJitter(*strengths)], recipe.jitter),
            v2.RandomGrayscale(recipe.grey),
            v2.RandomApply([v2.GaussianBlur(BLUR_KERNEL, BLUR_RADIUS)], recipe.blur),
            v2.RandomSolarize(0.5, recipe.solarise),
            v2.Normalize(MEAN, STD),
        ]
    )
    return partial(_augment, change)


def _augment(change: Callable[[Tensor], Tensor], views: Tensor) -> Tensor:
    return torch.stack([change(view.clamp(0, 1)) for view in views])

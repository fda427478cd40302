"""`PixelLearner`: the loop its users know, on our losses."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from tiny import backbone, views
from torchvision import models

from pixbench.errors import UserError
from pretrain import PixelCL, PixelLearner
from pretrain.methods.pixcontrast import PixContrast
from pretrain.methods.pixpro import PixPro
from pretrain.models.layer_outputs import LayerOutputs, Layout

pytestmark = pytest.mark.slow


def small(**arguments: object) -> PixelLearner:
    settings = {"image_size": 64, "hidden_layer_pixel": "layer3", "projection_size": 16, "projection_hidden_size": 32}
    net = arguments.pop("net", None) or backbone()
    return PixelLearner(net, **{**settings, "hidden_layer_instance": "layer4", **arguments})  # type: ignore[arg-type]


def test_the_readme_example_of_the_package_runs(tmp_path: Path) -> None:
    """Only the import differs, and images and batch are smaller."""
    resnet = models.resnet50()
    learner = PixelCL(
        resnet,
        image_size=64,
        hidden_layer_pixel="layer4",
        hidden_layer_instance=-2,
        projection_size=256,
        projection_hidden_size=2048,
        moving_average_decay=0.99,
        ppm_num_layers=1,
        ppm_gamma=2,
        distance_thres=0.7,
        similarity_temperature=0.3,
        alpha=1.0,
        use_pixpro=True,
        cutout_ratio_range=(0.6, 0.8),
    )
    opt = torch.optim.Adam(learner.parameters(), lr=1e-4)

    def sample_batch_images() -> torch.Tensor:
        return torch.randn(4, 3, 64, 64)

    before = resnet.layer4[2].conv3.weight.clone()
    for _ in range(1):
        images = sample_batch_images()
        loss = learner(images)
        opt.zero_grad()
        loss.backward()
        assert -8 <= loss.item() <= 8
        opt.step()
        learner.update_moving_average()
    torch.save(resnet, tmp_path / "improved-resnet.pt")
    assert not torch.equal(resnet.layer4[2].conv3.weight, before)
    target = learner.momentum_encoder.backbone.net.layer4[2].conv3.weight
    assert not torch.equal(target, before)
    assert int(learner.momentum_encoder.step) == 1


def test_the_loop_with_positive_pairs(tmp_path: Path) -> None:
    learner = small(net=models.resnet18(), hidden_layer_instance=-2, use_pixpro=False)
    loss, pairs = learner(torch.rand(3, 3, 80, 72), return_positive_pairs=True)
    assert loss.isfinite()
    assert 0 < pairs <= 3 * 16 * 16
    torch.save(learner, tmp_path / "learner.pt")


def test_pixel_loss_is_that_of_pixpro() -> None:
    learner, batch = small(net=backbone(), hidden_layer_pixel="layer4"), views(count=4)
    method = PixPro(backbone(), PixPro.Config(hidden=32, dim=16, instance="regression", momentum=0.9), total_steps=10)
    _same_weights(learner, method)
    loss, pairs = learner.loss(batch)
    scalars = method(batch)
    torch.testing.assert_close(loss, scalars["loss"])
    assert pairs / 4 == scalars["positives"]


def test_pixel_loss_is_that_of_pixcontrast() -> None:
    learner, batch = small(hidden_layer_pixel="layer4", use_pixpro=False, alpha=0.5), views(count=4)
    method = PixContrast(backbone(), PixContrast.Config(hidden=32, dim=16, instance="regression"), total_steps=10)
    _same_weights(learner, method)
    scalars = method(batch)
    torch.testing.assert_close(learner.loss(batch)[0], 0.5 * scalars["loss_pixel"] + scalars["loss_instance"])


def _same_weights(learner: PixelLearner, method: PixPro | PixContrast) -> None:
    """Give ``method`` the weights of ``learner``; every name has to be there."""
    names = {
        name.replace("backbone.net.", "backbone."): value for name, value in copy.deepcopy(learner.state_dict()).items()
    }
    method.load_state_dict(names)


def test_views_show_what_their_boxes_say() -> None:
    """Pixel values are their own coordinates, so the mean of a view is the middle of its box, flipped or not."""
    learner = small(augment_fn=lambda x: x, prob_rand_hflip=0.5, cutout_ratio_range=(0.3, 0.6))
    y, x = torch.meshgrid(torch.linspace(0, 1, 90), torch.linspace(0, 1, 120), indexing="ij")
    torch.manual_seed(0)
    made = learner.views(torch.stack([x, y, x]).expand(8, 3, 90, 120))
    for view, box in ((made.view1, made.box1), (made.view2, made.box2)):
        assert view.shape == (8, 3, 64, 64)
        torch.testing.assert_close(view[:, 0].mean((1, 2)), (box[:, 0] + box[:, 2]) / 2, atol=2e-3, rtol=0)
        torch.testing.assert_close(view[:, 1].mean((1, 2)), (box[:, 1] + box[:, 3]) / 2, atol=2e-3, rtol=0)
        rising = view[:, 0, :, -1].mean(1) > view[:, 0, :, 0].mean(1)
        assert torch.equal(rising, box[:, 2] > box[:, 0])
        assert 0 < rising.sum() < 8
        assert ((box[:, 3] - box[:, 1]) <= 0.6).all()
    torch.manual_seed(0)
    assert torch.equal(made.box2, learner.views(torch.zeros(8, 3, 90, 120)).box2)


def test_each_view_has_its_augmentation_and_default_views_are_normalised() -> None:
    learner = small(augment_fn=torch.zeros_like, augment_fn2=torch.ones_like)
    made = learner.views(torch.rand(2, 3, 64, 64))
    assert made.view1.eq(0).all()
    assert made.view2.eq(1).all()
    made = small().views(torch.zeros(2, 3, 64, 64))
    assert made.view1.amin((0, 2, 3)).tolist() == pytest.approx([-2.118, -2.036, -1.804], abs=1e-3)


def test_wrapping_leaves_the_network_as_it_was() -> None:
    net = models.resnet18()
    before = copy.deepcopy(net.state_dict())
    learner = small(net=net, hidden_layer_instance="avgpool")
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training
    assert not any(module._forward_hooks for module in learner.modules())
    assert not any(p.requires_grad for p in learner.momentum_encoder.parameters())


def test_layers_by_index_are_children() -> None:
    learner = small(net=models.resnet18(), hidden_layer_pixel=-3, hidden_layer_instance=-1)
    assert learner.backbone.layers == ("layer4", "fc")
    assert learner(torch.rand(2, 3, 64, 64)).isfinite()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("layer5", r"no layer 'layer5'; choose from conv1, bn1, .*layer4\.0\.conv3"),
        (99, r"no layer 99; choose from its 8 children: conv1, bn1, relu, maxpool, layer1"),
    ],
)
def test_a_wrong_layer_lists_those_there_are(layer: str | int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        small(hidden_layer_pixel=layer)


def test_what_else_a_user_gets_wrong() -> None:
    with pytest.raises(UserError, match="cutout_ratio_range"):
        small(cutout_ratio_range=(0.8, 0.6))
    with pytest.raises(UserError, match=r"B > 1, not \(1, 3, 64, 64\)"):
        small()(torch.rand(1, 3, 64, 64))
    with pytest.raises(UserError, match=r"gives \(1, 4, 4094\), and that is not NCHW; say it with layout="):
        small(
            net=torch.nn.Sequential(torch.nn.Flatten(2), torch.nn.Conv1d(3, 4, 3)),
            hidden_layer_pixel=1,
            hidden_layer_instance=1,
        )


def test_importing_the_package_stays_light() -> None:
    code = "import sys, pretrain; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


TINY: dict[str, dict[str, Any]] = {
    "swin_tiny_patch4_window7_224": {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8], "img_size": 64},
    "vit_tiny_patch16_224": {"img_size": 64, "embed_dim": 32, "depth": 2, "num_heads": 2},
    "convnext_atto": {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]},
    "resnet18": {},
}
"""Networks of timm with channels last, tokens, and channels first with and without a declaration."""


@pytest.mark.parametrize(
    ("name", "layer", "layout", "channels"),
    [
        ("swin_tiny_patch4_window7_224", "layers.3", None, 64),
        ("vit_tiny_patch16_224", "blocks.1", None, 32),
        ("convnext_atto", "stages.3", "NCHW", 32),
        ("resnet18", "layer4", None, 512),
    ],
)
def test_channels_are_where_the_network_says(name: str, layer: str, layout: Layout | None, channels: int) -> None:
    net = timm.create_model(name, **TINY[name])
    learner = small(net=net, hidden_layer_pixel=layer, hidden_layer_instance=layer, layout=layout)
    assert learner.projector.linear1.in_channels == channels
    assert learner(torch.rand(2, 3, 64, 64)).isfinite()


def test_tokens_become_the_map_of_their_cells() -> None:
    net = timm.create_model("vit_tiny_patch16_224", **TINY["vit_tiny_patch16_224"]).eval()
    outputs = LayerOutputs(net, "norm", "norm")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(outputs(x)[0].flatten(2).transpose(1, 2), net.forward_features(x)[:, 1:])


@pytest.mark.parametrize(
    ("name", "layer", "layout", "message"),
    [
        (
            "convnext_atto",
            "stages.3",
            None,
            r"gives \(1, 32, 2, 2\), and nothing declares its layout; say it with layout=",
        ),
        ("resnet18", "layer4", "tokens", r"gives \(1, 512, 2, 2\), and that is not tokens"),
        ("vit_tiny_patch16_224", "blocks.1", "NHWC", r"gives \(1, 17, 32\), and that is not NHWC"),
    ],
)
def test_a_layout_that_is_not_declared_or_does_not_fit(
    name: str, layer: str, layout: Layout | None, message: str
) -> None:
    net = timm.create_model(name, **TINY[name])
    with pytest.raises(UserError, match=message):
        small(net=net, hidden_layer_pixel=layer, hidden_layer_instance=layer, layout=layout)

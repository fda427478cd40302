"""UniFormer's two kinds of blocks against loops, and the names of its parameters."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from examples.backbones.uniformer import Attention, LocalBlock, PatchEmbed, UniFormer


def randomise(module: nn.Module) -> None:
    """Give every parameter and running statistic a value of its own; norms would hide mistakes at their first ones."""
    torch.manual_seed(0)
    for value in (*module.parameters(), *(each for each in module.buffers() if each.is_floating_point())):
        value.data.uniform_(0.5, 1.5)


def depthwise_by_loops(x: np.ndarray, conv: nn.Conv2d) -> np.ndarray:
    """Add up, for each cell of ``x`` (C, h, w), the cells around it, by the affinity of each channel to each offset."""
    channels, height, width = x.shape
    affinity, bias = conv.weight.detach().numpy(), conv.bias.detach().numpy()  # type: ignore[union-attr]
    reach = affinity.shape[-1] // 2
    out = np.zeros_like(x)
    for c, row, column in np.ndindex(channels, height, width):
        out[c, row, column] = bias[c] + sum(
            affinity[c, 0, i - row + reach, j - column + reach] * x[c, i, j]
            for i in range(max(0, row - reach), min(height, row + reach + 1))
            for j in range(max(0, column - reach), min(width, column + reach + 1))
        )
    return out


def pointwise(x: np.ndarray, conv: nn.Conv2d) -> np.ndarray:
    return (
        np.einsum("oc,chw->ohw", conv.weight.detach().numpy()[:, :, 0, 0], x)
        + conv.bias.detach().numpy()[:, None, None]
    )  # type: ignore[union-attr]


def normalised(x: np.ndarray, norm: nn.BatchNorm2d) -> np.ndarray:
    mean, var, weight, bias = (
        value.detach().numpy()[:, None, None]  # type: ignore[union-attr]
        for value in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (x - mean) / np.sqrt(var + norm.eps) * weight + bias


def test_a_local_block_is_a_depthwise_5x5_affinity_between_pointwise_layers() -> None:
    block = LocalBlock(dim=3, mlp_ratio=2, drop_path=0).double().eval()
    randomise(block)
    x = np.random.default_rng(0).normal(size=(3, 7, 6))
    y = x + depthwise_by_loops(x, block.pos_embed)
    y = y + pointwise(depthwise_by_loops(pointwise(normalised(y, block.norm1), block.conv1), block.attn), block.conv2)
    hidden = torch.from_numpy(pointwise(normalised(y, block.norm2), block.mlp.fc1))
    y = y + pointwise(nn.functional.gelu(hidden).numpy(), block.mlp.fc2)
    with torch.no_grad():
        assert np.abs(block(torch.from_numpy(x)[None])[0].numpy() - y).max() < 1e-10


def test_a_local_block_sees_seven_cells_and_a_global_one_all() -> None:
    """3 × 3 for the position and 5 × 5 for the affinity reach three cells each way."""

    def influenced(net: nn.Module, x: Tensor) -> Tensor:
        changed = x.clone()
        changed[0, :, 6, 6] += 1
        return (net(x) != net(changed)).any(1)[0]

    net = UniFormer(depths=(1, 1, 1, 1), widths=(8, 8, 8, 8), head_dim=4).eval()
    x = torch.randn(1, 8, 13, 13)
    local = influenced(net.get_submodule("blocks1"), x)
    assert local.sum() == 49
    assert local[3:10, 3:10].all()
    assert influenced(net.get_submodule("blocks3"), x).all()


def test_global_attention_by_hand() -> None:
    """Two cells, one head of one channel: scores q·k are (0, 2 ln 3), so the first cell reads 1/10 of 10 and 9/10 of 20."""
    attention = Attention(dim=1, heads=1)
    with torch.no_grad():
        attention.qkv.weight[:] = torch.tensor([[1.0], [float(np.log(3))], [10.0]])
        attention.qkv.bias[:] = torch.tensor([1.0, -float(np.log(3)), 0.0])
        attention.proj.weight[:], attention.proj.bias[:] = 1, 0
        read = attention(torch.tensor([[[1.0], [2.0]]]))
    assert torch.allclose(read[0, 0], torch.tensor([0.1 * 10 + 0.9 * 20]))


def test_a_patch_at_the_edge_is_filled_up_with_zeros() -> None:
    embed = PatchEmbed(3, 4, stride=2)
    x = torch.randn(1, 3, 4, 5)
    filled = torch.cat([x, torch.zeros(1, 3, 4, 1)], dim=3)
    assert torch.equal(embed(x), embed(filled))


def test_names_are_those_of_the_authors_checkpoints() -> None:
    """The names of the public code's classifier without layer scale, without its head."""
    conv = ("weight", "bias")
    norm = (*conv, "running_mean", "running_var", "num_batches_tracked")
    local = {"pos_embed": conv, "norm1": norm, "conv1": conv, "conv2": conv, "attn": conv, "norm2": norm}
    whole = {"pos_embed": conv, "norm1": conv, "attn.qkv": conv, "attn.proj": conv, "norm2": conv}
    expected = {f"norm.{entry}" for entry in norm}
    for stage, block in enumerate((local, local, whole, whole), 1):
        parts = {**block, "mlp.fc1": conv, "mlp.fc2": conv}
        expected |= {f"blocks{stage}.0.{part}.{entry}" for part, entries in parts.items() for entry in entries}
        expected |= {f"patch_embed{stage}.{part}.{entry}" for part in ("proj", "norm") for entry in conv}
    state = UniFormer(depths=(1, 1, 1, 1), widths=(8, 16, 24, 32), head_dim=8).state_dict()
    assert set(state) == expected
    assert state["patch_embed1.proj.weight"].shape == (8, 3, 4, 4)
    assert state["patch_embed2.proj.weight"].shape == (16, 8, 2, 2)
    assert state["blocks2.0.mlp.fc1.weight"].shape == (64, 16, 1, 1)
    assert state["blocks3.0.mlp.fc1.weight"].shape == (96, 24)

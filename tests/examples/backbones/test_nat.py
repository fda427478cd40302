"""Neighbourhood attention against loops over cells, and the names of NAT's parameters."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from examples.backbones.nat import NAT, NeighborhoodAttention, nearest

CHECKPOINT = """
patch_embed.proj.0.weight 8,3,3,3   patch_embed.proj.0.bias 8
patch_embed.proj.1.weight 16,8,3,3  patch_embed.proj.1.bias 16
patch_embed.norm.weight 16          patch_embed.norm.bias 16
levels.0.blocks.0.norm1.weight 16   levels.0.blocks.0.norm1.bias 16
levels.0.blocks.0.attn.rpb 2,13,13
levels.0.blocks.0.attn.qkv.weight 48,16   levels.0.blocks.0.attn.qkv.bias 48
levels.0.blocks.0.attn.proj.weight 16,16  levels.0.blocks.0.attn.proj.bias 16
levels.0.blocks.0.norm2.weight 16         levels.0.blocks.0.norm2.bias 16
levels.0.blocks.0.mlp.fc1.weight 48,16    levels.0.blocks.0.mlp.fc1.bias 48
levels.0.blocks.0.mlp.fc2.weight 16,48    levels.0.blocks.0.mlp.fc2.bias 16
levels.0.downsample.reduction.weight 32,16,3,3
levels.0.downsample.norm.weight 32        levels.0.downsample.norm.bias 32
levels.1.blocks.0.norm1.weight 32         levels.1.blocks.0.norm1.bias 32
levels.1.blocks.0.attn.rpb 4,13,13
levels.1.blocks.0.attn.qkv.weight 96,32   levels.1.blocks.0.attn.qkv.bias 96
levels.1.blocks.0.attn.proj.weight 32,32  levels.1.blocks.0.attn.proj.bias 32
levels.1.blocks.0.norm2.weight 32         levels.1.blocks.0.norm2.bias 32
levels.1.blocks.0.mlp.fc1.weight 96,32    levels.1.blocks.0.mlp.fc1.bias 96
levels.1.blocks.0.mlp.fc2.weight 32,96    levels.1.blocks.0.mlp.fc2.bias 32
norm.weight 32  norm.bias 32
"""


def test_windows_at_the_ends_of_an_axis_are_moved_inwards() -> None:
    assert nearest(5, 3).tolist() == [[0, 1, 2], [0, 1, 2], [1, 2, 3], [2, 3, 4], [2, 3, 4]]
    assert nearest(2, 3).tolist() == [[0, 1], [0, 1]]


def by_loops(attention: NeighborhoodAttention, x: np.ndarray) -> np.ndarray:
    """The definition for one map (h, w, C): the k nearest rows and columns of a cell, one cell and head at a time."""
    k, heads = attention.kernel, attention.heads
    weights = {name: value.detach().numpy() for name, value in attention.named_parameters()}
    height, width, channels = x.shape
    d = channels // heads
    q, keys, values = np.split(x @ weights["qkv.weight"].T + weights["qkv.bias"], 3, axis=-1)
    read = np.zeros_like(x)
    for row in range(height):
        for column in range(width):
            rows = sorted(range(height), key=lambda other: abs(other - row))[:k]
            columns = sorted(range(width), key=lambda other: abs(other - column))[:k]
            for head in range(heads):
                part = slice(head * d, (head + 1) * d)
                near = [(i, j) for i in rows for j in columns]
                scores = [
                    q[row, column, part] @ keys[i, j, part] / d**0.5
                    + weights["rpb"][head, i - row + k - 1, j - column + k - 1]
                    for i, j in near
                ]
                shares = np.exp(scores) / np.exp(scores).sum()
                read[row, column, part] = sum(s * values[i, j, part] for s, (i, j) in zip(shares, near, strict=True))
    return read @ weights["proj.weight"].T + weights["proj.bias"]


@pytest.mark.parametrize("size", [(9, 8), (5, 5), (3, 7), (2, 1)])
def test_attention_is_that_of_a_loop_over_cells(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    attention = NeighborhoodAttention(dim=6, heads=2, kernel=5).double()
    torch.nn.init.normal_(attention.rpb)
    x = torch.randn(2, *size, 6, dtype=torch.double)
    expected = np.stack([by_loops(attention, each.numpy()) for each in x])
    assert np.abs(attention(x).detach().numpy() - expected).max() < 1e-12


def test_a_cell_far_away_has_no_influence() -> None:
    attention = NeighborhoodAttention(dim=4, heads=1, kernel=3)
    x = torch.randn(1, 7, 7, 4)
    changed = x.clone()
    changed[0, 3, 3] += 1
    differ = (attention(x) != attention(changed)).any(-1)[0].nonzero().tolist()
    assert differ == [[row, column] for row in (2, 3, 4) for column in (2, 3, 4)]


def test_names_are_those_of_the_authors_checkpoints() -> None:
    """The names and shapes of the public code's classifier, without its head."""
    words = CHECKPOINT.split()
    expected = {name: tuple(map(int, shape.split(","))) for name, shape in zip(words[::2], words[1::2], strict=True)}
    net = NAT(depths=(1, 1), width=16, head_dim=8)
    assert {name: tuple(value.shape) for name, value in net.state_dict().items()} == expected

"""Shunted attention: how many keys each half of the heads reads, a case by hand and one by loops; names of parameters."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from examples.backbones.shunted import ShuntedAttention, ShuntedTransformer


@pytest.mark.parametrize(("ratio", "cells", "coarse", "fine"), [(8, 56, 7, 14), (4, 28, 7, 14), (2, 14, 7, 14)])
def test_numbers_of_keys_of_the_paper_at_224_pixels(ratio: int, cells: int, coarse: int, fine: int) -> None:
    attention = ShuntedAttention(dim=4, heads=2, ratio=ratio)
    first, second = attention.merged(torch.randn(1, cells, cells, 4))
    assert (first.shape, second.shape) == ((1, coarse, coarse, 4), (1, fine, fine, 4))


def test_maps_that_the_ratio_does_not_divide_are_filled_up_with_zeros() -> None:
    attention = ShuntedAttention(dim=4, heads=2, ratio=4)
    x = torch.randn(1, 6, 9, 4)
    first, second = attention.merged(x)
    assert (first.shape, second.shape) == ((1, 2, 3, 4), (1, 4, 6, 4))
    filled = nn.functional.pad(x, (0, 0, 0, 3, 0, 2))
    assert torch.equal(first, attention.merged(filled)[0])


def averaging(conv: nn.Conv2d) -> None:
    """Let ``conv`` average each channel over its patch."""
    conv.weight.zero_()
    for channel in range(conv.out_channels):
        conv.weight[channel, channel] = 1 / math.prod(conv.kernel_size)


@torch.no_grad()
def test_shunted_attention_by_hand() -> None:
    """A map of 2 × 2 cells, ratio 2, two heads of one channel each.

    Head 1 has one key, the average of the four cells, so all cells read its value. Head 2 has the four cells as keys
    with scores 0, so all cells read their average. The norms are replaced by none; values are 1 and 2 times the second
    channel after GELU; the depthwise convolutions copy, so values count twice.
    """
    attention = ShuntedAttention(dim=2, heads=2, ratio=2)
    attention.norm1, attention.norm2 = nn.Identity(), nn.Identity()  # type: ignore[assignment]
    for module in attention.modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            module.bias.zero_()
    averaging(attention.sr1)
    averaging(attention.sr2)
    attention.q.weight.zero_()
    attention.kv1.weight[:] = torch.tensor([[5.0, 5.0], [0.0, 1.0]])  # key, value
    attention.kv2.weight[:] = torch.tensor([[5.0, 5.0], [0.0, 2.0]])
    for local in (attention.local_conv1, attention.local_conv2):
        local.weight.zero_()
        local.weight[0, 0, 1, 1] = 1
    attention.proj.weight[:] = torch.eye(2)
    second = torch.tensor([1.0, 2.0, 3.0, 6.0])
    x = torch.stack([torch.zeros(4), second], -1).view(1, 2, 2, 2)
    gelu = nn.functional.gelu
    expected = torch.stack([2 * gelu(torch.tensor(3.0)), 2 * 2 * gelu(second).mean()])
    assert torch.allclose(attention(x), expected.expand(1, 2, 2, 2), atol=1e-6)


def by_loops(attention: ShuntedAttention, x: Tensor) -> Tensor:
    """The definition for one map (h, w, C), one head and query at a time."""
    height, width, dim = x.shape
    d = dim // attention.heads
    half = attention.heads // 2
    read = torch.zeros_like(x)
    q = attention.q(x)
    for number in (1, 2):
        patch = attention.ratio // number
        conv, norm = attention.get_submodule(f"sr{number}"), attention.get_submodule(f"norm{number}")
        rows, columns = height // patch, width // patch
        merged = torch.zeros(rows, columns, dim, dtype=x.dtype)
        for i in range(rows):
            for j in range(columns):
                cells = x[i * patch : (i + 1) * patch, j * patch : (j + 1) * patch]
                merged[i, j] = torch.einsum("ocij,ijc->o", conv.weight, cells) + conv.bias  # type: ignore[arg-type, operator]
        kv = attention.get_submodule(f"kv{number}")(nn.functional.gelu(norm(merged)))
        keys, values = kv[..., : dim // 2], kv[..., dim // 2 :]
        local = attention.get_submodule(f"local_conv{number}")
        values = values + local(values.permute(2, 0, 1)[None])[0].permute(1, 2, 0)
        for head in range(half):
            part = slice(head * d, (head + 1) * d)
            whole = slice(((number - 1) * half + head) * d, ((number - 1) * half + head + 1) * d)
            for i in range(height):
                for j in range(width):
                    scores = (keys[..., part] * q[i, j, whole]).sum(-1) / d**0.5
                    shares = scores.flatten().softmax(0)
                    read[i, j, whole] = shares @ values[..., part].flatten(0, 1)
    return attention.proj(read)


@torch.no_grad()
def test_attention_is_that_of_a_loop_over_heads_and_cells() -> None:
    torch.manual_seed(0)
    attention = ShuntedAttention(dim=8, heads=4, ratio=2).double()
    x = torch.randn(2, 4, 6, 8, dtype=torch.double)
    expected = torch.stack([by_loops(attention, each) for each in x])
    assert torch.allclose(attention(x), expected, atol=1e-12)


@torch.no_grad()
def test_with_ratio_one_the_convolution_of_the_values_is_added_after_the_attention() -> None:
    attention = ShuntedAttention(dim=2, heads=1, ratio=1)
    x = torch.randn(1, 3, 4, 2)
    attention.proj.weight[:], attention.proj.bias[:] = torch.eye(2), 0
    attention.q.weight.zero_()
    attention.q.bias.zero_()
    values = attention.kv(x)[..., 2:]
    local = attention.local_conv(values.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    assert torch.allclose(attention(x), values.mean((1, 2), keepdim=True) + local, atol=1e-6)


def test_names_are_those_of_the_authors_checkpoints() -> None:
    """The names of the public code's classifier (`SSA.py`), without its head."""
    conv = ("weight", "bias")
    norm = (*conv, "running_mean", "running_var", "num_batches_tracked")
    expected = {f"patch_embed1.norm.{entry}" for entry in conv} | {
        "patch_embed1.conv.0.weight",
        "patch_embed1.conv.3.weight",
    }
    expected |= {f"patch_embed1.conv.{index}.{entry}" for index in (1, 4) for entry in norm}
    expected |= {f"patch_embed1.conv.6.{entry}" for entry in conv}
    merging = "sr1 norm1 sr2 norm2 kv1 kv2 local_conv1 local_conv2".split()
    for stage in range(1, 5):
        parts = [*(merging if stage < 4 else ("kv", "local_conv")), "q", "proj"]
        names = [f"attn.{part}" for part in parts] + ["norm1", "norm2", "mlp.fc1", "mlp.dwconv.dwconv", "mlp.fc2"]
        expected |= {f"block{stage}.0.{name}.{entry}" for name in names for entry in conv}
        expected |= {f"norm{stage}.{entry}" for entry in conv}
        if stage > 1:
            expected |= {f"patch_embed{stage}.{part}.{entry}" for part in ("proj", "norm") for entry in conv}
    state = ShuntedTransformer(depths=(1, 1, 1, 1), width=16, head_dim=8, stem_convs=1).state_dict()
    assert set(state) == expected
    assert state["patch_embed1.conv.0.weight"].shape == (16, 3, 7, 7)
    assert state["patch_embed2.proj.weight"].shape == (32, 16, 3, 3)
    assert state["block1.0.attn.sr1.weight"].shape == (16, 16, 8, 8)
    assert state["block1.0.attn.sr2.weight"].shape == (16, 16, 4, 4)
    assert state["block1.0.mlp.dwconv.dwconv.weight"].shape == (128, 1, 3, 3)
    assert state["block4.0.mlp.fc1.weight"].shape == (512, 128)

"""LDA-AQU against loops in float64, its start and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from oracles.points import read_point
from torch import Tensor

from mmdysample import build_upsampler
from mmdysample.upsamplers.lda_aqu import LDAAQU


def normalised(norm: torch.nn.LayerNorm, x: Tensor) -> Tensor:
    mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    weight, bias = norm.weight[:, None, None], norm.bias[:, None, None]
    return (x - mean) / (variance + norm.eps).sqrt() * weight + bias


def lda_aqu_oracle(up: LDAAQU, x: Tensor) -> Tensor:
    """Pixel by pixel, group by group, point by point; one image, everything in float64."""
    n, _, height, width = x.shape
    assert n == 1
    s, groups, heads, side = up.scale_factor, up.n_groups, up.nh, up.k_u
    fine_height, fine_width = s * height, s * width
    z = normalised(up.layer_norm.norm, x)
    key, coarse_query = up.proj_k(z)[0], up.proj_q(z)[0]
    ratio_y, ratio_x = ((height - 1) / (fine_height - 1), (width - 1) / (fine_width - 1))
    positions = torch.tensor([[ratio_y * y, ratio_x * x] for y in range(fine_height)
                              for x in range(fine_width)], dtype=x.dtype)  # fmt: skip
    query = torch.stack([read_point(coarse_query, *p) for p in positions], -1)
    query = query.unflatten(1, (fine_height, fine_width))
    offsets = []
    for block in query.chunk(groups):
        hidden = normalised(up.conv_offset[1].norm, up.conv_offset[0](block[None]))
        hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
        offsets.append(up.range_factor * up.conv_offset[3](hidden)[0].tanh())
    rows = []
    for row in range(fine_height):
        pixels = []
        for column in range(fine_width):
            keys, values = [], []
            for tap in range(side**2):
                ky, kx = divmod(tap, side)
                blocks = zip(key.chunk(groups), x[0].chunk(groups), strict=True)
                for group, (k, v) in enumerate(blocks):
                    o = offsets[group][2 * tap : 2 * tap + 2, row, column]
                    y = (row + o[0] + ky - side // 2) * ratio_y
                    z = (column + o[1] + kx - side // 2) * ratio_x
                    keys.append(read_point(k, y, z))
                    values.append(read_point(v, y, z))
            keys = torch.cat(keys).view(side**2, heads, -1)
            if up.relative_position_bias_table is not None:
                keys = keys + up.relative_position_bias_table.transpose(0, 1)
            q = query[:, row, column].view(heads, -1)
            weights = ((q * keys).sum(2) / math.sqrt(q.shape[1])).softmax(0)
            out = (weights[..., None] * torch.cat(values).view(side**2, heads, -1)).sum(0)
            pixels.append(out.flatten())
        rows.append(torch.stack(pixels, -1))
    return torch.stack(rows, -2)[None]


@pytest.mark.parametrize(
    ('scale_factor', 'options'),
    [
        (2, {}),
        (2, dict(nh=2, n_groups=1, k_e=1, rpb=False)),
        (3, dict(nh=2, n_groups=2, k_u=1, reduction_factor=2, range_factor=2.5)),
    ],
)
def test_equals_the_loops_with_gradients(scale_factor, options):
    up = build_upsampler(dict(type='lda_aqu', **options), 16, scale_factor)
    for parameter in up.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    exact = build_upsampler(dict(type='lda_aqu', **options), 16, scale_factor).double()
    exact.load_state_dict(up.state_dict())
    x = torch.randn(1, 16, 3, 4)
    inputs = [t.requires_grad_() for t in (x.clone(), x.double())]
    outs = [up(inputs[0]), lda_aqu_oracle(exact, inputs[1])]
    torch.testing.assert_close(outs[0].double(), outs[1], rtol=1e-4, atol=1e-5)
    for out in outs:
        (out * torch.arange(out.shape[-1], dtype=out.dtype)).sum().backward()
    pairs = [inputs, *zip(up.parameters(), exact.parameters(), strict=True)]
    for ours, theirs in pairs:
        bound = 1e-4 * theirs.grad.abs().max().clamp_min(1e-3)
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=0, atol=bound.item())


def test_starts_with_the_neighbours_on_the_output_grid():
    """No offsets, and with equal weights the mean of the interpolated 3x3 neighbours."""
    up = build_upsampler('lda_aqu', 8)
    assert not up.conv_offset[3].weight.any() and not up.conv_offset[3].bias.any()
    torch.nn.init.zeros_(up.proj_q.weight)
    x = torch.randn(2, 8, 5, 4)
    fine = F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=True)
    inner = F.avg_pool2d(fine, 3, stride=1)
    torch.testing.assert_close(up(x)[..., 1:-1, 1:-1], inner, rtol=1e-4, atol=1e-5)


def test_starts_as_published():
    up = build_upsampler('lda_aqu', 256)
    bound = math.sqrt(6 / (256 + 64))
    for projection in (up.proj_q, up.proj_k):
        assert 0.95 * bound < projection.weight.abs().max() <= bound
    assert up.relative_position_bias_table.std().item() == pytest.approx(0.02, rel=0.15)


def test_published_table_of_five_axes_loads_inside_a_network():
    network = torch.nn.ModuleList([build_upsampler('lda_aqu', 16)])
    state = network.state_dict()
    name = '0.relative_position_bias_table'
    expected = torch.randn(1, 1, 1, 9, 4)
    network.load_state_dict({**state, name: expected})
    assert torch.equal(network[0].relative_position_bias_table, expected[0, :, 0])
    with pytest.raises(RuntimeError, match=name.removeprefix('0.')):
        network.load_state_dict({**state, name: torch.randn(1, 2, 1, 9, 4)})


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        (dict(n_groups=3), ValueError, 'n_groups must divide in_channels=64 and the 16 channels'),
        (dict(nh=5), ValueError, 'nh must divide in_channels=64 .*, got 5'),
        (dict(reduction_factor=65), ValueError, 'the 0 channels that reduction_factor=65 leaves'),
        (dict(reduction_factor=0), ValueError, 'reduction_factor must be a positive integer'),
        (dict(k_u=2), ValueError, 'k_u must be a positive odd integer, got 2'),
        (dict(k_e=4), ValueError, 'k_e must be a positive odd integer, got 4'),
        (dict(range_factor='11'), TypeError, "range_factor must be a number, got '11'"),
        (dict(range_factor=0), ValueError, 'range_factor must be positive and finite, got 0'),
        (dict(rpb='no'), TypeError, "rpb must be True or False, got 'no'"),
    ],
)
def test_refusals(options, error, message):
    with pytest.raises(error, match=message):
        build_upsampler(dict(type='lda_aqu', **options), 64)

"""SAPA-D against loops in float64, its start and what it refuses."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from oracles.points import read_point
from torch import Tensor

from mmdysample import build_upsampler
from mmdysample.upsamplers.sapa_d import SAPADynamic


def sapa_d_oracle(up: SAPADynamic, x: Tensor, guide: Tensor) -> Tensor:
    """Pixel by pixel, group by group, point by point; one image, everything in float64."""
    s, groups, points = up.scale_factor, up.groups, up.num_point
    y, z = (guide, x) if up.norm_x is None else (up.norm_y(guide), up.norm_x(x))
    query, key, offset = up.q(y)[0], up.k(z)[0], up.offset(z)[0]
    rows = []
    for row in range(s * x.shape[2]):
        pixels = []
        for column in range(s * x.shape[3]):
            top, left = row // s, column // s
            out = []
            for group in range(groups):
                logits, values = [], []
                for point in range(points):
                    first = 2 * (group * points + point)
                    channels = [first, first + 1]
                    if up.high_offset:
                        channels = [c * s * s + row % s * s + column % s for c in channels]
                    o = offset[channels, top, left]
                    place = (top + o[1], left + o[0])
                    q = query.chunk(groups)[group][:, row, column]
                    logits.append(q @ read_point(key.chunk(groups)[group], *place))
                    values.append(read_point(x[0].chunk(groups)[group], *place))
                out.append(torch.stack(logits).softmax(0) @ torch.stack(values))
            pixels.append(torch.cat(out))
        rows.append(torch.stack(pixels, -1))
    return torch.stack(rows, -2)[None]


@pytest.mark.parametrize(
    ('scale_factor', 'channels', 'options'),
    [
        (2, 8, dict(num_point=3, groups=2, embedding_dim=4)),
        (3, 8, dict(num_point=2, groups=4, embedding_dim=3, high_offset=False, qkv_bias=False)),
        (2, 32, dict(num_point=2, groups=1, embedding_dim=5, norm=True)),
    ],
)
def test_equals_the_loops_with_gradients(scale_factor, channels, options):
    cfg = dict(type='sapa_d', **options)
    guide_channels = 64 if options.get('norm') else 6
    up, exact = (build_upsampler(cfg, channels, scale_factor, guide_channels) for _ in range(2))
    for parameter in up.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    exact.double().load_state_dict(up.state_dict())
    x = torch.randn(1, channels, 3, 2)
    guide = torch.randn(1, guide_channels, 3 * scale_factor, 2 * scale_factor)
    pairs = [[t.requires_grad_() for t in (f.clone(), f.double())] for f in (x, guide)]
    ours = up(pairs[0][0], pairs[1][0])
    theirs = sapa_d_oracle(exact, pairs[0][1], pairs[1][1])
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)
    for out in (ours, theirs):
        (out * torch.arange(out.shape[-1], dtype=out.dtype)).sum().backward()
    for one, other in [*pairs, *zip(up.parameters(), exact.parameters(), strict=True)]:
        bound = 1e-4 * other.grad.abs().max().clamp_min(1e-2)
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=0, atol=bound.item())


def test_points_on_the_parent_make_it_the_nearest_neighbour():
    up = build_upsampler('sapa_d', 8)
    torch.nn.init.zeros_(up.offset.weight)
    x, guide = torch.randn(2, 8, 3, 4), torch.randn(2, 8, 6, 8)
    expected = F.interpolate(x, scale_factor=2, mode='nearest')
    torch.testing.assert_close(up(x, guide), expected, rtol=1e-5, atol=1e-5)


def test_points_outside_take_weight_and_give_nothing():
    up = build_upsampler(dict(type='sapa_d', num_point=2, groups=1, high_offset=False), 4)
    for parameter in up.parameters():
        torch.nn.init.zeros_(parameter)
    up.offset.bias.data[0] = -9.0  # x of the first point; all similarities are 0
    x = torch.ones(1, 4, 3, 3)
    torch.testing.assert_close(up(x, torch.zeros(1, 4, 6, 6)), torch.full((1, 4, 6, 6), 0.5))


def test_starts_normal():
    up = build_upsampler('sapa_d', 64)
    for projection in (up.q, up.k, up.offset):
        assert projection.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert not projection.bias.any()


@pytest.mark.parametrize(
    ('options', 'guide_channels', 'error', 'message'),
    [
        (dict(groups=5), 48, ValueError, 'in_channels must be a multiple of 5, got 48'),
        (dict(norm=True), 64, ValueError, 'in_channels must be a multiple of 32, got 48'),
        (dict(norm=True), 40, ValueError, 'guide_channels must be a multiple of 32, got 40'),
        (dict(num_point=0), 48, ValueError, 'num_point must be a positive integer, got 0'),
        (dict(embedding_dim=-1), 48, ValueError, 'embedding_dim must be a positive integer'),
        (dict(high_offset='no'), 48, TypeError, "high_offset must be True or False, got 'no'"),
    ],
)
def test_refusals(options, guide_channels, error, message):
    with pytest.raises(error, match=message):
        build_upsampler(dict(type='sapa_d', **options), 48, guide_channels=guide_channels)

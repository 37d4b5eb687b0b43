"""The members of DySample that predict offsets from more than one pixel, against float64 loops."""

from __future__ import annotations

import math

import pytest
import torch
from oracles.points import clamped, read_point
from torch import Tensor

from mmdysample import DySample, build_upsampler
from mmdysample.sampling.positions import find_dysample, watch_sampling

CHANNELS = 8
MEMBERS = dict(dysample_guided='fine', dysample_context='context')
"""Types, and the part of each that is not DySample's."""

every_member = pytest.mark.parametrize('name', MEMBERS)


def conv_at(layer: torch.nn.Conv2d, feature: Tensor, row: int, column: int) -> Tensor:
    """A convolution's values at one pixel of ``(C, H, W)``, tap by tap, zeros outside."""
    depthwise = layer.groups > 1
    out = 0 if layer.bias is None else layer.bias
    high, broad = layer.kernel_size
    for i in range(high):
        for j in range(broad):
            y, x = row + i - high // 2, column + j - broad // 2
            if 0 <= y < feature.shape[1] and 0 <= x < feature.shape[2]:
                weight = layer.weight[:, :, i, j]
                value = feature[:, y, x]
                out = out + (weight[:, 0] * value if depthwise else weight @ value)
    return out


def conv(layer: torch.nn.Conv2d, feature: Tensor) -> Tensor:
    rows = [
        torch.stack([conv_at(layer, feature, r, c) for c in range(feature.shape[2])], -1)
        for r in range(feature.shape[1])
    ]
    return torch.stack(rows, -2)


def shuffled(feature: Tensor, s: int) -> Tensor:
    """``(C * s * s, H, W)`` to ``(C, sH, sW)`` by its definition."""
    out = feature.new_zeros(feature.shape[0] // s**2, s * feature.shape[1], s * feature.shape[2])
    for i in range(s):
        for j in range(s):
            out[:, i::s, j::s] = feature[i * s + j :: s * s]
    return out


def more_offsets(up: DySample, x: Tensor, guide: Tensor) -> Tensor:
    """What the member adds to offsets, then scopes, for each output pixel."""
    s = up.scale_factor
    if up.guided:
        coarse, (height, width) = conv(up.fine.feature, x), x.shape[1:]
        hidden = conv(up.fine.guide, guide).clone()
        for row in range(s * height):
            for column in range(s * width):
                place = (x.new_tensor((p + 0.5) / s - 0.5) for p in (row, column))
                hidden[:, row, column] += read_point(coarse, *clamped(*place, height, width))
        return conv(up.fine.offset, hidden.clamp(min=0))
    own = conv(up.context.reduce, x)
    around = conv(up.context.column, conv(up.context.row, conv(up.context.near, own)))
    return shuffled(conv(up.context.offset, (own + around).clamp(min=0)), s)


def oracle(up: DySample, x: Tensor, guide: Tensor) -> Tensor:
    """One image ``(C, H, W)``, output pixel by output pixel, group by group."""
    s, groups, (_, height, width) = up.scale_factor, up.groups, x.shape
    layers = [up.offset, *([up.scope] if up.dyscope else [])]
    if up.style == 'lp':
        own = torch.cat([shuffled(conv(layer, x), s) for layer in layers])
    else:
        own = torch.cat([conv(layer, shuffled(x, s)) for layer in layers])
    predicted = own + more_offsets(up, x, guide)
    out = x.new_zeros(x.shape[0], s * height, s * width)
    share = x.shape[0] // groups
    for row in range(s * height):
        for column in range(s * width):
            for group in range(groups):
                place = []
                for axis, pixel in ((1, row), (0, column)):  # x comes before y
                    start = (pixel + 0.5) / s - 0.5 if up.init == 'bilinear' else pixel // s
                    moved = up.scope_factor * predicted[axis * groups + group, row, column]
                    if up.dyscope:
                        gate = predicted[(2 + axis) * groups + group, row, column]
                        moved = moved / (1 + (-gate).exp())
                    place.append(start + moved)
                block = slice(group * share, (group + 1) * share)
                out[block, row, column] = read_point(x[block], *clamped(*place, height, width))
    return out


def stirred(name: str, scale_factor: int = 2, **options) -> DySample:
    """A layer in float64 all of whose weights matter."""
    channels = CHANNELS if scale_factor == 2 else 18
    up = build_upsampler(dict(type=name, **options), channels, scale_factor).double()
    for parameter in up.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return up


def features(up: DySample, n: int = 1, height: int = 3, width: int = 4) -> tuple[Tensor, Tensor]:
    s = up.scale_factor
    x = torch.randn(n, up.in_channels, height, width, dtype=torch.float64)
    return x, torch.randn(n, up.guide_channels, s * height, s * width, dtype=torch.float64)


@every_member
@pytest.mark.parametrize(
    ('scale_factor', 'options'),
    [
        (2, dict(style='lp', groups=2, dyscope=True)),
        (2, dict(style='pl', groups=1, dyscope=True, init='nearest', scope_bias=True)),
        (3, dict(style='lp', groups=2, dyscope=False, scope_factor=0.4)),
        (3, dict(style='pl', groups=2, dyscope=False)),
    ],
)
def test_equals_the_loops_with_gradients(name, scale_factor, options):
    own = dict(context_size=3) if name == 'dysample_context' else dict(guide_channels=5)
    up = stirred(name, scale_factor, embedding=3, **options, **own)
    results = []
    for run in (lambda x, guide: up(x, guide)[0], lambda x, guide: oracle(up, x[0], guide[0])):
        torch.manual_seed(0)
        x, guide = (t.requires_grad_() for t in features(up))
        up.zero_grad()
        out = run(x, guide)
        (out * torch.arange(out.shape[-1]).add(1).double()).sum().backward()
        leaves = [x, *([guide] if up.guided else []), *up.parameters()]
        results.append([out.detach(), *(leaf.grad.clone() for leaf in leaves)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@every_member
@pytest.mark.parametrize('init', ['bilinear', 'nearest'])
@pytest.mark.parametrize('dyscope', [False, True])
@pytest.mark.parametrize('style', ['lp', 'pl'])
def test_starts_exactly_as_dysample(name, style, dyscope, init):
    options = dict(style=style, groups=2, dyscope=dyscope, init=init)
    up = build_upsampler(dict(type=name, **options), CHANNELS)
    torch.nn.init.normal_(up.offset.weight)
    plain = build_upsampler(dict(type='dysample', **options), CHANNELS)
    left = plain.load_state_dict(up.state_dict(), strict=False)
    assert not left.missing_keys
    assert all(key.startswith(MEMBERS[name]) for key in left.unexpected_keys)
    x, guide = (t.float() for t in features(up, n=2))
    assert torch.equal(up(x, guide), plain(x))


@every_member
def test_the_new_part_learns_from_its_start(name):
    """Zeros at its end only: a first step moves them, and a second one what lies before."""
    up = build_upsampler(name, CHANNELS)
    x, guide = (t.float() for t in features(up, n=2))
    part = getattr(up, MEMBERS[name])
    for expected in ({'offset.weight'}, {key for key, _ in part.named_parameters()}):
        up.zero_grad()
        up(x, guide).square().sum().backward()
        moved = {key for key, p in part.named_parameters() if p.grad.count_nonzero()}
        assert moved == expected
        with torch.no_grad():
            for parameter in part.parameters():
                parameter.sub_(parameter.grad, alpha=0.1)


def test_context_sees_as_far_as_it_says():
    up = stirred('dysample_context', context_size=7, groups=1)
    x, _ = features(up, height=31, width=31)
    position, _ = up.sampling_positions(x)
    changed = []
    for distance in (5, 6):
        other = x.clone()
        other[..., 15 - distance, 15 + distance] += 1
        moved = up.sampling_positions(other)[0] - position
        changed.append(bool(moved[..., 30:32, 30:32].any()))
    assert changed == [True, False]  # 7 + 4 pixels are five to each side


def test_the_guide_moves_positions_and_stays_out_of_the_values():
    up = stirred('dysample_guided')
    x, guide = features(up, n=2, height=4)
    flat = torch.full_like(x, 3.0)
    torch.testing.assert_close(up(flat, 1e3 * guide), torch.full_like(guide, 3.0))
    size = (7, 8)
    finer = guide[..., :7, :]
    position, _ = up.sampling_positions(x, size, finer)
    other, _ = up.sampling_positions(x, size, finer.flip(1))
    assert position.shape == (2, 4, 2, 7, 8) and not torch.equal(position, other)
    seen = []
    handles = watch_sampling(find_dysample(up), lambda _, sampling: seen.append(sampling.position))
    up(x, guide=finer, size=size)
    [handle.remove() for handle in handles]
    assert torch.equal(seen[0], position)
    with pytest.raises(ValueError, match='DySampleGuided is guided: pass guide'):
        up.sampling_positions(x, size)


def test_counts_at_256_channels():
    plain = {dyscope: DySample(256, dyscope=dyscope) for dyscope in (False, True)}
    more = {}
    for name, dyscope in (('dysample_guided', True), ('dysample_context', False)):
        up = build_upsampler(name, 256)
        parameters = sum(p.numel() for p in up.parameters())
        parameters -= sum(p.numel() for p in plain[dyscope].parameters())
        more[name] = (parameters, up.macs(5, 7) - plain[dyscope].macs(5, 7))
    guided = 256 * 32 + 4 * (256 * 32 + 4 * 32 + 32 * 9 * 16)
    assert more['dysample_guided'] == (2 * 256 * 32 + 32 + 32 * 9 * 16, guided * 5 * 7)
    context = 256 * 32 + 32 * (25 + 21 + 21) + 32 * 32
    assert more['dysample_context'] == (context + 32, context * 5 * 7)


@pytest.mark.parametrize('backend', ['torch', 'native', 'gather'])
def test_backends_agree(backend):
    if backend == 'native':
        pytest.importorskip('numba')
    up = stirred('dysample_guided').float()
    x, guide = (t.float() for t in features(up, n=2))
    expected = up(x, guide)
    up.backend = backend
    torch.testing.assert_close(up(x, guide), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('dysample_guided', dict(embedding=0), 'embedding must be a positive integer, got 0'),
        ('dysample_guided', dict(guide_channels=2.0), 'guide_channels must be a positive integer'),
        ('dysample_guided', dict(groups=3), 'groups must be a positive integer that divides'),
        ('dysample_context', dict(context_size=4), 'context_size must be a positive odd integer'),
        ('dysample_context', dict(embedding='8'), "embedding must be .*, got '8'"),
    ],
)
def test_refusals(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_upsampler(dict(type=name, **options), CHANNELS)


def test_weights_start_with_the_variance_of_their_input():
    up = build_upsampler(dict(type='dysample_context', embedding=64), 256)
    for layer in (up.context.reduce, up.context.near, up.context.row, up.context.column):
        fan_in = layer.weight[0].numel()
        assert layer.weight.std().item() == pytest.approx(1 / math.sqrt(fan_in), rel=0.1)

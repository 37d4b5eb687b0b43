"""FreqFusion against loops in float64, its two results, its start, its counts and its refusals."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from oracles.points import clamped, read_point
from oracles.reassembly import reassemble_oracle
from torch import Tensor

from mmdysample import build_upsampler
from mmdysample.upsamplers.freqfusion import FreqFusion


def build(channels=16, guide_channels=None, **options) -> FreqFusion:
    """With weights far enough from their start for every one of them to matter."""
    up = build_upsampler(dict(type='freqfusion', **options), channels, 2, guide_channels)
    for parameter in up.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return up


def kernels_oracle(logits: Tensor, side: int, hamming: bool) -> Tensor:
    """Softmax over the taps, times a Hamming window's two factors, and again a sum of 1."""
    weights = []
    for tap, exponential in enumerate(logits.exp().unbind(1)):
        factor = 1.0
        if hamming:
            for m in divmod(tap, side):
                # The window is kept in float32, as published.
                factor *= 0.54 - 0.46 * math.cos(2 * math.pi * m / (side - 1))
            factor = torch.tensor(factor, dtype=torch.float32).double()
        weights.append(exponential * factor)
    return torch.stack(weights, 1) / sum(weights)[:, None]


def similarity_oracle(feature: Tensor) -> Tensor:
    """``(8, H, W)`` cosines of a feature ``(C, H, W)`` with its neighbours two pixels away."""
    _, height, width = feature.shape
    steps = [(y, x) for y in (-2, 0, 2) for x in (-2, 0, 2) if (y, x) != (0, 0)]
    maps = []
    for dy, dx in steps:
        values = []
        for row in range(height):
            for column in range(width):
                if 0 <= row + dy < height and 0 <= column + dx < width:
                    p, q = feature[:, row, column], feature[:, row + dy, column + dx]
                    values.append(p @ q / (p @ p).sqrt() / (q @ q).sqrt())
                else:
                    values.append(feature.new_zeros(()))
        maps.append(torch.stack(values).view(height, width))
    return torch.stack(maps)


def resample_oracle(part, upsampled: Tensor, fine: Tensor, coarse: Tensor) -> Tensor:
    """Read an upsampled feature where offsets in input pixels, from the parent, point to."""
    if part.norm_hr is not None:
        fine, coarse = part.norm_hr(fine), part.norm_lr(coarse)
    seen = []
    for feature in (fine, coarse):
        similarity = similarity_oracle(feature[0])[None]
        both = torch.cat((feature, similarity), 1)
        feature_only = part.offsets_from == 'similarity'
        seen.append((similarity, feature) if feature_only else (both, both))
    height, width = upsampled.shape[-2:]
    offset, scale = part.offset(seen[1][0])[0], part.direct_scale(seen[1][1])[0]
    fine_offset, fine_scale = part.hr_offset(seen[0][0])[0], part.hr_direct_scale(seen[0][1])[0]
    rows = []
    for row in range(height):
        pixels = []
        for column in range(width):
            (top, i), (left, j) = divmod(row, 2), divmod(column, 2)
            out = []
            for group, channels in enumerate(upsampled[0].chunk(part.groups)):
                moves = []
                for axis in range(2):
                    block = axis * part.groups + group
                    channel = (block * 2 + i) * 2 + j
                    move = offset[channel, top, left] + fine_offset[block, row, column]
                    logit = scale[channel, top, left] + fine_scale[block, row, column]
                    start = part.init_pos[0, channel, 0, 0]
                    moves.append(move / (1 + (-logit).exp()) + start)
                x = 2 * (left + moves[0] + 0.5) - 0.5
                y = 2 * (top + moves[1] + 0.5) - 0.5
                out.append(read_point(channels, *clamped(y, x, height, width)))
            pixels.append(torch.cat(out))
        rows.append(torch.stack(pixels, -1))
    return torch.stack(rows, -2)[None]


def fuse_oracle(up: FreqFusion, x: Tensor, guide: Tensor, hamming: bool) -> tuple[Tensor, Tensor]:
    """Both results of one image, step by step; everything in float64."""
    low_side, high_side = up.lowpass_kernel, up.highpass_kernel

    def low(logits: Tensor) -> Tensor:
        return kernels_oracle(logits, low_side, hamming)

    def high(logits: Tensor) -> Tensor:
        return kernels_oracle(logits, high_side, hamming)

    fine, coarse = up.hr_channel_compressor(guide), up.lr_channel_compressor(x)
    first = up.content_encoder2(fine)
    sharp = 2 * fine - reassemble_oracle(fine, high(first), high_side, 1, 1)
    logits = up.content_encoder(sharp)
    logits = logits + reassemble_oracle(up.content_encoder(coarse), low(logits), low_side, 1, 2)
    lowpass = low(logits)
    second = first + reassemble_oracle(up.content_encoder2(coarse), lowpass, low_side, 1, 2)
    enhanced = 2 * guide - reassemble_oracle(guide, high(second), high_side, 1, 1)
    out = reassemble_oracle(x, lowpass, low_side, 1, 2)
    if up.dysampler is not None:
        out = resample_oracle(up.dysampler, out, sharp, coarse)
    return out, enhanced


@pytest.mark.parametrize(
    'options',
    [
        dict(feature_resample_group=2),
        dict(lowpass_kernel=3, offsets_from='similarity', hamming_window=False),
        dict(lowpass_kernel=3, highpass_kernel=5, feature_resample_norm=False),
        dict(lowpass_kernel=3, feature_resample=False),
    ],
)
def test_equals_the_loops_with_gradients(options):
    up = build(8, 6, compressed_channels=16, **options).double()
    pair = torch.randn(1, 8, 3, 4).double(), torch.randn(1, 6, 6, 8).double()
    window = options.get('hamming_window', True)
    results = []
    for run in (up.fuse, lambda x, guide: fuse_oracle(up, x, guide, window)):
        inputs = [tensor.clone().requires_grad_() for tensor in pair]
        outs = run(*inputs)
        up.zero_grad()
        sum((out * torch.arange(8.0)).sum() for out in outs).backward()
        grads = [p.grad.clone() for p in up.parameters()]
        results.append([*outs, *(tensor.grad for tensor in inputs), *grads])
    for ours, theirs in zip(*results, strict=True):
        bound = 1e-9 * theirs.abs().max().clamp_min(1e-3)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=bound.item())


@pytest.mark.parametrize('size', [(10, 12), (9, 11)])
def test_details_make_a_pyramids_sum_that_of_the_two_results(size):
    """Where the pyramid is odd, the guide's last row and column are repeated and then cut."""
    up, x, guide = build(details=True), torch.randn(2, 16, 5, 6), torch.randn(2, 16, *size)
    pair = up.fuse(x, guide, size)
    missing = (0, 12 - size[1], 0, 10 - size[0])
    whole = torch.nn.functional.pad(guide, missing, mode='replicate')
    out, enhanced = up.fuse(x, whole)
    for one, other in zip(pair, (out, enhanced), strict=True):
        assert torch.equal(one, other[..., : size[0], : size[1]])
    merged = (out + enhanced)[..., : size[0], : size[1]]
    torch.testing.assert_close(guide + up(x, guide, size), merged, rtol=1e-5, atol=1e-5)
    up.details = False
    assert torch.equal(up(x, guide, size), out[..., : size[0], : size[1]])


def test_offsets_of_zero_resample_nothing():
    up, x, guide = build(), torch.randn(2, 16, 3, 4), torch.randn(2, 16, 6, 8)
    for layer in (up.dysampler.offset, up.dysampler.hr_offset):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    resampled = up(x, guide)
    up.dysampler = None
    torch.testing.assert_close(resampled, up(x, guide), rtol=1e-4, atol=1e-5)


def test_flat_features_stay_away_from_the_border():
    """The kernels sum to 1, so smoothing changes nothing there; weight outside the map is lost."""
    up = build_upsampler(dict(type='freqfusion', feature_resample=False), 16)
    x, guide = torch.full((1, 16, 6, 6), 3.0), torch.full((1, 16, 12, 12), -2.0)
    out, enhanced = up.fuse(x, guide)
    torch.testing.assert_close(out[..., 4:-4, 4:-4], x[..., :4, :4])
    torch.testing.assert_close(enhanced[..., 1:-1, 1:-1], guide[..., :10, :10])
    assert (out[..., 0, :] < 2.99).all() and (enhanced[..., 0, :] < -2.01).all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('details', [False, True])
def test_half_precision_is_computed_in_float32(dtype, details):
    up = build(details=details).to(dtype)
    x, guide = torch.randn(2, 16, 5, 6).to(dtype), torch.randn(2, 16, 10, 12).to(dtype)
    single = copy.deepcopy(up).float()
    assert torch.equal(up(x, guide), single(x.float(), guide.float()).to(dtype))
    expected = single.fuse(x.float(), guide.float())
    for one, other in zip(up.fuse(x, guide), expected, strict=True):
        assert torch.equal(one, other.to(dtype))


def test_autocast_changes_nothing():
    up, x, guide = build(details=True), torch.randn(2, 16, 5, 6), torch.randn(2, 16, 10, 12)
    expected, both = up(x, guide), up.fuse(x, guide)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(up(x, guide), expected)
        assert all(torch.equal(*pair) for pair in zip(up.fuse(x, guide), both, strict=True))


def test_an_empty_batch_with_details():
    up = build(details=True)
    x, guide = torch.randn(0, 16, 3, 4, requires_grad=True), torch.randn(0, 16, 5, 8)
    out = up(x, guide, (5, 8))
    assert out.shape == (0, 16, 5, 8)
    out.sum().backward()
    assert all(not p.grad.any() for p in [x, *up.parameters()])


def test_channels_last_with_details():
    up, pair = build(details=True), (torch.randn(2, 16, 5, 6), torch.randn(2, 16, 10, 12))
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x, guide = (t.clone(memory_format=memory_format).requires_grad_() for t in pair)
        out = copy.deepcopy(up).to(memory_format=memory_format)(x, guide)
        (out * torch.arange(12.0)).sum().backward()
        results.append((out, x.grad, guide.grad))
    for one, other in zip(*results, strict=True):
        bound = 1e-4 * other.abs().max()
        torch.testing.assert_close(one, other, rtol=0, atol=bound.item())


def test_starts_as_published():
    """All Xavier uniform, the offsets too, but the two encoders."""
    up = build_upsampler('freqfusion', 256)
    for encoder in (up.content_encoder, up.content_encoder2):
        assert encoder.weight.std().item() == pytest.approx(0.001, rel=0.1)
    part = up.dysampler
    drawn = [up.hr_channel_compressor, up.lr_channel_compressor, part.offset, part.direct_scale]
    for layer in [*drawn, part.hr_offset, part.hr_direct_scale]:
        fans = (layer.in_channels + layer.out_channels) * layer.kernel_size[0] ** 2
        bound = math.sqrt(6 / fans)
        assert 0.95 * bound < layer.weight.abs().max() <= bound
    layers = [m for m in up.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.GroupNorm)]
    assert len(layers) == 10 and not any(layer.bias.any() for layer in layers)
    assert (part.norm_hr.weight == 1).all() and (part.norm_lr.weight == 1).all()


def count(**options) -> int:
    up = build_upsampler(dict(type='freqfusion', **options), 256)
    return sum(parameter.numel() for parameter in up.parameters())


def test_parameters_at_256_channels_are_the_published_ones():
    compressors, encoders = 2 * 64 * (256 + 1), (25 + 9) * (64 * 9 + 1)
    offsets = 2 * (32 + 8) * ((64 + 8) * 9 + 1)
    assert count() == compressors + encoders + offsets + 2 * 2 * 64 == 104_690
    assert count(feature_resample_norm=False) == 104_434
    assert count(offsets_from='similarity', compressed_channels=128) == 154_546


def test_macs_at_256_channels():
    """Per input pixel, four output pixels each."""
    compressors = (1 + 4) * 256 * 64
    sharpening = 4 * (64 * 9 * 9 + 64 * 9)  # 3x3 logits of a 3x3 kernel, and 64 channels smoothed
    lowpass = (4 + 1) * 64 * 25 * 9 + 4 * 25 * 25  # logits of guide and x, the latter reassembled
    reassembly = 4 * 25 * 256
    similarities = (4 + 1) * 8 * 64
    offsets = 2 * 72 * 9 * 32 + 4 * 2 * 72 * 9 * 8 + 4 * 8  # of both; each is scaled
    corners = 4 * 4 * 256
    plain = compressors + sharpening + lowpass + reassembly + similarities + offsets + corners
    assert build_upsampler('freqfusion', 256).macs(5, 7) == plain * 5 * 7
    details = 64 * 9 * 9 + 4 * 9 * 25 + 4 * 9 * 256  # logits of x reassembled, the guide smoothed
    cfg = dict(type='freqfusion', details=True)
    assert build_upsampler(cfg, 256).macs(5, 7) == (plain + details) * 5 * 7
    cfg = dict(type='freqfusion', feature_resample=False)
    rest = plain - similarities - offsets - corners
    assert build_upsampler(cfg, 256).macs(5, 7) == rest * 5 * 7


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        (dict(scale_factor=4), ValueError, 'scale_factor must be 2 for FreqFusion, got 4'),
        (dict(feature_resample_group=5), ValueError, 'in_channels must be a multiple of 5, got 48'),
        (dict(compressed_channels=30), ValueError, 'compressed_channels must be a multiple of 4'),
        (dict(compressed_channels=28), ValueError, 'compressed_channels must be a multiple of 3'),
        (dict(lowpass_kernel=4), ValueError, 'lowpass_kernel must be a positive odd integer'),
        (dict(highpass_kernel=0), ValueError, 'highpass_kernel must be a positive odd integer'),
        (dict(compressed_channels=0), ValueError, 'compressed_channels must be a positive integer'),
        (dict(offsets_from='sim'), ValueError, r"offsets_from must be one of .*, got 'sim'"),
        (dict(details='no'), TypeError, "details must be True or False, got 'no'"),
        (dict(hamming_window=1), TypeError, 'hamming_window must be True or False, got 1'),
        (dict(feature_resample=0), TypeError, 'feature_resample must be True or False, got 0'),
        (dict(details=True, guide_channels=32), ValueError, 'details=True needs guide_channels '),
    ],
)
def test_refusals(options, error, message):
    options = {'type': 'freqfusion', **options}
    factor = options.get('scale_factor', 2)
    with pytest.raises(error, match=message):
        build_upsampler(options, 48, factor)

"""Analytic multiply-accumulates against PyTorch's counter, operator by operator."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmdysample import build_upsampler
from mmdysample.costs.complexity import UPSAMPLERS
from mmdysample.upsamplers import DySample

CHANNELS, HEIGHT, WIDTH = 64, 12, 18
OUTPUTS = 4 * HEIGHT * WIDTH

# What no convolution does, per output pixel, by hand.
BEYOND_CONVOLUTIONS = {
    'nearest': 0,
    'bilinear': 4 * CHANNELS,
    'deconv': 0,
    'pixel_shuffle': 0,
    'carafe': 25 * CHANNELS,
    'indexnet': CHANNELS,  # times the index map
    'a2u': 9 * CHANNELS + (CHANNELS + 36) / 4,  # U times V, then 36 multiples of their sum, coarse
    'fade': 25 * CHANNELS + 2 * CHANNELS,  # taps; gate times guide, its complement times the rest
    'fade_lite': 25 * CHANNELS + 2 * CHANNELS,
    'sapa_b': 25 * 32 + 25 * CHANNELS,  # inner products of 32 channels; taps
    'sapa_i': 25 * CHANNELS + 25 * CHANNELS,
    # Nine points: four corners of key and value each, and their products with query and weight.
    'sapa_d': 9 * (4 + 1) * (128 + CHANNELS),
    'lda_aqu': 4 * 16 + 9 * (4 + 1) * (16 + CHANNELS),  # four corners of the query first
    # Compressed guide, logits and feature filtered; similarities of both; scales; four corners.
    'freqfusion': 9 * 64 + 25 * (25 + CHANNELS) + 8 * 64 * (1 + 1 / 4) + 2 * 4 + 4 * CHANNELS,
    'dysample': 4 * CHANNELS + 2 * 4,  # four corners; scope times offset
    'dysample_plus': 4 * CHANNELS + 2 * 4,
    'dysample_s': 4 * CHANNELS + 2 * 8,
    'dysample_s_plus': 4 * CHANNELS + 2 * 8,
}


def count_convolutions(upsampler: torch.nn.Module) -> int:
    """What PyTorch's own counter finds when the convolutions really run."""
    x = torch.randn(1, CHANNELS, HEIGHT, WIDTH)
    guide = torch.randn(1, CHANNELS, 2 * HEIGHT, 2 * WIDTH)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        upsampler.eval()(x, guide=guide)
    counts = counter.get_flop_counts().get('Global', {})
    return counts.get(torch.ops.aten.convolution, 0) // 2  # it counts products and sums


@pytest.mark.parametrize('name', UPSAMPLERS)
def test_macs_are_convolutions_and_the_rest(name: str) -> None:
    upsampler = build_upsampler(name, CHANNELS)
    convolutions = count_convolutions(upsampler)
    assert (convolutions > 0) == any(p.dim() == 4 for p in upsampler.parameters())
    expected = convolutions + BEYOND_CONVOLUTIONS[name] * OUTPUTS
    assert upsampler.macs(HEIGHT, WIDTH) == expected


@pytest.mark.parametrize('name', ['deconv', 'pixel_shuffle', 'carafe', 'sapa_b', 'dysample_plus'])
@pytest.mark.parametrize('scale_factor', [3, 4])
def test_macs_follow_the_scale_factor(name: str, scale_factor: int) -> None:
    """Growth of the part beyond convolutions, which is per output pixel."""
    options = dict(type=name, kernel_size=5) if name == 'deconv' else name
    upsampler = build_upsampler(options, CHANNELS * 9, scale_factor)
    x = torch.randn(1, CHANNELS * 9, 4, 6)
    guide = torch.randn(1, CHANNELS * 9, 4 * scale_factor, 6 * scale_factor)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        upsampler(x, guide=guide)
    convolutions = counter.get_flop_counts()['Global'][torch.ops.aten.convolution] // 2
    per_output = {'carafe': 25 * 576, 'sapa_b': 25 * (32 + 576), 'dysample_plus': 4 * 576 + 8}
    expected = convolutions + per_output.get(name, 0) * 24 * scale_factor**2
    assert upsampler.macs(4, 6) == expected


@pytest.mark.parametrize('style', ['lp', 'pl'])
@pytest.mark.parametrize('dyscope', [False, True])
def test_dysample_by_the_formula(style: str, dyscope: bool) -> None:
    """Per output pixel: 2 G inputs(1 + dyscope) + 2 G + 4 C."""
    upsampler = DySample(256, style=style, groups=8, dyscope=dyscope)
    inputs = 256 if style == 'lp' else 256 // 4
    per_output = 2 * 8 * inputs * (1 + dyscope) + 2 * 8 + 4 * 256
    assert upsampler.macs(120, 120) == per_output * 240 * 240


@pytest.mark.parametrize(
    ('mode', 'taps'), [('nearest', 0), ('area', 0), ('bilinear', 4), ('bicubic', 16)]
)
def test_interpolation_counts_its_taps(mode: str, taps: int) -> None:
    assert build_upsampler(dict(mode=mode), 8).macs(3, 5) == taps * 8 * 6 * 10

"""FADE's gate, its lite form and counts."""

from __future__ import annotations

import math

import pytest
import torch

from mmdysample import build_upsampler


def count(**options):
    up = build_upsampler(dict(**options), 256)
    return sum(parameter.numel() for parameter in up.parameters())


def test_counts_at_256_channels():
    compressors, encoder, gate = 64 * (256 + 1) + 64 * 256, 25 * (64 * 9 + 1), 256 + 1
    assert count(type='fade') == compressors + encoder + gate == 47_514
    assert count(type='fade', gating=False) == compressors + encoder == 47_257
    compressors, encoder = 25 * (256 + 1) + 25 * 256, 25 * (9 + 1)
    assert count(type='fade_lite') == compressors + encoder + gate == 13_332
    assert count(type='fade_lite', gating=False) == compressors + encoder == 13_075


@pytest.mark.parametrize(
    ('name', 'compressed', 'encoder'), [('fade', 64, 64 * 25 * 9), ('fade_lite', 25, 25 * 9)]
)
def test_macs_at_256_channels(name, compressed, encoder):
    # Four fine pixels and a coarse one are compressed and encoded per coarse pixel.
    per_pixel = (4 + 1) * (256 * compressed + encoder) + 4 * 25 * 256
    gate = 256 + 4 * 2 * 256
    assert build_upsampler(dict(type=name, gating=False), 256).macs(5, 7) == per_pixel * 5 * 7
    assert build_upsampler(name, 256).macs(5, 7) == (per_pixel + gate) * 5 * 7


@pytest.mark.parametrize('name', ['fade', 'fade_lite'])
def test_gate_blends_between_the_reassembled_feature_and_the_guide(name):
    gated = build_upsampler(name, 16)
    plain = build_upsampler(dict(type=name, gating=False), 16)
    state = gated.state_dict()
    plain.load_state_dict({key: state[key] for key in plain.state_dict()})
    x, guide = torch.randn(1, 16, 3, 4), torch.randn(1, 16, 5, 8)
    reassembled = plain(x, guide, (5, 8))
    torch.nn.init.zeros_(gated.gate_generator.conv.weight)
    for bias, share in ((-50.0, 0.0), (0.0, 0.5), (50.0, 1.0)):
        torch.nn.init.constant_(gated.gate_generator.conv.bias, bias)
        expected = share * guide + (1 - share) * reassembled
        torch.testing.assert_close(gated(x, guide, (5, 8)), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize('name', ['fade', 'fade_lite'])
def test_guide_of_other_channels_goes_without_the_gate(name):
    with pytest.raises(ValueError, match='gating=True needs guide_channels equal to in_channels=8'):
        build_upsampler(name, 8, guide_channels=12)
    up = build_upsampler(dict(type=name, gating=False), 8, guide_channels=12)
    assert up(torch.randn(1, 8, 2, 3), torch.randn(1, 12, 4, 6)).shape == (1, 8, 4, 6)


def test_starts_xavier_uniform():
    generator = build_upsampler('fade_lite', 32).ker_generator
    for convolution, fans in ((generator.compressor_en, 32 + 25), (generator.content_encoder, 234)):
        bound = math.sqrt(6 / fans)  # depth-wise: 1 * 9 in, 25 * 9 out
        assert 0.95 * bound < convolution.weight.abs().max() <= bound
        assert not convolution.bias.any()
    assert generator.compressor_de.bias is None


def test_refuses_even_windows():
    with pytest.raises(ValueError, match='up_kernel_size must be a positive odd integer, got 4'):
        build_upsampler(dict(type='fade', up_kernel_size=4), 8)

"""CARAFE against MMCV's pack and a hand-made average."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from oracles.reassembly import reassemble_oracle

from mmdysample import build_upsampler

OPTIONS = [
    dict(),
    dict(up_kernel=3, up_group=4, encoder_kernel=1, compressed_channels=8),
    dict(up_kernel=3, encoder_dilation=2, compressed_channels=16),
]


@pytest.mark.parametrize('options', OPTIONS)
@pytest.mark.parametrize('scale_factor', [2, 3])
def test_takes_the_weights_of_mmcv(options, scale_factor):
    ops = pytest.importorskip('mmcv.ops')
    pack = ops.CARAFEPack(16, scale_factor, **options)
    up = build_upsampler(dict(type='carafe', **options), 16, scale_factor)
    up.load_state_dict(pack.state_dict(), strict=True)
    x = torch.randn(2, 16, 3, 4)
    # The pack's own reassembly has no CPU kernel; all that comes before it has.
    kernels = pack.kernel_normalizer(pack.content_encoder(pack.channel_compressor(x)))
    expected = reassemble_oracle(x, kernels, pack.up_kernel, pack.up_group, scale_factor)
    torch.testing.assert_close(up(x).double(), expected, rtol=1e-5, atol=1e-5)


def test_starts_as_an_average_over_the_window():
    up = build_upsampler('carafe', 16)
    x = torch.randn(1, 16, 6, 7)
    average = F.avg_pool2d(x, 5, stride=1, padding=2, count_include_pad=True)
    torch.testing.assert_close(up(x), F.interpolate(average, scale_factor=2), rtol=0, atol=0.02)
    assert up.content_encoder.weight.std().item() == pytest.approx(0.001, rel=0.05)
    bound = math.sqrt(6 / (16 + 64))
    assert 0.95 * bound < up.channel_compressor.weight.abs().max() <= bound
    assert not up.channel_compressor.bias.any()
    assert not up.content_encoder.bias.any()


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (dict(up_kernel=4), 'up_kernel must be a positive odd integer, got 4'),
        (dict(encoder_kernel=2), 'encoder_kernel must be a positive odd integer, got 2'),
        (dict(encoder_dilation=0), 'encoder_dilation must be a positive integer, got 0'),
        (dict(compressed_channels=0), 'compressed_channels must be a positive integer, got 0'),
        (dict(up_group=3), 'in_channels must be a multiple of 3, got 16'),
    ],
)
def test_refusals(wrong, message):
    with pytest.raises(ValueError, match=message):
        build_upsampler(dict(type='carafe', **wrong), 16)

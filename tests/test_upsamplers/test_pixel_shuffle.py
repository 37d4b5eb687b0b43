"""The sub-pixel convolution against MMCV's pack."""

from __future__ import annotations

import math

import pytest
import torch

from mmdysample import build_upsampler


@pytest.mark.parametrize('scale_factor', [2, 3])
@pytest.mark.parametrize('kernel', [1, 3, 5])
def test_takes_the_weights_of_mmcv(scale_factor, kernel):
    upsample = pytest.importorskip('mmcv.cnn').build_upsample_layer
    geometry = dict(scale_factor=scale_factor, upsample_kernel=kernel)
    pack = upsample(dict(type='pixel_shuffle', in_channels=8, out_channels=8, **geometry))
    up = build_upsampler(dict(type='pixel_shuffle', upsample_kernel=kernel), 8, scale_factor)
    up.load_state_dict(pack.state_dict(), strict=True)
    x = torch.randn(2, 8, 4, 5)
    assert torch.equal(up(x), pack(x))


def test_starts_xavier_uniform():
    up = build_upsampler('pixel_shuffle', 32)
    bound = math.sqrt(6 / (9 * (32 + 128)))
    assert 0.98 * bound < up.upsample_conv.weight.abs().max() <= bound
    assert not up.upsample_conv.bias.any()


def test_can_start_as_pytorch_draws_it():
    up = build_upsampler(dict(type='pixel_shuffle', init='pytorch'), 32)
    bound = 1 / math.sqrt(9 * 32)
    for parameter in up.parameters():
        assert 0.9 * bound < parameter.abs().max() <= bound
    with pytest.raises(ValueError, match=r"init must be one of .*, got 'zeros'"):
        build_upsampler(dict(type='pixel_shuffle', init='zeros'), 32)


@pytest.mark.parametrize('kernel', [0, 2, '3'])
def test_refuses_even_kernels(kernel):
    with pytest.raises(ValueError, match='upsample_kernel must be a positive odd integer, got'):
        build_upsampler(dict(type='pixel_shuffle', upsample_kernel=kernel), 8)

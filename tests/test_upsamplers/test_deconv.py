"""The deconvolution against PyTorch's layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmdysample import build_upsampler


@pytest.mark.parametrize(
    ('scale_factor', 'kernel_size', 'geometry'),
    [
        (2, 3, dict(padding=1, output_padding=1)),
        (2, 4, dict(padding=1)),
        (3, 3, dict(padding=1, output_padding=2)),
        (4, 4, dict(padding=1, output_padding=2)),
        (4, 5, dict(padding=2, output_padding=3)),
    ],
)
def test_equals_the_layer_of_pytorch(scale_factor, kernel_size, geometry):
    layer = nn.ConvTranspose2d(6, 6, kernel_size, stride=scale_factor, **geometry)
    up = build_upsampler(dict(type='deconv', kernel_size=kernel_size), 6, scale_factor)
    up.load_state_dict(layer.state_dict(), strict=True)
    x = torch.randn(2, 6, 4, 5)
    assert torch.equal(up(x), layer(x))
    assert up(x).shape[-2:] == (4 * scale_factor, 5 * scale_factor)


def test_starts_like_the_layer_of_pytorch():
    up, layer = build_upsampler('deconv', 64), nn.ConvTranspose2d(64, 64, 3)
    for name, parameter in up.named_parameters():
        expected = getattr(layer, name)
        torch.testing.assert_close(parameter.abs().max(), expected.abs().max(), rtol=0.1, atol=0)
        torch.testing.assert_close(parameter.std(), expected.std(), rtol=0.2, atol=0)


@pytest.mark.parametrize(('scale_factor', 'kernel_size'), [(4, 3), (3, 2), (2, 2.5)])
def test_refuses_kernels_that_leave_gaps(scale_factor, kernel_size):
    with pytest.raises(ValueError, match=rf'kernel_size .* >= scale_factor={scale_factor}, got'):
        build_upsampler(dict(type='deconv', kernel_size=kernel_size), 6, scale_factor)

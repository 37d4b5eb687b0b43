"""A batch without images, as a mask head without RoIs makes it."""

from __future__ import annotations

import pytest
import torch

from mmdysample import build_upsampler, upsampler_names


@pytest.mark.parametrize('name', [name for name in upsampler_names() if name != 'interpolate'])
def test_shape_and_gradients(name):
    up = build_upsampler(name, 32)
    x = torch.randn(0, 32, 3, 5, requires_grad=True)
    out = up(x, guide=torch.randn(0, 32, 5, 10), size=(5, 10))
    assert out.shape == (0, 32, 5, 10)
    out.sum().backward()
    assert x.grad.shape == x.shape
    learned = [p for p in up.parameters() if p.requires_grad]
    assert all(p.grad is not None and not p.grad.any() for p in learned)

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


def test_batch_statistics_stay():
    """The image of zeros that stands in for an empty batch was never seen."""
    up = build_upsampler('indexnet', 8)
    before = {key: value.clone() for key, value in up.state_dict().items()}
    up(torch.randn(0, 8, 3, 5), guide=torch.randn(0, 8, 6, 10)).sum().backward()
    assert all(torch.equal(value, before[key]) for key, value in up.state_dict().items())
    assert up.indexnet[1].training
    up(torch.randn(2, 8, 3, 5), guide=torch.randn(2, 8, 6, 10))
    assert up.indexnet[1].num_batches_tracked == 1

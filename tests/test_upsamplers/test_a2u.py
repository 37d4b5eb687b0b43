"""A2U's per-sample filters and its unused projection."""

from __future__ import annotations

import logging

import pytest
import torch
import torch.nn.functional as F

from mmdysample import build_upsampler
from mmdysample.ops.filtering import filter_each

UNUSED = {'kernel_gen.bconv_DP.1.weight', 'kernel_gen.bconv_DP.1.bias'}


def test_samples_do_not_see_each_other():
    up = build_upsampler('a2u', 8, guide_channels=32)
    x, guide = torch.randn(3, 8, 4, 5), torch.randn(3, 32, 8, 10)
    together = up(x, guide)
    apart = torch.cat([up(x[i : i + 1], guide[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, apart)


def test_weights_of_a_kernel_differ_by_a_factor_of_e_at_most():
    up = build_upsampler('a2u', 32)
    kernels = up.kernel_gen(100 * torch.randn(1, 32, 6, 8))
    torch.testing.assert_close(kernels.sum(1), torch.ones(1, 6, 8))
    ratio = kernels.amax(1) / kernels.amin(1)
    assert 1.01 < ratio.max() <= torch.e + 1e-5


def test_unused_projection_is_counted_and_loaded_but_not_trained():
    up = build_upsampler('a2u', 256)
    projection = 36 * 256 + 36
    used = 4 * 256 + projection + 2 * (256 + 1)
    assert sum(p.numel() for p in up.parameters()) == used + projection == 20_042
    assert {name for name, p in up.named_parameters() if not p.requires_grad} == UNUSED
    assert set(up.state_dict()) >= UNUSED


def test_without_the_unused_projection(caplog):
    kept = build_upsampler('a2u', 32)
    lean = build_upsampler(dict(type='a2u', keep_downsampling=False), 32)
    assert set(kept.state_dict()) - set(lean.state_dict()) == UNUSED
    state = kept.state_dict()
    with caplog.at_level(logging.INFO, 'mmdysample'):
        lean.load_state_dict(state, strict=True)
    assert all(name in caplog.text for name in UNUSED)
    assert set(state) == set(kept.state_dict())  # the caller's dict is left alone
    x, guide = torch.randn(1, 32, 4, 5), torch.randn(1, 32, 8, 10)
    assert torch.equal(lean(x, guide), kept(x, guide))
    count = sum(
        p.numel()
        for p in build_upsampler(dict(type='a2u', keep_downsampling=False), 256).parameters()
    )
    assert count == 10_790


def test_refuses_a_guide_that_cannot_be_normalised():
    with pytest.raises(ValueError, match='guide_channels must be a multiple of 32, got 48'):
        build_upsampler('a2u', 32, guide_channels=48)


@pytest.mark.parametrize(('height', 'width'), [(1, 1), (5, 7), (9, 2)])
def test_filters_and_their_gradients_agree_with_a_convolution(height, width):
    """On one image at a time: a plain convolution from each channel to each filter."""
    options = dict(dtype=torch.float64, requires_grad=True)
    guide = torch.randn(2, 3, 2 * height, 2 * width, **options)
    filters = torch.randn(2, 2, 6, 6, **options)
    found = filter_each(guide, filters)
    expected = torch.stack(
        [
            F.conv2d(g[:, None], f[:, None], stride=2, padding=2)
            for g, f in zip(guide, filters, strict=True)
        ]
    ).permute(2, 0, 1, 3, 4)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(found)
    gradients = [torch.autograd.grad(y, (guide, filters), weights) for y in (found, expected)]
    torch.testing.assert_close(*gradients)
    assert torch.autograd.gradgradcheck(filter_each, (guide[:, :1], filters))

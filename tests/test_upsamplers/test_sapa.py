"""SAPA's border and its parameter-free form."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from oracles.reassembly import reassemble_oracle, similarity_oracle

from mmdysample import build_upsampler


@pytest.mark.parametrize('scale_factor', [2, 3])
def test_inner_form_is_softmax_of_similarity(scale_factor):
    up = build_upsampler('sapa_i', 6, scale_factor)
    x, guide = torch.randn(1, 6, 3, 4), torch.randn(1, 6, 3 * scale_factor, 4 * scale_factor)
    kernels = similarity_oracle(guide, x, 5, 1, scale_factor).softmax(1)
    expected = reassemble_oracle(x, kernels, 5, 1, scale_factor)
    torch.testing.assert_close(up(x, guide).double(), expected, rtol=1e-5, atol=1e-5)


def test_weight_on_outside_taps_is_lost():
    up = build_upsampler('sapa_i', 4)
    x = torch.ones(1, 4, 7, 7)
    out = up(x, torch.zeros(1, 4, 14, 14))  # all similarities 0: every tap weighs 1/25
    inside = F.avg_pool2d(x, 5, stride=1, padding=2, count_include_pad=True)
    torch.testing.assert_close(out, F.interpolate(inside, scale_factor=2))
    assert out[0, 0, 0, 0].item() == pytest.approx(9 / 25)


def test_options():
    cfg = dict(type='sapa_b', embedding_dim=16, qkv_bias=False, norm=False, up_kernel_size=3)
    up = build_upsampler(cfg, 12, guide_channels=20)
    shapes = {name: tuple(p.shape) for name, p in up.named_parameters()}
    assert shapes == {'q.weight': (16, 20, 1, 1), 'k.weight': (16, 12, 1, 1)}
    assert up(torch.randn(1, 12, 2, 3), torch.randn(1, 20, 4, 6)).shape == (1, 12, 4, 6)


def test_starts_normal():
    up = build_upsampler('sapa_b', 64)
    for projection in (up.q, up.k):
        assert projection.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert not projection.bias.any()


@pytest.mark.parametrize(
    ('cfg', 'guide_channels', 'message'),
    [
        ('sapa_b', 32, 'in_channels must be a multiple of 32, got 48'),
        ('sapa_b', 40, 'guide_channels must be a multiple of 32, got 40'),
        ('sapa_i', 32, 'needs guide_channels equal to in_channels=48, got 32'),
        (dict(type='sapa_b', norm=False, embedding_dim=0), 48, 'embedding_dim must be a positive'),
        (dict(type='sapa_i', up_kernel_size=2), 48, 'up_kernel_size must be a positive odd'),
    ],
)
def test_refusals(cfg, guide_channels, message):
    with pytest.raises(ValueError, match=message):
        build_upsampler(cfg, 48, guide_channels=guide_channels)

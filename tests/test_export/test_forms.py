"""Layers that exporters would freeze, in the form that they can follow."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip('mmengine')
forms = pytest.importorskip('mmdysample.export.forms')


@pytest.mark.parametrize('count', [2, 3, 6, (4, 1)])
@pytest.mark.parametrize('size', [(6, 12), (7, 11), (5, 3)])
def test_pooling_without_frozen_sizes(count, size):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(forms.FreePool(count)(x), nn.AdaptiveAvgPool2d(count)(x))


def test_deformable_attention_without_frozen_sizes():
    """The neck of DepthFormer, whose attention is MMCV's."""
    pytest.importorskip('mmseg')
    from mmdysample.depth.neck import HAHINeck

    neck = HAHINeck(in_channels=[8, 8, 16, 16], embedding_dim=16, num_heads=2).eval()
    for name, parameter in neck.named_parameters():
        if 'attn' in name or 'att.' in name:
            nn.init.normal_(parameter, std=0.3)
    shapes = ((8, 12, 9), (8, 6, 5), (16, 3, 3), (16, 2, 2))
    maps = [torch.randn(2, *shape) for shape in shapes]
    wanted = neck(maps)
    attention = neck.self_attn
    with forms.export_form(neck, 'gridsample', free=True):
        assert neck.self_attn is not attention
        got = neck(maps)
    assert neck.self_attn is attention
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)

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


@pytest.mark.parametrize('size', [(56, 28), (97, 61), (13, 9)])
def test_a_swin_transformer_without_frozen_sizes(size):
    """Windows of 7 that fit the map, that do not, and that are larger than it."""
    backbones = pytest.importorskip('mmseg.models.backbones')
    stages = dict(depths=(2, 2), num_heads=(1, 2), strides=(4, 2), out_indices=(0, 1))
    swin = backbones.SwinTransformer(embed_dims=8, **stages)
    swin.eval()
    for parameter in swin.parameters():
        if parameter.dim() > 1:
            nn.init.kaiming_normal_(parameter)
    x = torch.randn(2, 3, *size)
    wanted = swin(x)
    with forms.export_form(swin, 'gridsample', free=True):
        kinds = {type(module).__name__ for module in swin.modules()}
        got = swin(x)
    assert {'FreePadding', 'FreeWindows'} <= kinds and 'ShiftWindowMSA' in kinds
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('padding', ['same', 'corner'])
@pytest.mark.parametrize(('kernel', 'stride', 'dilation'), [(4, 4, 1), (3, 2, 1), (3, 2, 2)])
def test_padding_without_frozen_sizes(kernel, stride, dilation, padding):
    layers = pytest.importorskip('mmseg.models.utils.embed')
    layer = layers.AdaptivePadding(kernel, stride, dilation, padding)
    for size in ((8, 12), (9, 7), (5, 6)):
        x = torch.randn(1, 2, *size)
        assert torch.equal(forms.FreePadding(layer)(x), layer(x))

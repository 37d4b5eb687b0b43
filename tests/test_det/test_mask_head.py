"""The FCN mask head's own upsample layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip('mmdet')
from mmdet.models.roi_heads.mask_heads import FCNMaskHead

from mmdysample import DySample, upsampler_names
from mmdysample.det import UpsampleFCNMaskHead
from mmdysample.upsamplers import Upsampler, build_upsampler

SMALL = dict(num_convs=1, in_channels=16, conv_out_channels=32, num_classes=3)
STOCK = {
    'deconv': dict(type='deconv', scale_factor=2),
    'nearest': dict(type='nearest', scale_factor=2),
    'bilinear': dict(type='bilinear', scale_factor=2),
    'none': dict(type=None),
    'carafe': dict(
        type='carafe',
        scale_factor=2,
        up_kernel=5,
        up_group=1,
        encoder_kernel=3,
        encoder_dilation=1,
        compressed_channels=8,
    ),
}
GUIDELESS = [
    name
    for name in upsampler_names()
    if name not in ('interpolate', *STOCK) and not build_upsampler(name, 32).guided
]


@pytest.mark.smoke
@pytest.mark.parametrize('name', STOCK)
def test_stock_types_are_the_stock_head(name):
    heads = []
    for cls in (FCNMaskHead, UpsampleFCNMaskHead):
        torch.manual_seed(0)
        heads.append(cls(**SMALL, upsample_cfg=STOCK[name]))
        heads[-1].init_weights()
    stock, ours = (head.state_dict() for head in heads)
    assert list(ours) == list(stock)
    assert all(torch.equal(ours[key], stock[key]) for key in stock)
    if name == 'carafe':
        return  # MMCV has no CPU kernel to run it with
    x = torch.randn(2, 16, 14, 14)
    assert torch.equal(heads[1](x), heads[0](x))


@pytest.mark.parametrize('rois', [0, 3])
@pytest.mark.parametrize('name', ['deconv', 'nearest', 'bilinear', *GUIDELESS])
def test_every_upsampler_at_rois_and_without_any(name, rois):
    head = UpsampleFCNMaskHead(**SMALL, upsample_cfg=dict(type=name, scale_factor=2))
    head.init_weights()
    x = torch.randn(rois, 16, 14, 14, requires_grad=True)
    masks = head(x)
    assert masks.shape == (rois, 3, 28, 28)
    masks.sum().backward()  # every rank of a distributed job needs all gradients, RoIs or none
    assert all(p.grad is not None for p in head.parameters())


def test_default_names_and_factor():
    head = UpsampleFCNMaskHead(**SMALL)
    assert isinstance(head.upsample, DySample)
    assert {'upsample.offset.weight', 'conv_logits.weight', 'convs.0.conv.weight'} <= set(
        head.state_dict()
    )
    tripled = UpsampleFCNMaskHead(**SMALL, upsample_cfg=dict(type='dysample', scale_factor=3))
    assert tripled(torch.randn(1, 16, 5, 5)).shape[-2:] == (15, 15)


def test_initialisation_is_the_upsamplers_own():
    class Weighted(Upsampler):
        """Has the attributes by which the stock head knows what to fill."""

        def __init__(self, in_channels, scale_factor=2):
            super().__init__(in_channels, scale_factor)
            self.weight = nn.Parameter(torch.zeros(in_channels, in_channels, 1, 1))
            self.bias = nn.Parameter(torch.zeros(in_channels))

        def init_weights(self):
            nn.init.constant_(self.weight, 0.5)

    plus = UpsampleFCNMaskHead(**SMALL, upsample_cfg=dict(type='dysample_plus'))
    plus.init_weights()
    assert 0 < plus.upsample.offset.weight.abs().max() < 0.01  # N(0, 0.001²)
    assert not plus.upsample.scope.weight.any()
    assert plus.conv_logits.weight.std() > 0.1  # He, fan out of three classes

    weighted = UpsampleFCNMaskHead(**SMALL, upsample_cfg=dict(type=Weighted))
    weighted.init_weights()
    assert (weighted.upsample.weight == 0.5).all()


def test_refusals():
    class Guided(Upsampler):
        guided = True

    with pytest.raises(ValueError, match='Guided, which is guided'):
        UpsampleFCNMaskHead(**SMALL, upsample_cfg=dict(type=Guided))
    with pytest.raises(ValueError, match="unknown upsampler type 'dysampel'"):
        UpsampleFCNMaskHead(**SMALL, upsample_cfg=dict(type='dysampel'))
    with pytest.raises(TypeError, match=r"does not take \['kernel_size'\]"):
        UpsampleFCNMaskHead(**SMALL, upsample_cfg=dict(type='dysample', kernel_size=3))

"""mmdet's necks and heads with swapped upsampling against the stock ones."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

pytest.importorskip('mmdet')
from mmdet.models import necks
from mmdet.models.layers import MSDeformAttnPixelDecoder
from mmdet.models.seg_heads import PanopticFPNHead
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from networks import pyramid
from torch.utils._pytree import tree_leaves

from mmdysample import det

ATTENTION = dict(embed_dims=16, num_heads=2, num_levels=3, num_points=2, dropout=0.0)
ENCODER = ConfigDict(
    num_layers=1,
    layer_cfg=dict(
        self_attn_cfg=dict(batch_first=True, **ATTENTION),
        ffn_cfg=dict(embed_dims=16, feedforward_channels=16, num_fcs=2, ffn_drop=0.0),
    ),
)


@dataclass
class Host:
    """A host class, its stock class, their arguments, and the channels of each upsampling."""

    ours: type
    stock: type
    options: dict[str, Any]
    levels: list[int]
    swapped: list[int]
    stock_options: dict[str, Any] = field(default_factory=dict)

    def inputs(self, size=(32, 64)):
        """The batch of two pyramids, whole multiples all the way down."""
        return [
            torch.randn(2, channels, size[0] >> i, size[1] >> i)
            for i, channels in enumerate(self.levels)
        ]


HOSTS = {
    'pafpn': Host(
        det.UpsamplePAFPN,
        necks.PAFPN,
        dict(in_channels=[8, 16, 24, 32], out_channels=16, num_outs=5),
        [8, 16, 24, 32],
        [16, 16, 16],
    ),
    'nasfpn': Host(
        det.UpsampleNASFPN,
        necks.NASFPN,
        dict(in_channels=[16, 24, 32], out_channels=16, num_outs=5, stack_times=1),
        [16, 24, 32],
        [16, 16, 16],
    ),
    'yolox': Host(
        det.UpsampleYOLOXPAFPN,
        necks.YOLOXPAFPN,
        dict(in_channels=[8, 16, 32], out_channels=16, num_csp_blocks=1),
        [8, 16, 32],
        [16, 8],
    ),
    'rtmdet': Host(
        det.UpsampleCSPNeXtPAFPN,
        necks.CSPNeXtPAFPN,
        dict(in_channels=[8, 16, 32], out_channels=16, num_csp_blocks=1, expand_ratio=0.5),
        [8, 16, 32],
        [16, 8],
    ),
    'panoptic_fpn': Host(
        det.UpsamplePanopticFPNHead,
        PanopticFPNHead,
        dict(in_channels=16, inner_channels=32, end_level=4),
        [16] * 4,
        [32] * 6,
    ),
    'mask2former': Host(
        det.UpsampleMSDeformAttnPixelDecoder,
        MSDeformAttnPixelDecoder,
        dict(
            in_channels=[8, 16, 24, 32],
            feat_channels=16,
            out_channels=16,
            norm_cfg=dict(type='GN', num_groups=4),
            encoder=ENCODER,
            positional_encoding=dict(num_feats=8, normalize=True),
        ),
        [8, 16, 24, 32],
        [16],
    ),
}
STOCK_MODES = dict(panoptic_fpn='bilinear', mask2former='bilinear')


@pytest.fixture(autouse=True, scope='module')
def _scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@pytest.mark.smoke
@pytest.mark.parametrize('key', HOSTS)
def test_the_stock_interpolation_equals_the_stock_host(key):
    host = HOSTS[key]
    stock = host.stock(**copy.deepcopy(host.options))
    mode = STOCK_MODES.get(key, 'nearest')
    ours = host.ours(**copy.deepcopy(host.options), upsample_cfg=dict(type=mode))
    ours.load_state_dict(stock.state_dict(), strict=True)
    inputs = host.inputs()
    expected, outputs = tree_leaves(stock(inputs)), tree_leaves(ours(inputs))
    assert len(outputs) == len(expected) > 0
    assert all(torch.equal(a, b) for a, b in zip(outputs, expected, strict=True))


@pytest.mark.parametrize('upsampler', ['dysample', 'dysample_s_plus', 'pixel_shuffle'])
@pytest.mark.parametrize('key', HOSTS)
def test_learned_upsamplers_one_per_level_all_trained(key, upsampler):
    host = HOSTS[key]
    options = dict(groups=2) if upsampler.startswith('dysample') else {}
    ours = host.ours(**copy.deepcopy(host.options), upsample_cfg=dict(type=upsampler, **options))
    ours.init_weights()
    assert [up.in_channels for up in ours.upsample_modules] == host.swapped
    stock_names = set(host.stock(**copy.deepcopy(host.options)).state_dict())
    added = set(ours.state_dict()) - stock_names
    assert stock_names <= set(ours.state_dict())
    assert {name.split('.')[1] for name in added} == {str(i) for i in range(len(host.swapped))}
    assert all(name.startswith('upsample_modules.') for name in added)
    outputs = tree_leaves(ours(host.inputs()))
    sum(out.square().sum() for out in outputs if out.is_floating_point()).backward()
    weights = [up.offset.weight for up in ours.upsample_modules if hasattr(up, 'offset')]
    weights = weights or [next(up.parameters()) for up in ours.upsample_modules]
    assert all(weight.grad is not None and weight.grad.any() for weight in weights)


@pytest.mark.parametrize('key', HOSTS)
def test_upsamplers_keep_their_own_initialisation(key):
    host = HOSTS[key]
    ours = host.ours(**copy.deepcopy(host.options), upsample_cfg=dict(type='dysample', groups=2))
    ours.init_weights()
    for up in ours.upsample_modules:
        assert 0 < up.offset.weight.abs().max() < 0.01  # N(0, 0.001²)
        assert not up.offset.bias.any()


def test_levels_of_odd_size():
    """A neck that resizes to the finer level's size gets a cut."""
    host = HOSTS['pafpn']
    ours = host.ours(**host.options).eval()
    levels = pyramid(host.levels, (33, 49), batch=1)
    shapes = [tuple(out.shape[-2:]) for out in ours(levels)]
    assert shapes[: len(levels)] == [tuple(level.shape[-2:]) for level in levels]


@pytest.mark.parametrize('key', HOSTS)
def test_buildable_by_name_and_particular_about_upsample_cfg(key):
    host = HOSTS[key]
    built = MODELS.build(dict(type=host.ours.__name__, **copy.deepcopy(host.options)))
    assert type(built) is host.ours
    with pytest.raises(TypeError, match=r"does not take \['mode'\].*_delete_=True"):
        host.ours(**copy.deepcopy(host.options), upsample_cfg=dict(type='dysample', mode='nearest'))


def test_a_plain_neck_swapped_in_place_equals_the_registered_class():
    from mmdysample.hosts.swap import example_pyramid, swap_upsample

    host = HOSTS['yolox']
    stock = host.stock(**host.options)
    swapped = swap_upsample(stock, 'dysample', example_pyramid(host.levels))
    registered = host.ours(**host.options)
    registered.load_state_dict(swapped.state_dict(), strict=True)
    inputs = host.inputs()
    pairs = zip(swapped.eval()(inputs), registered.eval()(inputs), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)

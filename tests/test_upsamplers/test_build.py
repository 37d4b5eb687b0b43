"""Registration and building by name."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mmdysample import DySample, Upsampler, build_upsampler, register_upsampler, upsampler_names
from mmdysample.upsamplers import base


@pytest.fixture
def scratch_names(monkeypatch):
    """Registrations of one test leave no trace."""
    monkeypatch.setattr(base, '_UPSAMPLERS', dict(base._UPSAMPLERS))


def test_cfg_forms():
    for cfg in ('dysample_plus', dict(type='dysample_plus'), dict(type=DySample, dyscope=True)):
        up = build_upsampler(cfg, in_channels=16, scale_factor=4)
        assert isinstance(up, DySample) and up.dyscope and up.scale_factor == 4
    assert build_upsampler(dict(type='dysample', groups=2), 16).groups == 2


def test_stock_interpolate_cfg():
    x = torch.randn(1, 4, 3, 3)
    up = build_upsampler(dict(mode='bilinear', align_corners=True), in_channels=4)
    expected = nn.functional.interpolate(x, size=(5, 7), mode='bilinear', align_corners=True)
    assert torch.equal(up(x, size=(5, 7)), expected)


@pytest.mark.parametrize(
    ('cfg', 'error', 'message'),
    [
        (
            dict(type='dysampel'),
            ValueError,
            r"'dysampel'; known types: .*dysample_plus.*custom_imports",
        ),
        (dict(groups=4), ValueError, 'unknown upsampler type None'),
        (
            dict(type='dysample', up_kernel=5),
            TypeError,
            r"\['up_kernel'\].*takes.*'groups'.*_delete_",
        ),
        (
            dict(type='dysample', scale_factor=4),
            ValueError,
            'scale_factor=4, but the network needs 2',
        ),
        (4, TypeError, 'got int'),
        (dict(type='interpolate', mode='cubic'), ValueError, "mode .* got 'cubic'"),
        (
            dict(mode='nearest', align_corners=True),
            ValueError,
            "align_corners .*'bilinear', 'bicubic'.* got align_corners=True with mode='nearest'",
        ),
        (dict(mode='bilinear', align_corners='no'), TypeError, "align_corners .* got 'no'"),
        (dict(type=['dysample']), TypeError, r"type in upsample_cfg .* got \['dysample'\]"),
        (dict(type=nn.Linear), TypeError, 'type in upsample_cfg .* got .*Linear'),
        (dict(type='dysample', dyscope='no'), TypeError, "dyscope must be True or False, got 'no'"),
        (dict(type='dysample_plus', scope_bias='no'), TypeError, "scope_bias .* got 'no'"),
        (dict(type='dysample', groups=True), ValueError, 'groups must be .*, got True'),
        (dict(type='dysample', scope_factor='a'), TypeError, "scope_factor .* got 'a'"),
        (dict(type='dysample', scope_factor=True), TypeError, 'scope_factor .* got True'),
        (dict(type='dysample', scope_factor=math.nan), ValueError, 'scope_factor .* got nan'),
        (dict(type='indexnet', use_context='no'), TypeError, "use_context .* got 'no'"),
    ],
)
def test_refusals(cfg, error, message):
    with pytest.raises(error, match=message):
        build_upsampler(cfg, in_channels=16)


@pytest.mark.parametrize('name', ['dysample', 'nearest', 'carafe'])
@pytest.mark.parametrize('channels', [None, True, 0, 16.0])
def test_channels_must_be_a_number(name, channels):
    with pytest.raises(ValueError, match=f'in_channels must be a positive integer, got {channels}'):
        build_upsampler(name, in_channels=channels)


@pytest.mark.parametrize('name', ['dysample', 'nearest', 'deconv'])
@pytest.mark.parametrize(
    ('size', 'error'),
    [
        *((size, TypeError) for size in (8, 8.0, (8.0, 8.0), '88', ('8', '8'))),
        *((size, ValueError) for size in ((8, 8, 8), (8,), (0, 8))),
    ],
)
def test_a_size_that_is_none_is_refused_by_name(name, size, error):
    with pytest.raises(error, match='size '):
        build_upsampler(name, 16)(torch.zeros(1, 16, 4, 4), size=size)


def test_own_upsampler(scratch_names):
    @register_upsampler('doubling', gain=2.0)
    class Doubling(Upsampler):
        def __init__(self, in_channels, scale_factor=2, *, gain):
            super().__init__(in_channels, scale_factor)
            self.gain = gain

        def upsample(self, x, guide, size):
            return (
                self.gain * x.repeat_interleave(2, -1).repeat_interleave(2, -2)[..., : size[0], :]
            )

    assert 'doubling' in upsampler_names()
    x = torch.randn(1, 3, 2, 2)
    assert torch.equal(build_upsampler('doubling', 3)(x)[..., ::2, ::2], 2 * x)
    with pytest.raises(ValueError, match="'doubling' is taken by Doubling"):
        register_upsampler('doubling')(DySample)
    with pytest.raises(TypeError, match='only subclasses of Upsampler'):
        register_upsampler('linear')(nn.Linear)


def test_mmcv_builds_our_names_and_keeps_its_own():
    mmcv_cnn = pytest.importorskip('mmcv.cnn')
    up = mmcv_cnn.build_upsample_layer(dict(type='dysample_s', scale_factor=2), in_channels=32)
    assert isinstance(up, DySample) and up.style == 'pl'
    stock = mmcv_cnn.build_upsample_layer(dict(type='nearest', scale_factor=2))
    assert type(stock) is nn.Upsample
    with pytest.raises(TypeError, match=r"\['kernel'\].*takes"):
        mmcv_cnn.build_upsample_layer(dict(type='dysample', kernel=3), in_channels=32)


def test_root_registry_resolves_from_every_scope():
    registry = pytest.importorskip('mmengine.registry')
    for scope in ('mmdet', 'mmseg'):
        pytest.importorskip(scope)
        with registry.MODELS.switch_scope_and_registry(scope) as models:
            up = models.build(dict(type='dysample', in_channels=16))
        assert isinstance(up, DySample)

"""The pyramid neck of mmdet and of mmseg against the frameworks' own."""

from __future__ import annotations

import pytest
import torch
from networks import pyramid

from mmdysample import upsampler_names

FRAMEWORKS = ('mmdet', 'mmseg')
IN_CHANNELS = [8, 16, 24, 32]
OPTIONS = {
    'plain': dict(num_outs=4),
    'faster_rcnn': dict(num_outs=5),
    'pooled_twice': dict(num_outs=6),
    'retinanet': dict(num_outs=5, start_level=1, add_extra_convs='on_input'),
    'on_lateral': dict(num_outs=6, add_extra_convs='on_lateral', relu_before_extra_convs=True),
    'fcos': dict(
        num_outs=5, start_level=1, add_extra_convs='on_output', relu_before_extra_convs=True
    ),
    'norm_act': dict(
        num_outs=5, norm_cfg=dict(type='BN'), act_cfg=dict(type='ReLU'), no_norm_on_lateral=True
    ),
    'end_level': dict(num_outs=2, start_level=1, end_level=2),
}


def necks(framework):
    stock = pytest.importorskip(f'{framework}.models.necks')
    ours = pytest.importorskip({'mmdet': 'mmdysample.det', 'mmseg': 'mmdysample.seg'}[framework])
    return stock.FPN, ours.UpsampleFPN


@pytest.mark.smoke
@pytest.mark.parametrize('framework', FRAMEWORKS)
@pytest.mark.parametrize('option', OPTIONS)
@pytest.mark.parametrize('size', [(32, 48), (37, 51)])
@pytest.mark.parametrize('mode', ['nearest', 'bilinear'])
def test_interpolation_equals_the_stock_neck(framework, option, size, mode):
    stock_cls, ours_cls = necks(framework)
    options = dict(OPTIONS[option])
    if framework == 'mmseg' and option == 'end_level':
        options['num_outs'] = 1  # its end_level is exclusive
    stock = stock_cls(IN_CHANNELS, 16, upsample_cfg=dict(mode=mode), **options)
    ours = ours_cls(IN_CHANNELS, 16, upsample_cfg=dict(type=mode), **options)
    ours.load_state_dict(stock.state_dict(), strict=True)
    inputs = pyramid(IN_CHANNELS, size)
    expected = stock(inputs)
    outputs = ours(inputs)
    assert len(outputs) == len(expected) == options['num_outs']
    assert all(torch.equal(a, b) for a, b in zip(outputs, expected, strict=True))


@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_stock_upsample_cfg_keeps_working(framework):
    stock_cls, ours_cls = necks(framework)
    stock = stock_cls(IN_CHANNELS, 16, 4)
    ours = ours_cls(IN_CHANNELS, 16, 4, upsample_cfg=dict(mode='nearest', scale_factor=2))
    ours.load_state_dict(stock.state_dict())
    inputs = pyramid(IN_CHANNELS, (32, 32))
    assert all(torch.equal(a, b) for a, b in zip(ours(inputs), stock(inputs), strict=True))


@pytest.mark.parametrize('framework', FRAMEWORKS)
@pytest.mark.parametrize('name', upsampler_names())
def test_every_upsampler_at_odd_sizes(framework, name):
    _, ours_cls = necks(framework)
    options = dict(mode='nearest') if name == 'interpolate' else {}
    neck = ours_cls(IN_CHANNELS, 32, 5, upsample_cfg=dict(type=name, **options))
    outputs = neck(pyramid(IN_CHANNELS, (45, 63)))
    assert [tuple(out.shape[-2:]) for out in outputs] == [
        (45, 63), (23, 32), (12, 16), (6, 8), (3, 4)
    ]  # fmt: skip
    sum(out.sum() for out in outputs).backward()
    learned = (item for item in neck.upsample_modules.named_parameters() if item[1].requires_grad)
    lost = [key for key, value in learned if value.grad is None]
    assert not lost


@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_parameter_names_and_defaults(framework):
    _, ours_cls = necks(framework)
    neck = ours_cls([8, 16, 24, 32], 16, 5)
    names = {
        key.split('.', 1)[1] for key in neck.state_dict() if key.startswith('upsample_modules')
    }
    assert names == {
        f'{i}.{k}' for i in range(3) for k in ('offset.weight', 'offset.bias', 'init_pos')
    }


@pytest.mark.parametrize('framework', FRAMEWORKS)
@pytest.mark.parametrize('name', ['dysample_plus', 'carafe', 'sapa_b', 'indexnet'])
def test_the_neck_can_initialise_the_upsamplers_as_the_published_code_does(framework, name):
    """Xavier's uniform scheme: standard deviation ``sqrt(2 / (fan_in + fan_out))``, biases zero."""
    _, ours_cls = necks(framework)
    neck = ours_cls([8, 16], 256, 2, upsample_cfg=dict(type=name), init_upsamplers=True)
    neck.init_weights()
    (upsampler,) = neck.upsample_modules
    convolutions = [m for m in upsampler.modules() if isinstance(m, torch.nn.Conv2d)]
    assert convolutions
    for conv in convolutions:
        fans = (conv.in_channels + conv.out_channels) * conv.kernel_size[0] * conv.kernel_size[1]
        expected = (2 / fans) ** 0.5
        assert conv.weight.std().item() == pytest.approx(expected, rel=0.06)
        assert conv.bias is None or not conv.bias.any()
    if name == 'dysample_plus':
        assert upsampler.offset.weight.std().item() == pytest.approx(0.083, abs=0.005)
        assert upsampler.scope.weight.std().item() == pytest.approx(0.083, abs=0.005)


@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_upsamplers_keep_their_own_initialisation(framework):
    _, ours_cls = necks(framework)
    neck = ours_cls(IN_CHANNELS, 64, 4, upsample_cfg=dict(type='dysample_plus'))
    neck.init_weights()
    for up in neck.upsample_modules:
        assert up.offset.weight.std().item() == pytest.approx(0.001, rel=0.1)
        assert not up.scope.weight.any() and not up.offset.bias.any()
    # Xavier uniform for 64 -> 64 channels, 3 x 3, has std sqrt(2 / (64 * 9 * 2)).
    assert neck.fpn_convs[0].conv.weight.std().item() == pytest.approx((1 / 576) ** 0.5, rel=0.05)


@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_refusals(framework):
    _, ours_cls = necks(framework)
    with pytest.raises(ValueError, match='expected 4 inputs, got 3'):
        ours_cls(IN_CHANNELS, 16, 4)(pyramid(IN_CHANNELS, (32, 32))[:3])
    levels = pyramid(IN_CHANNELS, (32, 32))
    levels[2] = levels[2][..., :6, :]
    with pytest.raises(ValueError, match=r'size \(6, 8\) is out of reach: the height from 4'):
        ours_cls(IN_CHANNELS, 16, 4)(levels)
    levels = pyramid(IN_CHANNELS, (32, 32))
    levels[1] = levels[1][:1]
    with pytest.raises(ValueError, match=r'inputs must have one batch size, got \[2, 1, 2, 2\]'):
        ours_cls(IN_CHANNELS, 16, 4)(levels)
    with pytest.raises(ValueError, match="unknown upsampler type 'dyspample'"):
        ours_cls(IN_CHANNELS, 16, 4, upsample_cfg=dict(type='dyspample'))

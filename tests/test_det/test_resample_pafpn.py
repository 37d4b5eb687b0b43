"""The neck with point sampling in its bottom-up path against mmdet's own."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip('mmdet')
from mmdet.models.necks import PAFPN
from mmdet.registry import MODELS
from oracles.downsample import downsample_loops

from mmdysample.det import ResamplePAFPN

CHANNELS = [8, 12, 16, 24]
KINDS = ('convolution', 'sampling', 'shared')
EXTRA_LEVELS = {
    'pooled': dict(num_outs=6),
    'on_input': dict(num_outs=6, add_extra_convs='on_input', relu_before_extra_convs=True),
    'on_lateral': dict(num_outs=5, add_extra_convs='on_lateral', start_level=1),
    'on_output': dict(num_outs=5, add_extra_convs='on_output', norm_cfg=dict(type='BN')),
}


def pyramid(height=16, width=24, batch=1):
    """Levels as stride-2 convolutions leave them: each half the last, rounded up."""
    levels = []
    for channels in CHANNELS:
        levels.append(torch.randn(batch, channels, height, width))
        height, width = -(-height // 2), -(-width // 2)
    return levels


def necks(downsample_cfg, upsample_cfg='nearest', **options):
    """Ours and the stock one, with equal weights but for what downsamples."""
    options = {'num_outs': 4, **options}
    stock = PAFPN(CHANNELS, 8, **options)
    ours = ResamplePAFPN(
        CHANNELS, 8, upsample_cfg=upsample_cfg, downsample_cfg=downsample_cfg, **options
    )
    keep = {k: v for k, v in stock.state_dict().items() if k in ours.state_dict()}
    missing, unexpected = ours.load_state_dict(keep, strict=False)
    assert not unexpected
    assert all(name.startswith(('downsample_convs', 'upsample_modules')) for name in missing)
    return ours, stock


@pytest.mark.smoke
@pytest.mark.parametrize('option', EXTRA_LEVELS)
@pytest.mark.parametrize('size', [(16, 24), (19, 27)])
def test_with_convolution_and_nearest_it_is_the_stock_neck(option, size):
    ours, stock = necks('convolution', **EXTRA_LEVELS[option])
    assert ours.state_dict().keys() == stock.state_dict().keys()
    inputs = pyramid(*size, batch=2)
    expected = stock(inputs)
    outputs = ours(inputs)
    assert len(outputs) == len(expected) == EXTRA_LEVELS[option]['num_outs']
    assert all(torch.equal(a, b) for a, b in zip(outputs, expected, strict=True))


@pytest.mark.parametrize(
    ('cfg', 'upsample_cfg'),
    [
        (dict(type='sampling', groups=2), 'nearest'),
        (dict(type='sampling', groups=2, init='strided'), 'nearest'),
        (dict(type='shared'), dict(type='dysample', groups=2, init='nearest')),
    ],
)
def test_it_starts_as_a_stock_neck_whose_convolutions_pool(cfg, upsample_cfg):
    """A 3x3 convolution of stride 2 can hold both starts: its window begins a pixel earlier."""
    ours, stock = necks(cfg, upsample_cfg)
    for module in ours.modules():
        if hasattr(module, 'offset'):
            torch.nn.init.zeros_(module.offset.weight)
    for layer in stock.downsample_convs:
        weight = torch.zeros_like(layer.conv.weight)
        if cfg.get('init') == 'strided':
            weight[range(8), range(8), 1, 1] = 1
        else:
            for row, column in ((1, 1), (1, 2), (2, 1), (2, 2)):
                weight[range(8), range(8), row, column] = 0.25
        layer.conv.weight.data.copy_(weight)
        torch.nn.init.zeros_(layer.conv.bias)
    inputs = pyramid()
    for out, expected in zip(ours(inputs), stock(inputs), strict=True):
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('upsampler', ['dysample', 'dysample_s_plus', 'dysample_guided'])
@pytest.mark.parametrize('size', [(16, 24), (11, 14)])
def test_shared_points_move_as_far_as_those_of_the_upsampler(upsampler, size):
    """What goes from the finest level to the next: loops find it, given the upsampler's offsets."""
    ours, _ = necks('shared', dict(type=upsampler, groups=2))
    for up in ours.upsample_modules:
        torch.nn.init.normal_(up.offset.weight, std=0.2)
    met = {}
    for name, module in ours.named_modules():
        module.register_forward_hook(
            lambda m, args, out, name=name: met.update({name: (args, out)})
        )
    inputs = pyramid(*size)
    outs = ours(inputs)
    fine = met['fpn_convs.0'][1]
    (up_input,) = met['upsample_modules.0'][0]
    guide = met['lateral_convs.0'][1]
    up = ours.upsample_modules[0]
    _, offset = up.sampling_positions(up_input, fine.shape[-2:], guide)
    assert offset.abs().max() > 0.1
    halved = downsample_loops(fine, offset, 2, 'average').float()
    expected = ours.pafpn_convs[0](met['fpn_convs.1'][1] + halved)
    torch.testing.assert_close(outs[1], expected, rtol=1e-4, atol=1e-4)
    assert [out.shape[-2:] for out in outs] == [level.shape[-2:] for level in inputs]


@pytest.mark.parametrize('kind', KINDS)
def test_every_parameter_learns_and_keeps_its_own_start(kind):
    ours, _ = necks(kind, 'dysample')
    ours.init_weights()
    sampled = [m for m in ours.modules() if hasattr(m, 'offset')]
    assert len(sampled) == (6 if kind == 'sampling' else 3)
    for module in sampled:  # not the neck's Xavier
        assert 0 < module.offset.weight.abs().max() < 0.01 and not module.offset.bias.any()
    sum(out.square().sum() for out in ours(pyramid())).backward()
    assert all(p.grad is not None and p.grad.any() for p in ours.parameters())
    downs = sum(p.numel() for n, p in ours.named_parameters() if n.startswith('downsample_convs'))
    stock_convolutions, offsets = 3 * (9 * 8 * 8 + 8), 3 * (8 + 1) * 2 * 4 * 4
    assert downs == dict(convolution=stock_convolutions, sampling=offsets, shared=0)[kind]


@pytest.mark.parametrize('upsampler', ['dysample', 'dysample_s_plus', 'dysample_guided'])
@pytest.mark.parametrize('kind', KINDS)
def test_an_empty_batch_has_gradients(kind, upsampler):
    """A worker of parallel training without images still takes part in the exchange."""
    ours, _ = necks(kind, dict(type=upsampler, groups=2))
    inputs = pyramid(19, 27, batch=0)
    outs = ours(inputs)
    assert [out.shape for out in outs] == [(0, 8, *level.shape[-2:]) for level in inputs]
    sum(out.sum() for out in outs).backward()
    assert all(p.grad is not None and not p.grad.any() for p in ours.parameters())


def test_buildable_by_name():
    cfg = dict(type='ResamplePAFPN', in_channels=CHANNELS, out_channels=8, num_outs=4)
    built = MODELS.build(dict(cfg, downsample_cfg=dict(type='sampling', groups=2, dyscope=True)))
    assert type(built) is ResamplePAFPN
    assert all(down.groups == 2 and down.dyscope for down in built.downsample_convs)


@pytest.mark.parametrize(
    ('downsample_cfg', 'upsample_cfg', 'error', 'message'),
    [
        ('pooling', 'dysample', ValueError, r"one of \('convolution', .*got 'pooling'"),
        (dict(groups=2), 'dysample', ValueError, 'type in downsample_cfg .*got None'),
        (dict(type='shared', groups=2), 'dysample', TypeError, "takes no options, got {'groups'"),
        (dict(type='sampling', kernel=3), 'dysample', TypeError, 'kernel'),
        ('shared', 'carafe', ValueError, 'got CARAFE, which has no offsets to share'),
    ],
)
def test_what_is_refused(downsample_cfg, upsample_cfg, error, message):
    with pytest.raises(error, match=message):
        ResamplePAFPN(CHANNELS, 8, 4, upsample_cfg=upsample_cfg, downsample_cfg=downsample_cfg)

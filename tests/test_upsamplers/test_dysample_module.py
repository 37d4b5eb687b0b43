"""The DySample module: its members, options, weights and errors."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmdysample import DySample, build_upsampler

MEMBERS = {
    'dysample': ('lp', 4, False),
    'dysample_plus': ('lp', 4, True),
    'dysample_s': ('pl', 8, False),
    'dysample_s_plus': ('pl', 8, True),
}


def published_state_shapes(channels, scale, style, groups, dyscope):
    """Names and shapes of the published implementation, from its description."""
    outputs = 2 * groups * scale**2
    inputs = channels
    if style == 'pl':
        outputs, inputs = outputs // scale**2, inputs // scale**2
    shapes = {
        'init_pos': (1, 2 * groups * scale**2, 1, 1),
        'offset.weight': (outputs, inputs, 1, 1),
        'offset.bias': (outputs,),
    }
    if dyscope:
        shapes['scope.weight'] = (outputs, inputs, 1, 1)
    return shapes


def zero_offsets(up: DySample) -> DySample:
    torch.nn.init.zeros_(up.offset.weight)
    return up


@pytest.mark.parametrize('name', MEMBERS)
@pytest.mark.parametrize('scale_factor', [2, 3])
def test_members_have_the_published_state(name, scale_factor):
    style, groups, dyscope = MEMBERS[name]
    up = build_upsampler(name, in_channels=72, scale_factor=scale_factor)
    assert (up.style, up.groups, up.dyscope) == (style, groups, dyscope)
    shapes = {key: tuple(value.shape) for key, value in up.state_dict().items()}
    assert shapes == published_state_shapes(72, scale_factor, style, groups, dyscope)


@pytest.mark.parametrize('name', MEMBERS)
def test_fresh_module_is_bilinear_up_to_its_offsets(name):
    up = build_upsampler(name, in_channels=32, scale_factor=2)
    x = torch.randn(2, 32, 7, 6)
    bilinear = F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=False)
    # |offset| <= 0.001 * |x|_1 * 5 sigma, times 0.25, times the largest slope of x.
    bound = 0.25 * 0.001 * 5 * x.abs().sum(1).max() * 2 * x.abs().max()
    assert 0 < (up(x) - bilinear).abs().max() < bound
    torch.testing.assert_close(zero_offsets(up)(x), bilinear, atol=1e-5, rtol=0)


@pytest.mark.parametrize('style', ['lp', 'pl'])
@pytest.mark.parametrize('scale_factor', [2, 3])
def test_nearest_initial_positions(style, scale_factor):
    up = DySample(36, scale_factor, style=style, groups=2, init='nearest')
    x = torch.randn(1, 36, 4, 5)
    expected = F.interpolate(x, scale_factor=scale_factor, mode='nearest')
    torch.testing.assert_close(zero_offsets(up)(x), expected, atol=1e-5, rtol=0)
    assert up.init_pos.count_nonzero() == 0


@pytest.mark.parametrize('scope_factor', [1.0, 0.5, 0.25, 0.1])
@pytest.mark.parametrize('dyscope', [False, True])
def test_scope_factor_moves_the_samples_by_its_share(scope_factor, dyscope):
    # On a horizontal ramp an offset of one pixel adds one, except next to the border.
    up = DySample(8, groups=2, dyscope=dyscope, scope_factor=scope_factor)
    zero_offsets(up)
    torch.nn.init.constant_(up.offset.bias, 0.5)
    x = torch.arange(9.0).expand(1, 8, 5, 9)
    share = scope_factor * (0.5 if dyscope else 1)  # sigmoid(0) of a fresh dynamic scope
    expected = (torch.arange(18) + 0.5) / 2 - 0.5 + 0.5 * share
    torch.testing.assert_close(
        up(x)[..., 2:-2], expected[2:-2].expand(1, 8, 10, 14), atol=1e-5, rtol=0
    )


def test_scope_bias_is_taken_from_the_weights_and_keeps_its_effect():
    forked = DySample(16, dyscope=True, scope_bias=True)
    torch.nn.init.normal_(forked.offset.weight)
    torch.nn.init.normal_(forked.scope.bias)
    ours = torch.nn.Sequential(DySample(16, dyscope=True))
    ours.load_state_dict({f'0.{k}': v for k, v in forked.state_dict().items()}, strict=True)
    x = torch.randn(1, 16, 4, 4)
    assert torch.equal(ours(x), forked(x))
    with torch.no_grad():
        forked.scope.bias.zero_()
    assert not torch.equal(ours(x), forked(x))


def test_weights_made_with_other_initial_positions_are_refused():
    weights = DySample(16, init='nearest').state_dict()
    with pytest.raises(RuntimeError, match=r'init_pos holds other initial positions'):
        DySample(16).load_state_dict(weights)
    half = {k: v.half() for k, v in DySample(16, 3).state_dict().items()}
    DySample(16, 3).load_state_dict(half)


@pytest.mark.parametrize(
    ('kwargs', 'error', 'message'),
    [
        (dict(in_channels=30), ValueError, r'groups .* in_channels=30, got 4'),
        (dict(in_channels=32, groups=0), ValueError, 'groups'),
        (dict(in_channels=12, scale_factor=3, style='pl'), ValueError, r'multiple .* 9'),
        (dict(in_channels=32, style='px'), ValueError, r"style .*'lp', 'pl'.* got 'px'"),
        (dict(in_channels=32, init='zero'), ValueError, "init .* got 'zero'"),
        (dict(in_channels=32, scale_factor=1), ValueError, 'scale_factor .* got 1'),
        (dict(in_channels=32, scale_factor=2.0), ValueError, 'scale_factor .* got 2.0'),
        (dict(in_channels=32, scope_bias=True), ValueError, 'dyscope=True'),
    ],
)
def test_constructor_refuses(kwargs, error, message):
    with pytest.raises(error, match=message):
        DySample(**kwargs)


@pytest.mark.parametrize(
    ('x', 'size', 'error', 'message'),
    [
        (torch.zeros(1, 16, 4, 4), None, ValueError, '32 channels, got 16'),
        (torch.zeros(1, 32, 4, 4), (6, 8), ValueError, r'height from 4 .* 7 to 8'),
        (torch.zeros(1, 32, 4, 4), (8, 9), ValueError, r'width from 4 .* 7 to 8'),
    ],
)
def test_forward_refuses(x, size, error, message):
    with pytest.raises(error, match=message):
        DySample(32)(x, size=size)


def test_weights_load_while_the_default_device_is_meta():
    """As large models are loaded: built without memory, weights assigned."""
    source = build_upsampler(dict(type='dysample_plus', scope_bias=True), 16)
    with torch.device('meta'):
        up = build_upsampler('dysample_plus', 16)
        up.load_state_dict(source.state_dict(), strict=True, assign=True)
    x = torch.randn(1, 16, 4, 4)
    assert torch.equal(up(x), source(x))
    with torch.device('meta'), pytest.raises(RuntimeError, match='other initial positions'):
        build_upsampler(dict(type='dysample_plus', init='nearest'), 16).load_state_dict(
            source.state_dict(), assign=True
        )

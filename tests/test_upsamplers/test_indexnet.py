"""IndexNet's variants and statistics."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from mmdysample import build_upsampler


def build(**options):
    return build_upsampler(dict(type='indexnet', **options), 12, guide_channels=16)


@pytest.mark.parametrize('use_context', [False, True])
@pytest.mark.parametrize('use_nonlinear', [False, True])
def test_variants(use_context, use_nonlinear):
    up = build(use_context=use_context, use_nonlinear=use_nonlinear).eval()
    side = 4 if use_context else 2
    shapes = {name: tuple(p.shape) for name, p in up.named_parameters()}
    assert shapes == (
        {
            'indexnet.0.weight': (32, 16, side, side),
            'indexnet.1.weight': (32,),
            'indexnet.1.bias': (32,),
            'indexnet.3.weight': (4, 32, 1, 1),
        }
        if use_nonlinear
        else {'indexnet.weight': (4, 16, side, side)}
    )
    x, guide = torch.randn(2, 12, 3, 4), torch.randn(2, 16, 6, 8)
    ratio = up(x, guide) / F.interpolate(x, scale_factor=2)
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))  # one map for all channels
    assert ((ratio > 0) & (ratio < 1)).all()


def test_receptive_field_follows_use_context():
    guide = torch.randn(1, 16, 6, 8)
    touched = guide.clone()
    touched[:, :, 1, 1] += 1
    for use_context, parents in ((False, 1), (True, 4)):
        up = build(use_context=use_context, use_nonlinear=False)
        x = torch.ones(1, 12, 3, 4)
        changed = (up(x, guide) != up(x, touched))[0, 0]
        assert F.max_pool2d(changed.float()[None], 2).sum() == parents


def test_starts_as_the_published_network():
    up = build_upsampler('indexnet', 32)
    for convolution in (up.indexnet[0], up.indexnet[3]):
        fan_out = convolution.out_channels * math.prod(convolution.kernel_size)
        expected = math.sqrt(2 / fan_out)
        assert convolution.weight.std().item() == pytest.approx(expected, rel=0.2)
    assert (up.indexnet[1].weight == 1).all()
    assert not up.indexnet[1].bias.any()


@pytest.mark.parametrize('use_context', [False, True])
@pytest.mark.parametrize('use_nonlinear', [False, True])
def test_depthwise_block_predicts_a_map_for_each_channel(use_context, use_nonlinear):
    """Network k gives the index of the output pixels (2i + k // 2, 2j + k % 2)."""
    options = dict(use_context=use_context, use_nonlinear=use_nonlinear)
    up = build(block='depthwise', **options).eval()
    x, guide = torch.randn(2, 12, 3, 4), torch.randn(2, 16, 6, 8)
    out = up(x, guide)
    for k in range(4):
        index = getattr(up, f'indexnet{k + 1}')(guide).sigmoid()
        assert index.shape == x.shape
        torch.testing.assert_close(out[..., k // 2 :: 2, k % 2 :: 2], index * x)


def test_depthwise_block_of_the_published_log():
    up = build_upsampler(
        dict(type='indexnet', block='depthwise', use_nonlinear=False, use_context=False), 256
    )
    names = {f'indexnet{k}.0.weight': (256, 256, 2, 2) for k in range(1, 5)}
    assert {name: tuple(p.shape) for name, p in up.named_parameters()} == names
    count = sum(p.numel() for p in up.parameters())
    assert count == 4 * 256 * 256 * 4 and round(6 * count / 1e6, 2) == 6.29
    assert up.macs(5, 7) == (count + 4 * 256) * 5 * 7


def test_unknown_block_is_refused():
    with pytest.raises(ValueError, match=r"block must be one of .*, got 'm2o'"):
        build(block='m2o')


def test_an_empty_batch_leaves_batch_statistics():
    """The image of zeros that stands in for an empty batch was never seen."""
    up = build_upsampler('indexnet', 8)
    before = {key: value.clone() for key, value in up.state_dict().items()}
    up(torch.randn(0, 8, 3, 5), guide=torch.randn(0, 8, 6, 10)).sum().backward()
    assert all(torch.equal(value, before[key]) for key, value in up.state_dict().items())
    assert up.indexnet[1].training
    up(torch.randn(2, 8, 3, 5), guide=torch.randn(2, 8, 6, 10))
    assert up.indexnet[1].num_batches_tracked == 1

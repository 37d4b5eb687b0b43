"""A convolution before upsampling instead of after it: the same result from fewer channels."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmdysample import build_upsampler
from mmdysample.upsamplers import UpsampleOutput

SAMPLERS = [
    dict(type='dysample'),
    dict(type='dysample_s_plus', groups=2),
    dict(type='dysample_plus', init='nearest', backend='torch'),
    dict(type='dysample_context', groups=2),
]
OTHERS = [dict(type='nearest'), dict(type='bilinear'), dict(mode='bicubic'), dict(type='carafe')]
name_of = lambda cfg: cfg.get('type', 'bicubic')  # noqa: E731


def make(cfg: dict, channels: int = 32, scale_factor: int = 2, outputs: int = 3) -> UpsampleOutput:
    layer = UpsampleOutput(channels, outputs, scale_factor, cfg)
    for name, parameter in layer.named_parameters():
        torch.nn.init.normal_(parameter, std=0.1 if 'upsampler' in name else 0.5)
    return layer


def one_after_the_other(layer: UpsampleOutput, x: torch.Tensor, **kwargs) -> torch.Tensor:
    return layer.convolution(layer.upsampler(x, **kwargs))


@pytest.mark.parametrize('scale_factor', [2, 4])
@pytest.mark.parametrize('cfg', SAMPLERS + OTHERS, ids=name_of)
def test_equals_upsampling_and_then_convolving(cfg, scale_factor):
    layer = make(cfg, 32 if scale_factor == 2 else 64, scale_factor).double()
    results = []
    for run in (layer, lambda x: one_after_the_other(layer, x)):
        torch.manual_seed(0)
        x = torch.randn(2, layer.convolution.in_channels, 4, 5, dtype=torch.float64)
        layer.zero_grad()
        out = run(x.requires_grad_())
        (out * torch.arange(out.shape[-1])).sum().backward()
        results.append([out.detach(), x.grad, *(p.grad.clone() for p in layer.parameters())])
    assert results[0][0].shape == (2, 3, 4 * scale_factor, 5 * scale_factor)
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('cfg', SAMPLERS, ids=name_of)
def test_in_float32_within_a_millionth(cfg):
    layer, x = make(cfg), torch.randn(2, 32, 9, 7)
    expected = one_after_the_other(layer, x)
    assert (layer(x) - expected).abs().max() <= 1e-6 * expected.abs().max()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast(dtype):
    layer, x = make(dict(type='dysample')), torch.randn(1, 32, 5, 6)
    bound = 16 * torch.finfo(dtype).eps * layer(x).abs().max()
    with torch.autocast('cpu', dtype):
        mixed = layer(x)
    half = copy.deepcopy(layer).to(dtype)
    for out, expected in ((mixed, layer(x)), (half(x.to(dtype)), layer(x))):
        assert out.dtype == dtype
        assert (out - expected).abs().max() <= bound


class Largest(TorchDispatchMode):
    """The most values that a tensor at the output resolution holds."""

    def __init__(self, height: int) -> None:
        super().__init__()
        self.height, self.values = height, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor) and self.height in tensor.shape[-3:]:
                self.values = max(self.values, tensor.numel())
        return out


def test_few_channels_are_sampled():
    """``3G`` channels and as many offsets as before, against ``C``."""
    layer, x = make(dict(type='dysample', backend='torch'), channels=256), torch.randn(1, 256, 5, 7)
    largest = []
    for run in (layer, lambda x: one_after_the_other(layer, x)):
        with Largest(height=10) as mode, torch.no_grad():
            run(x)
        largest.append(mode.values)
    assert largest == [3 * 4 * 10 * 14, 256 * 10 * 14]


def test_many_outputs_are_convolved_afterwards():
    layer, x = make(dict(type='dysample'), outputs=8), torch.randn(1, 32, 5, 6)
    assert torch.equal(layer(x), one_after_the_other(layer, x))


def test_a_guide_odd_sizes_and_no_pictures():
    up, convolution = build_upsampler('dysample_guided', 32), torch.nn.Conv2d(32, 2, 1)
    torch.nn.init.normal_(up.fine.offset.weight)
    x, guide = torch.randn(2, 32, 3, 4), torch.randn(2, 32, 5, 8)
    out = up(x, guide, (5, 8), convolution)
    torch.testing.assert_close(out, convolution(up(x, guide, (5, 8))), rtol=1e-5, atol=1e-6)
    layer = make(dict(type='dysample'))
    empty = layer(torch.randn(0, 32, 3, 4))
    assert empty.shape == (0, 3, 6, 8)
    empty.sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


def test_refusals():
    with pytest.raises(ValueError, match="a type without a guide, got 'sapa_b'"):
        UpsampleOutput(32, upsample_cfg='sapa_b')
    for convolution in (torch.nn.Conv2d(8, 4, 3), torch.nn.Conv2d(8, 4, 1, groups=2)):
        with pytest.raises(ValueError, match='convolution must be 1x1 in one group, got Conv2d'):
            build_upsampler('dysample', 8)(torch.zeros(1, 8, 3, 3), convolution=convolution)

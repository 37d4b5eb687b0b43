"""Swapping the upsampling of hosts that interpolate inline or share one nn.Upsample."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdysample import DySample

pytest.importorskip('mmengine')
from mmdysample.hosts.swap import (
    SwapUpsampleMixin,
    UpsampleCall,
    example_pyramid,
    find_upsampling,
    swap_upsample,
)


class Shared(nn.Module):
    """One nn.Upsample for two levels of different channels, and an inline x4."""

    def __init__(self):
        super().__init__()
        self.upsample = nn.Upsample(scale_factor=2)
        self.reduce = nn.Conv2d(16, 8, 1)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x):
        x = self.norm(self.reduce(self.upsample(x)))
        x = self.upsample(x)
        return F.interpolate(x, scale_factor=4, mode='bilinear')


class Resizes(nn.Module):
    """What upsamplers cannot take over: shrinking, a broken ratio, unequal axes."""

    def forward(self, x):
        x = F.interpolate(x, scale_factor=0.5)
        x = F.interpolate(x, size=(3, 3))
        return F.interpolate(x, size=(6, 9))


X = torch.zeros(1, 16, 4, 4)


def test_calls_are_found_with_their_module_channels_factor_and_mode():
    host = Shared()
    assert find_upsampling(host, X) == [
        UpsampleCall('upsample', 16, 2, 'nearest'),
        UpsampleCall('upsample', 8, 2, 'nearest'),
        UpsampleCall('', 8, 4, 'bilinear'),
    ]
    assert host.training and host.norm.training
    assert not host.norm.num_batches_tracked  # looking leaves the statistics alone
    assert not host.upsample._forward_hooks and not host.upsample._forward_pre_hooks


def test_a_shared_module_gets_an_upsampler_per_call():
    host = swap_upsample(Shared(), dict(type='dysample'), X)
    found = [(type(up), up.in_channels, up.scale_factor) for up in host.upsample_modules]
    assert found == [(DySample, 16, 2), (DySample, 8, 2), (DySample, 8, 4)]
    out = host(torch.randn(2, 16, 3, 5))
    assert out.shape == (2, 8, 48, 80)
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in host.upsample_modules.parameters())


@pytest.mark.parametrize(
    ('choice', 'factors'),
    [
        (dict(scale_factor=2), [2, 2]),
        (dict(scale_factor=4), [4]),
        (dict(name='up*'), [2, 2]),
        (dict(name=''), [4]),
        (dict(name='up*', scale_factor=2), [2, 2]),
    ],
)
def test_calls_are_chosen_by_name_and_factor(choice, factors):
    stock = Shared().eval()
    host = swap_upsample(copy.deepcopy(stock), dict(type='dysample'), X, **choice)
    assert [up.scale_factor for up in host.upsample_modules] == factors
    x = torch.randn(1, 16, 4, 4)
    assert host(x).shape == stock(x).shape
    assert not torch.equal(host(x), stock(x))


@pytest.mark.parametrize('stretch', ['nearest', 'bilinear'])
def test_the_hosts_own_interpolation_changes_nothing(stretch):
    stock = Shared()
    mode = {'nearest': 2, 'bilinear': 4}[stretch]
    host = swap_upsample(copy.deepcopy(stock), dict(type=stretch), X, scale_factor=mode)
    host.load_state_dict(stock.state_dict(), strict=True)
    x = torch.randn(2, 16, 5, 3)
    assert torch.equal(host(x), stock(x))


def test_each_call_reaches_its_own_upsampler():
    """Against the same network written out by hand."""
    host = swap_upsample(Shared(), dict(type='dysample', groups=2), X).eval()
    for up in host.upsample_modules:
        nn.init.normal_(up.offset.weight, std=0.5)
    x = torch.randn(2, 16, 4, 6)
    first, second, third = host.upsample_modules
    expected = third(second(host.norm(host.reduce(first(x)))))
    assert torch.equal(host(x), expected)


def test_copies_are_independent_and_weights_travel():
    host = swap_upsample(Shared(), dict(type='dysample'), X).eval()
    twin = copy.deepcopy(host)  # what an exponential moving average does
    x = torch.randn(1, 16, 4, 4)
    before = host(x)
    with torch.no_grad():
        for p in twin.upsample_modules.parameters():
            p.add_(1.0)
    assert torch.equal(host(x), before)
    assert not torch.equal(twin(x), before)
    twin.load_state_dict(host.state_dict(), strict=True)
    assert torch.equal(twin(x), before)
    assert isinstance(twin, SwapUpsampleMixin) and isinstance(twin, Shared)


def test_nothing_is_redirected_outside_the_host():
    host = swap_upsample(Shared(), dict(type='dysample'), X)
    with pytest.raises(ValueError, match='16 channels, got 3'):
        host(torch.randn(1, 3, 4, 4))
    x = torch.randn(1, 16, 4, 4)
    doubled = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert torch.equal(nn.Upsample(scale_factor=2)(x), doubled)
    assert host(x).shape == (1, 8, 64, 64)  # and it counts from the first call again


def test_calls_are_counted():
    class Moody(nn.Module):
        times = 1

        def forward(self, x):
            for _ in range(self.times):
                x = F.interpolate(x, scale_factor=2)
            return x

    host = swap_upsample(Moody(), dict(type='dysample'), X)
    host.times = 2
    with pytest.raises(RuntimeError, match=r'UpsampleMoody made more calls .* than the 1'):
        host(X)
    host.times = 0
    with pytest.raises(RuntimeError, match='fewer'):
        host(X)


def test_refusals():
    with pytest.raises(ValueError, match=r"no upsampling with name='\*'.*scale_factor=None"):
        swap_upsample(Resizes(), 'dysample', torch.zeros(1, 4, 8, 8))
    with pytest.raises(ValueError, match='no upsampling'):
        swap_upsample(Shared(), 'dysample', X, name='neck.*')
    with pytest.raises(ValueError, match='unknown upsampler'):
        swap_upsample(Shared(), 'dysampel', X)
    host = swap_upsample(Shared(), 'dysample', X)
    with pytest.raises(ValueError, match='already has upsample_modules'):
        swap_upsample(host, 'dysample', X)
    with pytest.raises(ValueError, match=r'Sequential runs every module .* wrap it'):
        swap_upsample(nn.Sequential(nn.Upsample(scale_factor=2)), 'dysample', X)


def test_guided_upsamplers_are_refused():
    from mmdysample.upsamplers import Upsampler

    class Guided(Upsampler):
        guided = True

    host = Shared()
    with pytest.raises(ValueError, match='Guided, which is guided'):
        swap_upsample(host, dict(type=Guided), X)
    assert type(host) is Shared and not hasattr(host, 'upsample_modules')


def test_example_pyramid():
    assert [tuple(level.shape) for level in example_pyramid([8, 16, 32])] == [
        (1, 8, 16, 16), (1, 16, 8, 8), (1, 32, 4, 4)
    ]  # fmt: skip

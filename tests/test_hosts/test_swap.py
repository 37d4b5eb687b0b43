"""Swapping the upsampling of hosts that interpolate inline or share one nn.Upsample."""

from __future__ import annotations

import copy
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

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


class Asks(nn.Module):
    """Asks for what a test puts into ``request``."""

    request = dict(scale_factor=2)

    def forward(self, x):
        return F.interpolate(x, **self.request)


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.stage = Asks()

    def forward(self, x):
        return self.stage(x)


@pytest.mark.parametrize('upsampler', ['dysample', 'deconv', 'nearest'])
@pytest.mark.parametrize('factor', [4, 0.5, 3.0, (2, 4)])
def test_another_factor_is_refused_by_the_name_of_the_call(upsampler, factor):
    host = swap_upsample(Inner(), upsampler, X)
    assert host(torch.randn(3, 16, 5, 7)).shape == (3, 16, 10, 14)  # batch and size are free
    host.stage.request = dict(scale_factor=factor)
    with pytest.raises(ValueError, match=r"in 'stage' .* scale_factor=2, but asks for .*=\(?\d"):
        host(X)


@pytest.mark.parametrize('size', [(16, 16), (2, 2), (8, 9), 16])
def test_a_size_out_of_reach_is_refused_by_the_name_of_the_call(size):
    host = swap_upsample(Inner(), 'dysample', X)
    host.stage.request = dict(size=(7, 8))
    assert host(X).shape == (1, 16, 7, 8)
    host.stage.request = dict(size=size)
    pair = size if isinstance(size, tuple) else (size, size)
    expected = f"in 'stage' was swapped for scale_factor=2, but asks for size={pair}"
    with pytest.raises(ValueError, match=re.escape(expected)):
        host(X)
    stretched = swap_upsample(Inner(), 'nearest', X)
    stretched.stage.request = dict(size=size)  # an interpolation reaches any size, as before
    assert stretched(X).shape[-2:] == pair


class Checkpointed(nn.Module):
    """Recomputes a function that interpolates."""

    def __init__(self, reentrant):
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 1)
        self.reentrant = reentrant
        self.with_cp = True

    def forward(self, x):
        def inner(x):
            return F.interpolate(self.conv(x), scale_factor=2)

        if not (self.with_cp and x.requires_grad):
            return inner(x)
        return checkpoint(inner, x, use_reentrant=self.reentrant)


@pytest.mark.parametrize('reentrant', [False, True])
def test_checkpointing_inside_the_module_is_refused(reentrant):
    """Recomputation would bypass the upsampler: wrong gradients with the reentrant kind."""
    host = swap_upsample(Checkpointed(reentrant), 'dysample', X)
    x = torch.randn(1, 16, 4, 4, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"in 'the module itself' .*with_cp=True"):
        host(x)
    with torch.no_grad():
        assert host(x).shape == (1, 16, 8, 8)
    host.with_cp = False
    host(x).sum().backward()


@pytest.mark.parametrize('reentrant', [False, True])
def test_checkpointing_the_whole_module_keeps_the_gradients(reentrant):
    host = swap_upsample(Shared(), dict(type='dysample', groups=2), X).eval()
    x = torch.randn(1, 16, 4, 4, requires_grad=True)
    gradients = []
    for run in (host, lambda x: checkpoint(host, x, use_reentrant=reentrant)):
        host.zero_grad()
        x.grad = None
        run(x).square().sum().backward()
        gradients.append([x.grad, *(p.grad for p in host.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize('inner', ['nearest', 'bilinear', 'dysample'])
def test_an_outer_swap_leaves_the_upsamplers_of_an_inner_one_alone(inner):
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.neck = Inner()

        def forward(self, x):
            return F.interpolate(self.neck(x), scale_factor=4, mode='bilinear')

    host = Outer().eval()
    swap_upsample(host.neck, inner, X)
    assert [call.name for call in find_upsampling(host, X)] == ['']
    before = host(X.normal_())
    neck = host.neck(X)
    swap_upsample(host, 'bilinear', X)
    assert [up.scale_factor for up in host.upsample_modules] == [4]
    assert torch.equal(host(X), before)
    assert torch.equal(host.neck(X), neck)


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


def test_a_swapped_module_compiles_without_a_break():
    torch.compiler.reset()
    host = swap_upsample(Shared(), 'dysample', X).eval()
    compiled = torch.compile(host, backend='eager', fullgraph=True)
    torch.testing.assert_close(compiled(X + 1), host(X + 1))


def test_example_pyramid():
    assert [tuple(level.shape) for level in example_pyramid([8, 16, 32])] == [
        (1, 8, 16, 16), (1, 16, 8, 8), (1, 32, 4, 4)
    ]  # fmt: skip

"""DySampleDown against loops in float64, its start, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from oracles.downsample import downsample_loops

from mmdysample import DySample
from mmdysample.ops import dysample_down
from mmdysample.upsamplers.dysample_down import DySampleDown

INITS = ('average', 'strided')
each_init = pytest.mark.parametrize('init', INITS)
each_size = pytest.mark.parametrize(
    ('scale_factor', 'height', 'width'), [(2, 4, 6), (2, 5, 7), (3, 7, 5), (3, 1, 8), (4, 4, 4)]
)


def random_offset(x, scale_factor, init, groups=2, reach=0.4):
    """Offsets of a few pixels of the input, also beyond its border."""
    size = x.shape[-2:]
    if init == 'strided':
        size = [math.ceil(side / scale_factor) for side in size]
    return reach * torch.randn(x.shape[0], groups, 2, *size, dtype=torch.float64)


def offsets_by_hand(down: DySampleDown, x: torch.Tensor) -> torch.Tensor:
    """What the 1x1 convolutions give for each point of each window's mean, value by value."""
    s, groups, (n, _, height, width) = down.scale_factor, down.groups, x.shape
    side = s if down.init == 'average' else 1
    h, w = math.ceil(height / s), math.ceil(width / s)
    size = (height, width) if down.init == 'average' else (h, w)
    offset = x.new_zeros(n, groups, 2, *size)
    for b, i, j in ((b, i, j) for b in range(n) for i in range(h) for j in range(w)):
        mean = x[b, :, s * i : s * i + s, s * j : s * j + s].mean((1, 2))
        for g, axis, a, c in (
            (g, axis, a, c)
            for g in range(groups)
            for axis in range(2)
            for a in range(side)
            for c in range(side)
        ):
            if side * i + a >= size[0] or side * j + c >= size[1]:
                continue
            row = ((axis * groups + g) * side + a) * side + c
            moved = down.offset.weight[row, :, 0, 0] @ mean + down.offset.bias[row]
            if down.dyscope:
                moved = moved * torch.sigmoid(down.scope.weight[row, :, 0, 0] @ mean)
            offset[b, g, axis, side * i + a, side * j + c] = down.scope_factor * moved
    return offset


@each_init
@each_size
def test_operator_equals_the_loops_with_gradients(init, scale_factor, height, width):
    x = torch.randn(2, 4, height, width, dtype=torch.float64)
    offset = random_offset(x, scale_factor, init)
    results = []
    for run in (
        lambda x, o: dysample_down(x, o, scale_factor=scale_factor, init=init),
        lambda x, o: downsample_loops(x, o, scale_factor, init),
    ):
        leaves = [t.clone().requires_grad_() for t in (x, offset)]
        out = run(*leaves)
        grad = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view(out.shape)
        results.append([out, *torch.autograd.grad(out, leaves, grad)])
    assert results[0][0].shape[-2:] == (-(-height // scale_factor), -(-width // scale_factor))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@each_init
@pytest.mark.parametrize('dyscope', [False, True])
@each_size
def test_module_equals_the_loops(init, dyscope, scale_factor, height, width):
    down = DySampleDown(4, scale_factor, groups=2, dyscope=dyscope, init=init)
    for parameter in down.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 4, height, width)
    ours = down(x)
    exact = DySampleDown(4, scale_factor, groups=2, dyscope=dyscope, init=init).double()
    exact.load_state_dict(down.state_dict())
    with torch.no_grad():
        offset = offsets_by_hand(exact, x.double())
    assert offset.abs().max() > 0.1
    theirs = downsample_loops(x, offset, scale_factor, init)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)


@each_init
@pytest.mark.parametrize('dyscope', [False, True])
def test_gradients_of_the_module(init, dyscope):
    down = DySampleDown(4, groups=2, dyscope=dyscope, init=init).double()
    for parameter in down.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    names, values = zip(*down.named_parameters(), strict=True)

    def run(x, *parameters):
        return torch.func.functional_call(down, dict(zip(names, parameters, strict=True)), x)

    assert torch.autograd.gradcheck(run, (x, *(v.detach().requires_grad_() for v in values)))


@each_size
def test_a_fresh_module_is_average_pooling_or_every_sth_pixel(scale_factor, height, width):
    x = torch.rand(1, 8, height, width)
    pooled = F.avg_pool2d(x, scale_factor, ceil_mode=True)
    for init, expected in (
        ('average', pooled),
        ('strided', x[..., ::scale_factor, ::scale_factor]),
    ):
        down = DySampleDown(8, scale_factor, init=init)
        assert 0 < down.offset.weight.abs().max() < 0.01 and not down.offset.bias.any()
        torch.testing.assert_close(down(x), expected, rtol=0, atol=0.02)
        torch.nn.init.zeros_(down.offset.weight)
        torch.testing.assert_close(down(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('size', [(6, 8), (5, 7)])
@pytest.mark.parametrize('name', ['lp', 'pl'])
def test_a_pair_moves_down_as_it_moved_up(name, size):
    """Each point moves by twice the offset with which the upsampler made its pixel."""
    up = DySample(8, style=name, groups=2, dyscope=True)
    torch.nn.init.normal_(up.offset.weight)
    coarse, fine = torch.randn(1, 8, 3, 4), torch.randn(1, 8, *size, requires_grad=True)
    position, offset = up.sampling_positions(coarse, size)
    assert offset.abs().max() > 0.3
    out = dysample_down(fine, offset)
    assert out.shape == coarse.shape
    moved = position.clone()  # by hand: away from where bilinear interpolation reads
    for row in range(size[0]):
        moved[:, :, 1, row] -= (row + 0.5) / 2 - 0.5
    for column in range(size[1]):
        moved[:, :, 0, :, column] -= (column + 0.5) / 2 - 0.5
    expected = downsample_loops(fine, moved, 2, 'average')
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    out.sum().backward()
    assert fine.grad.any() and up.offset.weight.grad.any()


@each_init
def test_channels_last_stays_and_changes_nothing(init):
    down = DySampleDown(8, init=init)
    torch.nn.init.normal_(down.offset.weight)
    x = torch.randn(2, 8, 5, 6)
    last = down(x.to(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, down(x), rtol=1e-5, atol=1e-5)


@each_init
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('autocast', [False, True])
def test_half_precision_computes_positions_in_float32(init, dtype, autocast):
    """On a map of 600 columns a position in half precision would be wrong by up to a pixel."""
    down = DySampleDown(4, groups=2, init=init)
    torch.nn.init.zeros_(down.offset.weight)
    bias = torch.arange(down.offset.bias.numel()) / 8 - 1  # the same in every dtype
    down.offset.bias.data.copy_(bias)
    x = torch.randn(1, 4, 2, 600).to(dtype)
    expected = down(x.float())
    if autocast:
        with torch.autocast('cpu', dtype):
            out = down(x)
    else:
        out = down.to(dtype)(x)
    assert out.dtype is dtype
    steps = torch.finfo(dtype).eps * 4
    torch.testing.assert_close(out.float(), expected, rtol=steps, atol=steps)


@each_init
def test_an_empty_batch_keeps_the_parameters_in_the_graph(init):
    down = DySampleDown(8, init=init, dyscope=True)
    out = down(torch.zeros(0, 8, 5, 6, requires_grad=True))
    assert out.shape == (0, 8, 3, 3)
    out.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in down.parameters())


@each_init
@pytest.mark.parametrize('dyscope', [False, True])
def test_macs_by_counting(init, dyscope):
    down = DySampleDown(8, groups=2, dyscope=dyscope, init=init)
    count = 0
    for row in range(5):
        for column in range(7):
            first = row % 2 == 0 and column % 2 == 0
            points = 4 if init == 'average' else 1
            count += first * 8 * 2 * 2 * points * (1 + dyscope)  # weights of the projections
            if init == 'average' or first:
                count += 8 * 4 + 2 * 2
    assert down.macs(5, 7) == count


def test_buildable_by_name_and_shown():
    registry = pytest.importorskip('mmengine.registry')
    import mmdysample  # noqa: F401  registers it

    down = registry.MODELS.build(dict(type='DySampleDown', in_channels=8, init='strided'))
    assert type(down) is DySampleDown
    shown = "8, scale_factor=2, groups=4, dyscope=False, scope_factor=0.25, init='strided'"
    assert shown in repr(down)


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        (dict(in_channels=6), ValueError, 'in_channels must be a multiple of 4, got 6'),
        (dict(scale_factor=1), ValueError, 'scale_factor must be an integer >= 2, got 1'),
        (dict(groups=0), ValueError, 'groups must be a positive integer, got 0'),
        (dict(dyscope='no'), TypeError, "dyscope must be True or False, got 'no'"),
        (dict(scope_factor='a'), TypeError, "scope_factor must be a number, got 'a'"),
        (dict(init='max'), ValueError, r"init must be one of \('average', 'strided'\), got 'max'"),
    ],
)
def test_bad_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        DySampleDown(**{'in_channels': 8, **options})


@pytest.mark.parametrize(
    ('x', 'offset', 'options', 'error', 'message'),
    [
        ((1, 8, 4), (1, 2, 2, 4, 4), {}, ValueError, r'x must be of shape \(N, C, H, W\)'),
        ((1, 8, 5, 4), (1, 2, 2, 3, 2), {}, ValueError, r'\(1, G, 2, 5, 4\) for init=.average'),
        (
            (1, 8, 5, 4),
            (1, 2, 2, 5, 4),
            dict(init='strided'),
            ValueError,
            r'offset must be of shape \(1, G, 2, 3, 2\).*got \(1, 2, 2, 5, 4\)',
        ),
        ((1, 8, 4, 4), (1, 3, 2, 4, 4), {}, ValueError, 'must divide the 8 channels of x, got 3'),
        ((1, 8, 4, 4), (1, 4, 4, 4), {}, ValueError, r'got \(1, 4, 4, 4\)'),
        ((1, 8, 4, 4), None, {}, TypeError, 'offset must be a floating-point tensor, got NoneType'),
    ],
)
def test_bad_input_is_refused(x, offset, options, error, message):
    offset = None if offset is None else torch.zeros(offset)
    with pytest.raises(error, match=message):
        dysample_down(torch.zeros(x), offset, **options)


def test_a_feature_of_other_channels_is_refused():
    with pytest.raises(ValueError, match='x must have 8 channels, got 4'):
        DySampleDown(8)(torch.zeros(1, 4, 4, 4))

"""DySample's sampling on PyTorch operators, against float64 loops and the published formulation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracles.dysample import dysample_loops, random_case
from torch.utils._python_dispatch import TorchDispatchMode

from mmdysample.costs.formulations import (
    gather_sampling,
    initial_displacement,
    published_sampling,
)
from mmdysample.ops import dysample
from mmdysample.ops.backend import HAS_NUMBA
from mmdysample.ops.dysample import SamplingSpec, sample_naive

FORMATS = (torch.contiguous_format, torch.channels_last)  # each has an implementation of its own
BACKENDS = [
    'torch',
    pytest.param('native', marks=pytest.mark.skipif(not HAS_NUMBA, reason='needs numba')),
]
every_backend = pytest.mark.parametrize('backend', BACKENDS)


def run(tensors, options, grad, backend='torch'):
    leaves = {k: None if t is None else t.clone().requires_grad_() for k, t in tensors.items()}
    out = dysample(**leaves, **options, backend=backend)
    out.backward(grad)
    return {'out': out.detach(), **{k: None if t is None else t.grad for k, t in leaves.items()}}


@every_backend
@pytest.mark.parametrize('x_format', FORMATS)
@settings(max_examples=60)
@given(
    case=st.fixed_dictionaries(
        dict(
            batch=st.integers(1, 2),
            share=st.sampled_from([1, 2, 3, 5, 8, 9, 19, 27]),
            groups=st.integers(1, 4),
            height=st.integers(1, 6),
            width=st.integers(1, 7),
            cut=st.tuples(st.integers(0, 3), st.integers(0, 3)),
            style=st.sampled_from(['lp', 'pl']),
            scale_factor=st.integers(2, 4),
            dynamic=st.booleans(),
            init=st.sampled_from(['bilinear', 'nearest']),
            reach=st.sampled_from([0.0, 0.5, 4.0, 1e4]),
            offset_format=st.sampled_from(FORMATS),
            seed=st.integers(0, 2**16),
        )
    )
)
@example(case=dict(height=1, width=1, dynamic=True))
@example(case=dict(height=1, width=7, reach=0.0))
@example(case=dict(width=4096, height=1, share=1, groups=1))
def test_float64_matches_the_loops(x_format, case, backend):
    tensors, options, grad = random_case(dtype=torch.float64, x_format=x_format, **case)
    if case.get('reach') == 0.0:
        # 0.25 px of an offset of 0 is on the border; rounding of its unit decides which side.
        tensors['offset'].fill_(1e-3)
    tensors = {k: None if t is None else t.double() for k, t in tensors.items()}
    expected = dysample_loops(**tensors, **options, grad=grad)
    for name, value in run(tensors, options, grad, backend).items():
        if value is not None:
            torch.testing.assert_close(value, expected[name], atol=1e-9, rtol=1e-9)


@every_backend
@pytest.mark.parametrize('x_format', FORMATS)
@pytest.mark.parametrize('style', ['lp', 'pl'])
@pytest.mark.parametrize('dynamic', [False, True])
def test_gradcheck(x_format, style, dynamic, backend):
    tensors, options, _ = random_case(
        dtype=torch.float64, style=style, dynamic=dynamic, cut=(1, 1), x_format=x_format
    )
    leaves = [None if t is None else t.double().requires_grad_() for t in tensors.values()]
    assert torch.autograd.gradcheck(lambda *t: dysample(*t, **options, backend=backend), leaves)


@every_backend
@pytest.mark.parametrize('formulation', [published_sampling, gather_sampling])
@pytest.mark.parametrize('x_format', FORMATS)
def test_other_formulations_agree(x_format, formulation, backend):
    tensors, options, _ = random_case(height=9, width=8, x_format=x_format)
    s, groups = options['scale_factor'], options['groups']
    displacement = tensors['offset'] * options['scope_factor']
    displacement = displacement + initial_displacement(groups, s, torch.device('cpu'))
    expected = dysample_loops(**tensors, **options)
    for actual in (
        formulation(tensors['x'], displacement, groups, s),
        dysample(**tensors, **options, backend=backend),
    ):
        torch.testing.assert_close(actual.double(), expected, atol=1e-5, rtol=0)


@every_backend
@pytest.mark.parametrize('x_format', FORMATS)
@pytest.mark.parametrize('side', [0, 1])
@pytest.mark.parametrize('axis', [0, 1])
def test_no_gradient_exactly_on_the_border(axis, side, x_format, backend):
    tensors, options, grad = random_case(
        style='pl', groups=1, init='nearest', reach=0.0, x_format=x_format
    )
    actual = run(tensors, options, grad, backend)['offset'][0, axis]
    assert (actual.select(1 - axis, -side) == 0).all()
    assert (actual.narrow(1 - axis, 2, actual.shape[1 - axis] - 4) != 0).all()


@every_backend
@pytest.mark.parametrize('x_format', FORMATS)
@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf'), 3e38])
def test_wild_offsets_stay_within_the_map_and_nan_within_its_pixel(value, x_format, backend):
    tensors, options, _ = random_case(x_format=x_format, batch=2, share=3)
    clean = dysample(**tensors, **options, backend=backend)
    tensors['offset'][1, 0, 2, 3] = value
    actual = dysample(**tensors, **options, backend=backend)
    hit = torch.zeros_like(actual, dtype=torch.bool)
    hit[1, :3, 4, 6] = True
    torch.testing.assert_close(actual[~hit], clean[~hit])
    if value != value:
        assert actual[hit].isnan().all()
    else:
        expected = dysample_loops(**tensors, **options)[hit]
        torch.testing.assert_close(actual[hit].double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize('x_format', FORMATS)
@pytest.mark.parametrize('width', [1024, 2048, 4096])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_features_cost_no_more_than_their_rounding(dtype, width, x_format):
    """Against float64 on the same weights and the features before rounding.

    Bound: rounding of a feature (the result is a mean of features) plus rounding of the result,
    plus a position right to ``width * 2**-23`` pixels times the steepest slope.
    """
    tensors, options, _ = random_case(height=2, width=width, groups=1, x_format=x_format)
    exact = dysample(
        **{k: t if t is None else t.double() for k, t in tensors.items()},
        **options,
        backend='torch',
    )
    rounded = tensors | {'x': tensors['x'].to(dtype)}
    actual = dysample(**rounded, **options, backend='torch')
    assert actual.dtype == dtype
    unit = torch.finfo(dtype).eps / 2
    largest = tensors['x'].abs().max()
    bound = 2 * unit * largest + width * 2**-23 * 2 * largest
    error = (actual.double() - exact).abs().max()
    assert error <= bound

    displacement = tensors['offset'] * options['scope_factor']
    displacement = displacement + initial_displacement(1, 2, torch.device('cpu'))
    in_half = published_sampling(rounded['x'], displacement.to(dtype), 1, 2)
    error_in_half = (in_half.double() - exact).abs().max()
    assert error_in_half > 20 * bound  # pixels next to each other fall on one coordinate


@pytest.mark.parametrize('x_format', FORMATS)
@pytest.mark.parametrize('differentiated', [False, True])
@every_backend
@pytest.mark.parametrize('compiled', [False, True])
def test_the_result_is_laid_out_as_x_is(differentiated, x_format, backend, compiled):
    tensors, options, _ = random_case(x_format=x_format)
    tensors['x'].requires_grad_(differentiated)
    function = torch.compile(dysample, backend='aot_eager') if compiled else dysample
    out = function(**tensors, **options, backend=backend)
    assert out.is_contiguous(memory_format=x_format)
    assert out.is_contiguous() == (x_format == torch.contiguous_format)


@every_backend
@pytest.mark.parametrize('x_format', FORMATS)
@pytest.mark.parametrize('reach', [0.5, 40.0])  # 40: positions lie all over the map
@pytest.mark.parametrize('style', ['lp', 'pl'])
def test_maps_wider_than_vectors_and_blocks(x_format, reach, style, backend):
    """Channels, pixels and rows beyond what kernels do at a time, with remainders, in float32."""
    tensors, options, grad = random_case(
        batch=2, share=19, groups=2, height=23, width=13, reach=reach, cut=(1, 1), style=style,
        dynamic=True, x_format=x_format,
    )  # fmt: skip
    wide = {k: t.double().requires_grad_() for k, t in tensors.items()}
    spec = SamplingSpec(*list(options.values())[:-1])
    expected = sample_naive(**wide, spec=spec, size=options['size'])
    expected.backward(grad.double())
    actual = run(tensors, options, grad, backend)
    # A position within rounding of a pixel border has another slope there: leave those few out.
    for name, value in (('out', expected), *((k, t.grad) for k, t in wide.items())):
        error = (actual[name].double() - value).abs()
        assert (error > 1e-3).float().mean() < 1e-3, name
        assert error.median() < 1e-5, name


@pytest.mark.parametrize('x_format', FORMATS)
@settings(max_examples=30)
@given(
    style=st.sampled_from(['lp', 'pl']),
    dynamic=st.booleans(),
    init=st.sampled_from(['bilinear', 'nearest']),
    scale_factor=st.integers(2, 4),
    cut=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    seed=st.integers(0, 99),
)
def test_the_papers_equations_match_the_loops(x_format, **case):
    tensors, options, grad = random_case(dtype=torch.float64, x_format=x_format, **case)
    leaves = {k: None if t is None else t.double() for k, t in tensors.items()}
    expected = dysample_loops(**leaves, **options, grad=grad)
    for leaf in leaves.values():
        if leaf is not None:
            leaf.requires_grad_()
    spec = SamplingSpec(*list(options.values())[:-1])
    out = sample_naive(**leaves, spec=spec, size=options['size'])
    out.backward(grad)
    torch.testing.assert_close(out.detach(), expected['out'], atol=1e-9, rtol=1e-9)
    for name, leaf in leaves.items():
        if leaf is not None:
            torch.testing.assert_close(leaf.grad, expected[name], atol=1e-9, rtol=1e-9)


@every_backend
@pytest.mark.parametrize('x_format', FORMATS)
def test_second_derivatives(x_format, backend):
    tensors, options, _ = random_case(dynamic=True, height=2, width=3, x_format=x_format)
    leaves = [t.double().requires_grad_() for t in tensors.values()]
    assert torch.autograd.gradgradcheck(lambda *t: dysample(*t, **options, backend=backend), leaves)


@every_backend
def test_an_empty_batch_has_gradients(backend):
    tensors, options, grad = random_case(dynamic=True)
    empty = {k: t[:0] for k, t in tensors.items()}
    for name, value in run(empty, options, grad[:0], backend).items():
        assert value.shape[0] == 0, name


@pytest.mark.parametrize(
    ('wrong', 'error', 'message'),
    [
        ({'groups': '2'}, ValueError, r"groups must be a positive integer, got '2'"),
        ({'groups': True}, ValueError, 'groups must be a positive integer, got True'),
        ({'scope_factor': 'a'}, TypeError, "scope_factor must be a number, got 'a'"),
        ({'scope_factor': float('nan')}, ValueError, 'scope_factor must be finite, got nan'),
        ({'size': 8}, ValueError, r'size must be \(height, width\), got 8'),
        ({'size': '88'}, ValueError, r"size must be \(height, width\), got '88'"),
        ({'size': (8.0, 10.0)}, TypeError, r'size must be two integers, got \(8\.0, 10\.0\)'),
        ({'offset': None}, TypeError, 'offset must be a tensor, got NoneType'),
    ],
)
def test_bad_options_are_named(wrong, error, message):
    tensors, options, _ = random_case()
    with pytest.raises(error, match=message):
        dysample(**(tensors | options | wrong))


def test_integers_and_other_shapes_are_refused():
    tensors, options, _ = random_case()
    x, offset = tensors['x'], tensors['offset']
    with pytest.raises(TypeError, match=r'offset must be floating point, got torch\.int64'):
        dysample(x, offset.long(), **options)
    with pytest.raises(ValueError, match=r'offset must be of shape \(1, 16, 4, 5\).* got'):
        dysample(x, offset[:, 1:], **options)
    with pytest.raises(ValueError, match=r'scope must be of shape .* got \(1, 16, 4, 4\)'):
        dysample(x, offset, offset[..., 1:], **options)
    with pytest.raises(ValueError, match='groups must divide the 4 channels of x, got 3'):
        dysample(x, offset, **options | {'groups': 3})
    with pytest.raises(ValueError, match=r"backend must be one of .* got 'cuda'"):
        dysample(x, offset, **options, backend='cuda')


def test_nothing_is_made_on_the_host():
    """On a device other than the CPU, no operator of a call touches a CPU tensor."""

    class Devices(TorchDispatchMode):
        seen: set[str] = set()

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **kwargs or {})
            for value in (*args, *(kwargs or {}).values(), result):
                if isinstance(value, torch.Tensor):
                    self.seen.add(value.device.type)
            return result

    tensors, options, _ = random_case('meta', dynamic=True)
    with Devices() as devices:
        dysample(**tensors, **options, backend='torch')
    assert devices.seen == {'meta'}


def test_zero_offsets_are_bilinear_interpolation():
    tensors, options, _ = random_case(reach=0.0, height=6, width=7)
    expected = F.interpolate(tensors['x'], scale_factor=2, mode='bilinear', align_corners=False)
    torch.testing.assert_close(dysample(**tensors, **options), expected, atol=1e-5, rtol=0)

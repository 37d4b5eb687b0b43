"""Reassembly and window similarity against loops in float64, and what they keep in memory."""

from __future__ import annotations

import sys
import types
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from oracles.reassembly import reassemble_oracle, similarity_oracle
from torch.autograd import gradcheck, gradgradcheck

from mmdysample.ops import reassemble, reassembly, window_similarity
from mmdysample.ops.backend import HAS_NUMBA, VARIABLE
from mmdysample.ops.reassembly import eager, mmcv_carafe, native

# (N, C, H, W), kernel_size, groups, scale_factor, why
GEOMETRIES = [
    pytest.param((2, 6, 4, 5), 3, 1, 2, id='plain'),
    pytest.param((1, 8, 3, 7), 5, 4, 2, id='groups'),
    pytest.param((2, 4, 5, 3), 3, 2, 3, id='factor-3'),
    pytest.param((1, 3, 2, 3), 5, 1, 4, id='window-wider-than-map'),
    pytest.param((2, 2, 1, 1), 5, 1, 2, id='one-pixel'),
    pytest.param((1, 4, 3, 2), 1, 1, 2, id='one-tap'),
    pytest.param((3, 1, 2, 4), 3, 1, 2, id='one-channel'),
]
OPERATORS = {
    'reassemble': (reassemble, reassemble_oracle),
    'window_similarity': (window_similarity, similarity_oracle),
}


def arguments(operator, shape, kernel_size, groups, scale, dtype=torch.float64):
    n, channels, height, width = shape
    coarse = torch.randn(shape).to(dtype)
    fine_channels = groups * kernel_size**2 if operator == 'reassemble' else channels
    fine = torch.randn(n, fine_channels, scale * height, scale * width).to(dtype)
    return (coarse, fine) if operator == 'reassemble' else (fine, coarse)


NAIVE = {
    'reassemble': reassembly.reassemble_naive,
    'window_similarity': reassembly.window_similarity_naive,
}


@pytest.mark.parametrize('operator', OPERATORS)
@pytest.mark.parametrize(('shape', 'kernel_size', 'groups', 'scale'), GEOMETRIES)
def test_the_naive_forms_equal_the_loops(operator, shape, kernel_size, groups, scale):
    tensors = arguments(operator, shape, kernel_size, groups, scale)
    out = NAIVE[operator](*tensors, kernel_size, groups, scale)
    torch.testing.assert_close(out, OPERATORS[operator][1](*tensors, kernel_size, groups, scale))


@pytest.mark.parametrize('operator', OPERATORS)
@pytest.mark.parametrize('scale', [41, 61])
def test_the_naive_forms_find_parents_where_s_times_its_inverse_is_below_1(operator, scale):
    """In float32, ``41 * (1 / 41) < 1``: by that product, pixel 41 would belong to parent 0."""
    tensors = arguments(operator, (1, 1, 1, 2), 1, 1, scale, torch.float32)
    out = NAIVE[operator](*tensors, 1, 1, scale)
    expected = OPERATORS[operator][1](*tensors, 1, 1, scale)
    torch.testing.assert_close(out, expected, check_dtype=False)


NATIVE = pytest.param(
    'native', marks=pytest.mark.skipif(not HAS_NUMBA, reason='numba is not installed')
)


@pytest.fixture(autouse=True, params=['torch', NATIVE])
def backend(request, monkeypatch):
    """All tests run with each implementation for the CPU, as the environment asks for it."""
    monkeypatch.setenv(VARIABLE, request.param)
    return request.param


# PyTorch's operators gather windows row by row or at once; native kernels gather none, and take no
# half precision.
GATHERED = [pytest.param('torch', 1, id='row-by-row'), pytest.param('torch', 2**20, id='at-once')]
WAYS = [*GATHERED, pytest.param('native', None, id='native', marks=NATIVE.marks)]
WIDE, HALF = (torch.float64, torch.float32), (torch.float16, torch.bfloat16)
WAYS_AND_DTYPES = [
    pytest.param(*way.values, dtype, id=f'{way.id}-{dtype}', marks=way.marks)
    for ways, dtypes in ((WAYS, WIDE), (GATHERED, HALF))
    for way in ways
    for dtype in dtypes
]


@pytest.fixture
def chunking(request, monkeypatch):
    """How many elements the windows may have that PyTorch's operators gather at a time."""
    if request.param is not None:
        monkeypatch.setitem(eager._WINDOW_ELEMENTS, 'cpu', request.param)


@pytest.mark.parametrize('operator', OPERATORS)
@pytest.mark.parametrize(('shape', 'kernel_size', 'groups', 'scale'), GEOMETRIES)
@pytest.mark.parametrize(
    ('backend', 'chunking', 'dtype'), WAYS_AND_DTYPES, indirect=['backend', 'chunking']
)
def test_equals_the_loops(operator, shape, kernel_size, groups, scale, dtype, chunking, backend):
    run, oracle = OPERATORS[operator]
    tensors = arguments(operator, shape, kernel_size, groups, scale, dtype)
    out = run(*tensors, kernel_size=kernel_size, groups=groups, scale_factor=scale)
    expected = oracle(*tensors, kernel_size, groups, scale)
    wide = torch.promote_types(dtype, torch.float32)
    assert out.dtype == (dtype if operator == 'reassemble' else wide)
    # Accumulated in float32 at least; only the result is rounded to the dtype of x.
    rounding = torch.finfo(out.dtype).eps * expected.abs() + 32 * torch.finfo(wide).eps
    assert ((out.double() - expected).abs() <= rounding).all()


@pytest.mark.parametrize('operator', OPERATORS)
@pytest.mark.parametrize(('shape', 'kernel_size', 'groups', 'scale'), GEOMETRIES)
@pytest.mark.parametrize(('backend', 'chunking'), WAYS, indirect=True)
def test_gradients(operator, shape, kernel_size, groups, scale, chunking, backend):
    tensors = [
        tensor.requires_grad_() for tensor in arguments(operator, shape, kernel_size, groups, scale)
    ]

    def run(*tensors):
        return OPERATORS[operator][0](
            *tensors, kernel_size=kernel_size, groups=groups, scale_factor=scale
        )

    assert gradcheck(run, tensors, fast_mode=True)
    assert gradgradcheck(run, tensors, fast_mode=True)


@pytest.mark.parametrize('operator', OPERATORS)
def test_gradients_equal_those_of_the_loops_in_half_precision(operator, monkeypatch):
    monkeypatch.delenv(VARIABLE)
    run, oracle = OPERATORS[operator]
    tensors = [t.requires_grad_() for t in arguments(operator, (2, 4, 3, 4), 3, 2, 2, torch.half)]
    out = run(*tensors, kernel_size=3, groups=2)
    weight = torch.randn(out.shape).to(out.dtype)
    grads = torch.autograd.grad(out, tensors, weight)
    expected = torch.autograd.grad(oracle(*tensors, 3, 2, 2), tensors, weight.double())
    for grad, reference_grad in zip(grads, expected, strict=True):
        assert grad.dtype == torch.half
        torch.testing.assert_close(grad, reference_grad, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize('needed', [0, 1])
@pytest.mark.parametrize('operator', OPERATORS)
def test_one_gradient_alone(operator, needed):
    tensors = arguments(operator, (1, 4, 3, 3), 3, 1, 2)
    both = [tensor.clone().requires_grad_() for tensor in tensors]
    run = OPERATORS[operator][0]
    run(*both, kernel_size=3).square().sum().backward()
    alone = list(tensors)
    alone[needed] = tensors[needed].clone().requires_grad_()
    run(*alone, kernel_size=3).square().sum().backward()
    torch.testing.assert_close(alone[needed].grad, both[needed].grad)


@pytest.mark.parametrize('size', [(7, 9), (8, 9), (7, 10)])
def test_size_cuts(size):
    x, kernels = arguments('reassemble', (1, 4, 4, 5), 3, 1, 2)
    whole = reassemble(x, kernels, kernel_size=3)
    cut = reassemble(x, kernels, kernel_size=3, size=size)
    assert torch.equal(cut, whole[..., : size[0], : size[1]])


@pytest.mark.parametrize('operator', OPERATORS)
@pytest.mark.parametrize('layout', ['channels_last', 'transposed', 'every other'])
def test_any_strides(operator, layout):
    change = {
        'channels_last': lambda t: t.contiguous(memory_format=torch.channels_last),
        'transposed': lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
        'every other': lambda t: torch.stack((t, t + 1), -1).flatten(-2)[..., ::2],
    }[layout]
    tensors = arguments(operator, (2, 4, 3, 5), 3, 2, 2)
    run = OPERATORS[operator][0]
    plain = [tensor.clone().requires_grad_() for tensor in tensors]
    strided = [change(tensor).requires_grad_() for tensor in tensors]
    assert not any(tensor.is_contiguous() for tensor in strided)
    results = [run(*pair, kernel_size=3, groups=2) for pair in (plain, strided)]
    torch.testing.assert_close(*results)
    for result in results:
        result.square().sum().backward()
    for one, other in zip(plain, strided, strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    if operator == 'reassemble' and layout == 'channels_last':
        assert results[1].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('operator', OPERATORS)
def test_empty_batch(operator):
    tensors = [t.requires_grad_() for t in arguments(operator, (0, 4, 3, 5), 3, 2, 2)]
    out = OPERATORS[operator][0](*tensors, kernel_size=3, groups=2)
    assert out.shape == (0, 4 if operator == 'reassemble' else 18, 6, 10)
    out.sum().backward()
    assert all(tensor.grad.shape == tensor.shape for tensor in tensors)


@pytest.mark.parametrize('operator', OPERATORS)
def test_autocast_changes_nothing(operator):
    tensors = [
        t.requires_grad_() for t in arguments(operator, (1, 4, 3, 5), 3, 1, 2, torch.float32)
    ]
    run = OPERATORS[operator][0]
    plain = run(*tensors, kernel_size=3)
    expected = torch.autograd.grad(plain.square().sum(), tensors)
    with torch.autocast('cpu', torch.bfloat16):
        out = run(*tensors, kernel_size=3)
        grads = torch.autograd.grad(out.square().sum(), tensors)
    torch.testing.assert_close([out, *grads], [plain, *expected], rtol=0, atol=0)


@pytest.mark.parametrize('operator', OPERATORS)
def test_keeps_its_arguments_only(operator):
    tensors = [t.requires_grad_() for t in arguments(operator, (1, 32, 12, 12), 5, 1, 2)]
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        OPERATORS[operator][0](*tensors, kernel_size=5)
    assert {t.data_ptr() for t in kept} == {t.data_ptr() for t in tensors}


@pytest.mark.parametrize('operator', OPERATORS)
def test_compiles_without_a_break(operator):
    tensors = [t.requires_grad_() for t in arguments(operator, (1, 4, 3, 5), 3, 1, 2)]
    run = OPERATORS[operator][0]
    compiled = torch.compile(
        lambda *pair: run(*pair, kernel_size=3), backend='aot_eager', fullgraph=True
    )
    expected = run(*tensors, kernel_size=3)
    out = compiled(*tensors)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(
        torch.autograd.grad(out.square().sum(), tensors),
        torch.autograd.grad(expected.square().sum(), tensors),
    )


@pytest.mark.parametrize('operator', OPERATORS)
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('backend', [NATIVE], indirect=True)
def test_any_number_of_threads_gives_the_same_bits(operator, layout, backend):
    """Of PyTorch's operators the library of matrix products decides."""
    tensors = arguments(operator, (2, 20, 9, 7), 5, 2, 2, torch.float32)
    tensors = [t.contiguous(memory_format=layout).requires_grad_() for t in tensors]
    results = []
    before = torch.get_num_threads()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        out = OPERATORS[operator][0](*tensors, kernel_size=5, groups=2)
        results.append([out, *torch.autograd.grad(out.square().sum(), tensors)])
    torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize('operator', OPERATORS)
def test_several_threads_call_at_once(operator, backend):
    tensors = arguments(operator, (1, 8, 12, 12), 3, 1, 2, torch.float32)
    run = OPERATORS[operator][0]
    expected = run(*tensors, kernel_size=3)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: run(*tensors, kernel_size=3), range(16)))
    assert all(torch.equal(result, expected) for result in results)


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_gradients_of_gradients_in_either_layout(layout):
    x, kernels = arguments('reassemble', (1, 4, 3, 3), 3, 2, 2)
    x = x.contiguous(memory_format=layout).requires_grad_()
    kernels.requires_grad_()
    options = dict(kernel_size=3, groups=2)
    assert gradgradcheck(lambda *pair: reassemble(*pair, **options), (x, kernels), fast_mode=True)


@pytest.mark.skipif(not HAS_NUMBA, reason='numba is not installed')
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_native_operators_keep_their_contract(layout):
    x, kernels = arguments('reassemble', (2, 6, 3, 4), 3, 2, 2)
    fine, x = (t.contiguous(memory_format=layout) for t in (torch.randn(2, 6, 6, 8).double(), x))
    tensors = [t.requires_grad_() for t in (x, kernels, fine)]
    geometry = (3, 2, 2)
    x, kernels, fine = tensors
    torch.library.opcheck(native._reassemble_operator, (x, kernels, *geometry))
    torch.library.opcheck(native._similarity_operator, (fine, x, *geometry))
    torch.library.opcheck(native._transposed_operator, (kernels, fine, *geometry))


REFUSALS = [
    (dict(kernel_size=4), ValueError, 'kernel_size must be a positive odd integer, got 4'),
    (dict(kernel_size=5), ValueError, r'kernels must be of shape \(1, 25, 4, 6\)'),
    (dict(groups=3), ValueError, 'channels of x must be a multiple of 3, got 4'),
    (dict(groups=0), ValueError, 'groups must be a positive integer, got 0'),
    (dict(scale_factor=3), ValueError, r'kernels must be of shape \(1, 9, 6, 9\)'),
    (dict(size=(2, 6)), ValueError, 'out of reach'),
    (dict(backend='cuda'), ValueError, "backend must be one of .*, got 'cuda'"),
    (dict(backend='mmcv'), ValueError, "backend must be one of .*, got 'mmcv'"),
    (dict(kernels=torch.zeros(1, 9, 4, 6, dtype=torch.long)), TypeError, 'kernels must be float'),
    (dict(x=torch.zeros(4, 2, 3)), ValueError, r'x must be of shape \(N, C, H, W\)'),
]


@pytest.mark.parametrize(('wrong', 'error', 'message'), REFUSALS)
def test_refusals(wrong, error, message):
    right = dict(x=torch.zeros(1, 4, 2, 3), kernels=torch.zeros(1, 9, 4, 6), kernel_size=3)
    reassemble(**right)
    with pytest.raises(error, match=message):
        reassemble(**{**right, **wrong})


def test_similarity_refuses_other_channels():
    with pytest.raises(ValueError, match=r'query must be of shape \(1, 4, 4, 6\)'):
        window_similarity(torch.zeros(1, 5, 4, 6), torch.zeros(1, 4, 2, 3), kernel_size=3)


def on_cuda(shape, dtype=torch.float32, channels_last=False):
    """What the predicate reads of a CUDA tensor, on a machine without a GPU."""
    meta = torch.empty(shape, dtype=dtype, device='meta')
    if channels_last:
        meta = meta.contiguous(memory_format=torch.channels_last)
    return types.SimpleNamespace(
        device=torch.device('cuda'),
        dtype=dtype,
        numel=meta.numel,
        is_contiguous=meta.is_contiguous,
    )


FITTING = dict(x=on_cuda((1, 256, 8, 8)), kernels=on_cuda((1, 25, 16, 16)), kernel_size=5, groups=1)
UNFIT = {
    'layout': dict(x=on_cuda((1, 256, 8, 8), channels_last=True)),
    'kernel layout': dict(kernels=on_cuda((1, 25, 16, 16), channels_last=True)),
    'dtypes differ': dict(kernels=on_cuda((1, 25, 16, 16), torch.float64)),
    'half accumulation': dict(
        x=on_cuda((1, 256, 8, 8), torch.half), kernels=on_cuda((1, 25, 16, 16), torch.half)
    ),
    '385 kernel channels and more': dict(kernel_size=7, groups=8),
    'empty batch': dict(x=on_cuda((0, 256, 8, 8)), kernels=on_cuda((0, 25, 16, 16))),
    '32-bit index': dict(x=on_cuda((2, 1024, 1024, 1024))),
    'cpu': dict(x=torch.zeros(1, 256, 8, 8), kernels=torch.zeros(1, 25, 16, 16)),
}


def test_mmcv_runs_what_it_computes_as_we_do(monkeypatch):
    monkeypatch.setattr(mmcv_carafe, 'mmcv_has_cuda', lambda: True)
    assert mmcv_carafe.can_run_mmcv(**FITTING)
    refused = {name for name, one in UNFIT.items() if not mmcv_carafe.can_run_mmcv(**FITTING | one)}
    assert refused == set(UNFIT)
    monkeypatch.setattr(mmcv_carafe, 'mmcv_has_cuda', lambda: False)
    assert not mmcv_carafe.can_run_mmcv(**FITTING)


@pytest.mark.parametrize(('compiled', 'expected'), [('12.1', True), ('not available', False)])
def test_mmcv_counts_only_with_its_cuda_operators(monkeypatch, compiled, expected):
    fake = types.SimpleNamespace(get_compiling_cuda_version=lambda: compiled)
    monkeypatch.setitem(sys.modules, 'mmcv', types.ModuleType('mmcv'))
    monkeypatch.setitem(sys.modules, 'mmcv.ops', fake)
    assert mmcv_carafe.mmcv_has_cuda.__wrapped__() is expected
    monkeypatch.setitem(sys.modules, 'mmcv.ops', None)
    assert not mmcv_carafe.mmcv_has_cuda.__wrapped__()


def test_mmcv_is_called_with_our_geometry(monkeypatch):
    calls = []
    fake = types.SimpleNamespace(carafe=lambda *args: calls.append(args) or reassembly_of(*args))
    monkeypatch.setitem(sys.modules, 'mmcv', types.ModuleType('mmcv'))
    monkeypatch.setitem(sys.modules, 'mmcv.ops', fake)
    monkeypatch.setattr(reassembly, 'can_run_mmcv', lambda *_: True)
    monkeypatch.delenv(VARIABLE)
    x, kernels = arguments('reassemble', (1, 4, 3, 3), 3, 2, 3)
    out = reassemble(x, kernels, kernel_size=3, groups=2, scale_factor=3, size=(8, 9))
    assert calls[0][2:] == (3, 2, 3)
    torch.testing.assert_close(out, reassembly_of(*calls[0])[..., :8, :])


def reassembly_of(x, kernels, kernel_size, groups, scale_factor):
    return reassemble_oracle(x, kernels, kernel_size, groups, scale_factor)

"""DySample's kernels against float64 loops; on the CPU in Triton's interpreter."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracles.dysample import dysample_loops, random_case

from mmdysample.ops import dysample
from mmdysample.ops.backend import HAS_TRITON

pytestmark = pytest.mark.skipif(not HAS_TRITON, reason='triton is not installed')
binding = import_module('mmdysample.ops.dysample.launch') if HAS_TRITON else None

# Rounding of results to their dtype, relative; the interpreter cuts bfloat16 instead of rounding.
ROUNDING = {torch.float32: 2e-6, torch.float16: 2**-11, torch.bfloat16: 2**-7}
FORMATS = (torch.contiguous_format, torch.channels_last)


def run(tensors, options, grad, backend='triton'):
    """Result and gradients of the operator, under the names that the oracle gives them."""
    leaves = {k: None if t is None else t.clone().requires_grad_() for k, t in tensors.items()}
    out = dysample(**leaves, **options, backend=backend)
    out.backward(grad)
    return {'out': out.detach(), **{k: None if t is None else t.grad for k, t in leaves.items()}}


def assert_close(actual, expected, dtype):
    """Largest error within rounding, for the whole map and for its two outer pixels apart."""
    for name, reference in expected.items():
        if reference is None:
            continue
        value = actual[name].double().cpu()
        wide = dtype if name in ('out', 'x') else torch.float32
        # A gradient adds up products; the weights are exact to float32 of a pixel.
        bound = ROUNDING[wide] * (1 + reference.abs().max()) + 1e-5
        border = torch.ones_like(reference, dtype=torch.bool)
        border[..., 2:-2, 2:-2] = False
        error = (value - reference).abs()
        assert torch.isfinite(value).all(), name
        for part in (error[border], error[~border]):
            assert part.numel() == 0 or part.max() <= bound, (name, part.max().item(), bound)


cases = st.fixed_dictionaries(
    dict(
        batch=st.integers(1, 2),
        share=st.sampled_from([1, 2, 3, 5]),
        groups=st.integers(1, 3),
        height=st.integers(1, 6),
        width=st.integers(1, 7),
        cut=st.tuples(st.integers(0, 3), st.integers(0, 3)),
        style=st.sampled_from(['lp', 'pl']),
        scale_factor=st.integers(2, 4),
        dynamic=st.booleans(),
        init=st.sampled_from(['bilinear', 'nearest']),
        reach=st.sampled_from([0.0, 0.5, 4.0, 1e4]),
        x_format=st.sampled_from(FORMATS),
        offset_format=st.sampled_from(FORMATS),
        seed=st.integers(0, 2**16),
    )
)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.usefixtures('poisoned_memory')
@settings(max_examples=8)
@given(case=cases, tile=st.sampled_from([(16, 16), (8, 32), (4, 8)]))
@example(case=dict(height=1, width=1, dynamic=True), tile=(4, 4))  # nowhere to go
@example(case=dict(height=1, width=7, reach=0.0), tile=(2, 16))  # offsets on the border
def test_kernels_match_the_loops(dtype, device, case, tile):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binding, 'choose_tile', lambda *_: binding.Tile(*tile, 4))
        tensors, options, grad = random_case(device, dtype, **case)
        actual = run(tensors, options, grad)
    expected = dysample_loops(**tensors, **options, grad=grad)
    assert_close(actual, expected, dtype)
    assert actual['out'].dtype == actual['x'].dtype == dtype
    assert actual['out'].is_contiguous(memory_format=case.get('x_format', FORMATS[0]))


@pytest.mark.parametrize('x_format', FORMATS)
def test_wild_offsets_stay_within_the_map_and_nan_within_its_pixel(device, x_format):
    tensors, options, grad = random_case(device, x_format=x_format, batch=2, share=3)
    wild = torch.tensor([float('nan'), float('inf'), -float('inf'), 3e38])
    tensors['offset'][1, 0, 2, :4] = wild  # x component, group 0, sub-position (0, 0)
    actual = run(tensors, options, grad)['out'].double().cpu()
    expected = dysample_loops(**tensors, **options)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0, equal_nan=True)
    assert actual.isnan().sum() == actual[1, :3, 4, 0].isnan().sum() == 3


@pytest.mark.parametrize('side', [0, 1])
@pytest.mark.parametrize('axis', [0, 1])
def test_no_gradient_exactly_on_the_border(device, axis, side):
    tensors, options, grad = random_case(device, style='pl', groups=1, init='nearest', reach=0.0)
    options['scope_factor'] = 1.0
    actual = run(tensors, options, grad)['offset'][0, axis]
    border = actual.select(1 - axis, -side)  # pixels 0 and 1 lie at 0, the last two at length - 1
    assert (border == 0).all()
    inner = actual.narrow(1 - axis, 2, actual.shape[1 - axis] - 4)
    assert (inner != 0).all()


def test_positions_are_exact_at_any_width(device, monkeypatch):
    monkeypatch.setattr(binding, 'choose_tile', lambda *_: binding.Tile(2, 2048, 4))
    width = 8192
    x = torch.zeros(1, 1, 1, width, device=device)
    x[..., -3] = 1.0
    offset = torch.full((1, 2, 1, 2 * width), 2**-12, device=device).repeat(1, 1, 2, 1)
    out = dysample(
        x, offset, groups=1, style='pl', scope_factor=1.0, init='nearest', backend='triton'
    )
    torch.testing.assert_close(
        out[0, 0, 0, -8:].cpu(),
        torch.tensor([2**-12] * 2 + [1 - 2**-12] * 2 + [0.0] * 4),
        atol=0,
        rtol=0,
    )


def test_maps_beyond_int32_are_indexed_in_int64(device, monkeypatch):
    tensors, options, grad = random_case(device, dynamic=True, batch=2)
    narrow = run(tensors, options, grad)
    monkeypatch.setattr(binding, 'INT32_ELEMENTS', 0)
    for name, value in run(tensors, options, grad).items():
        torch.testing.assert_close(value, narrow[name], atol=1e-6, rtol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs 12 GB on a GPU')
@pytest.mark.parametrize('x_format', FORMATS)
def test_a_result_of_more_than_two_to_the_31_elements(x_format):
    x = torch.randn(1, 64, 2900, 2900, dtype=torch.float16, device='cuda')
    x = x.to(memory_format=x_format)
    offset = torch.randn(1, 2, 5800, 5800, device='cuda')
    options = dict(groups=1, style='pl')
    out = dysample(x, offset, **options, backend='triton')
    assert out.numel() > 2**31
    expected = dysample(x[:, -2:], offset, **options, backend='torch')
    torch.testing.assert_close(out[:, -2:], expected, atol=5e-3, rtol=2**-10)


@pytest.mark.parametrize('style', ['lp', 'pl'])
def test_odd_inputs(device, style):
    """Holes and overlaps in the inputs, an empty batch, gradients that nobody wants."""
    tensors, options, grad = random_case(device, style=style, dynamic=True, share=3)
    expected = run(tensors, options, grad)
    holed = {k: torch.stack((t, t), dim=-1)[..., 0] for k, t in tensors.items()}
    for name, value in run(holed, options, grad.expand(2, *grad.shape)[1]).items():
        torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=1e-5)
    empty = {k: t[:0] for k, t in tensors.items()}
    assert run(empty, options, grad[:0])['x'].shape == empty['x'].shape
    for wanted in tensors:
        leaves = tensors | {wanted: tensors[wanted].clone().requires_grad_()}
        dysample(**leaves, **options, backend='triton').backward(grad)
        torch.testing.assert_close(leaves[wanted].grad, expected[wanted], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('x_format', FORMATS)
def test_deterministic_mode(device, x_format, monkeypatch):
    tensors, options, grad = random_case(
        device, dynamic=True, groups=1, height=3, width=3, x_format=x_format, reach=9.0
    )
    usual = run(tensors, options, grad)
    used = []
    original = binding._add_in_order
    monkeypatch.setattr(binding, '_add_in_order', lambda *a: used.append(a) or original(*a))
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (run(tensors, options, grad) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert len(used) == 2
    for name, value in first.items():
        assert torch.equal(value, second[name])
        torch.testing.assert_close(value, usual[name], atol=1e-5, rtol=1e-5)


def test_nothing_of_output_size_is_kept(device):
    tensors, options, _ = random_case(device, dynamic=True, share=9)
    leaves = {k: t.requires_grad_() for k, t in tensors.items()}
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        dysample(**leaves, **options, backend='triton')
    assert {t.data_ptr() for t in kept} == {t.data_ptr() for t in tensors.values()}


def test_autocast_leaves_the_operator_alone(device):
    tensors, options, grad = random_case(device, torch.bfloat16)
    plain = run(tensors, options, grad)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        cast = run(tensors, options, grad)
    for name in ('out', 'offset'):
        assert torch.equal(cast[name], plain[name])

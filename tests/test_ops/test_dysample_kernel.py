"""DySample's kernels against float64 loops; on the CPU in Triton's interpreter."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracles.dysample import dysample_loops

from mmdysample.ops import dysample
from mmdysample.ops.backend import HAS_TRITON

pytestmark = pytest.mark.skipif(not HAS_TRITON, reason='triton is not installed')
binding = import_module('mmdysample.ops.dysample.binding') if HAS_TRITON else None

# Rounding of results to their dtype, relative; the interpreter cuts bfloat16 instead of rounding.
ROUNDING = {torch.float32: 2e-6, torch.float16: 2**-11, torch.bfloat16: 2**-7}
OPTIONS = ('scale_factor', 'groups', 'style', 'scope_factor', 'init', 'size')
FORMATS = (torch.contiguous_format, torch.channels_last)


def random_case(
    device='cpu',
    dtype=torch.float32,
    *,
    batch=1,
    share=2,
    groups=2,
    height=4,
    width=5,
    cut=(0, 0),
    style='lp',
    scale_factor=2,
    dynamic=False,
    init='bilinear',
    reach=2.0,
    x_format=torch.contiguous_format,
    offset_format=torch.contiguous_format,
    seed=0,
):
    """Random arguments of `dysample`, and an upstream gradient for its result."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape, scale=1.0, like=dtype, memory_format=torch.contiguous_format):
        values = torch.randn(shape, generator=generator) * scale
        return values.to(device, like, memory_format=memory_format)

    s = scale_factor
    size = (s * height - cut[0] % s, s * width - cut[1] % s)
    shape = (2 * groups * s * s, height, width) if style == 'lp' else (2 * groups, s * height, s * width)
    tensors = dict(
        x=draw(batch, share * groups, height, width, memory_format=x_format),
        offset=draw(batch, *shape, scale=reach, like=torch.float32, memory_format=offset_format),
        scope=draw(batch, *shape, like=torch.float32) if dynamic else None,
    )
    options = dict(
        scale_factor=s,
        groups=groups,
        style=style,
        scope_factor=0.5 if dynamic else 0.25,
        init=init,
        size=size,
    )
    grad = draw(batch, share * groups, *size, memory_format=x_format)
    return tensors, options, grad


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
@settings(max_examples=12)
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

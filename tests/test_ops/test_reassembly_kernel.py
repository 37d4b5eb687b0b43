"""The reassembly kernels against float64 loops; on the CPU in Triton's interpreter."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracles.reassembly import reassemble_oracle, similarity_oracle

from mmdysample.ops import reassemble, window_similarity
from mmdysample.ops.backend import HAS_TRITON

pytestmark = pytest.mark.skipif(not HAS_TRITON, reason='triton is not installed')
binding = import_module('mmdysample.ops.reassembly.operator') if HAS_TRITON else None

OPERATORS = {
    'reassemble': (reassemble, reassemble_oracle),
    'window_similarity': (window_similarity, similarity_oracle),
}
# Rounding of results to their dtype, relative; the interpreter cuts bfloat16 instead of rounding.
ROUNDING = {torch.float32: 2e-6, torch.float16: 2**-11, torch.bfloat16: 2**-7}


def random_arguments(operator, device, dtype, *, batch, share, groups, height, width, side, scale):
    x = torch.randn(batch, share * groups, height, width).to(device, dtype)
    channels = groups * side**2 if operator == 'reassemble' else share * groups
    fine = torch.randn(batch, channels, scale * height, scale * width).to(device, dtype)
    return (x, fine) if operator == 'reassemble' else (fine, x)


def run(function, tensors, grad, *geometry, **backend):
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    if backend:
        side, groups, scale = geometry
        out = function(*leaves, kernel_size=side, groups=groups, scale_factor=scale, **backend)
    else:
        out = function(*(leaf.double() for leaf in leaves), *geometry)
    out.backward(grad.to(out.dtype))
    return [out.detach(), *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize('operator', OPERATORS)
@pytest.mark.parametrize('dtype', list(ROUNDING))
@pytest.mark.usefixtures('poisoned_memory')
@settings(max_examples=3)
@given(
    case=st.fixed_dictionaries(
        dict(
            batch=st.integers(1, 2),
            share=st.sampled_from([1, 3, 9]),
            groups=st.integers(1, 2),
            height=st.integers(1, 4),
            width=st.integers(1, 5),
            side=st.sampled_from([1, 3]),
            scale=st.integers(2, 3),
        )
    )
)
@example(case=dict(batch=1, share=2, groups=1, height=2, width=3, side=5, scale=2))
def test_kernels_match_the_loops(operator, dtype, device, case):
    function, oracle = OPERATORS[operator]
    tensors = random_arguments(operator, device, dtype, **case)
    geometry = case['side'], case['groups'], case['scale']
    shape = oracle(*(tensor.cpu() for tensor in tensors), *geometry).shape
    grad = torch.randn(shape)
    expected = run(oracle, [tensor.cpu() for tensor in tensors], grad, *geometry)
    actual = run(function, tensors, grad.to(device), *geometry, backend='triton')
    for value, reference in zip(actual, expected, strict=True):
        # Arguments are rounded to dtype and so are the gradients of the loops: twice the unit.
        bound = 2 * ROUNDING[dtype] * (1 + reference.abs().max()) + 1e-5
        if dtype != torch.float32:  # the upstream gradient is rounded before the products
            bound += (
                ROUNDING[dtype] * 4 * grad.abs().max() * max(t.abs().max() for t in tensors).cpu()
            )
        assert (value.double().cpu() - reference.double()).abs().max() <= bound


def test_operators_keep_their_contract(device):
    x, kernels = (
        tensor.requires_grad_()
        for tensor in random_arguments(
            'reassemble', device, torch.float32,
            batch=1, share=2, groups=1, height=2, width=3, side=3, scale=2,
        )
    )  # fmt: skip
    torch.library.opcheck(binding.reassemble_triton, (x, kernels, 3, 1, 2))
    fine = torch.randn(1, 2, 4, 6, device=device, requires_grad=True)
    torch.library.opcheck(binding.similarity_triton, (fine, x, 3, 1, 2))
    torch.library.opcheck(binding.transposed_triton, (kernels, fine, 3, 1, 2))


def test_other_layouts_and_an_empty_batch(device):
    geometry = dict(batch=2, share=3, groups=2, height=3, width=2, side=3, scale=2)
    x, kernels = random_arguments('reassemble', device, torch.float32, **geometry)
    options = dict(kernel_size=3, groups=2, backend='triton')
    expected = reassemble(x, kernels, **options)
    spread_out = (t.to(memory_format=torch.channels_last) for t in (x, kernels))
    torch.testing.assert_close(reassemble(*spread_out, **options), expected)
    cut = reassemble(x, kernels, size=(5, 4), **options)
    torch.testing.assert_close(cut, expected[..., :5, :])
    assert reassemble(x[:0], kernels[:0], **options).shape == (0, *expected.shape[1:])

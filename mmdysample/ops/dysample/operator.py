"""The compiled kernels as operators of PyTorch: autograd, torch.compile, graph capture.

One pair of operators serves native and Triton kernels; ``backend`` says which. The kernels'
modules are imported when they first run.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import torch
from torch import Tensor
from torch.autograd import Function

from mmdysample.ops.backend import runs_eagerly
from mmdysample.ops.dysample.eager import sample_eager
from mmdysample.ops.dysample.spec import SamplingSpec
from mmdysample.ops.layout import memory_format

_MODULES = {'native': 'native', 'triton': 'launch'}


def sample_compiled(
    x: Tensor,
    offset: Tensor,
    scope: Tensor | None,
    spec: SamplingSpec,
    size: tuple[int, int],
    backend: str,
) -> Tensor:
    """Sample by the kernels of a backend; arguments as in :func:`mmdysample.ops.dysample`."""
    run = _Sampling.apply if runs_eagerly(x, offset, scope) else _operator
    return run(x, offset, scope, *spec, *size, backend)


def _sample(
    x: Tensor,
    offset: Tensor,
    scope: Tensor | None,
    scale_factor: int,
    groups: int,
    style: str,
    scope_factor: float,
    init: str,
    height: int,
    width: int,
    backend: str,
) -> Tensor:
    if x.numel() == 0:
        return _empty_result(x, height, width)
    spec = SamplingSpec(scale_factor, groups, style, scope_factor, init)
    return _kernels(backend).sample(*_dense(x, offset, scope), spec, (height, width))


_operator = torch.library.custom_op('mmdysample::dysample', _sample, mutates_args=())


@_operator.register_fake
def _(x, offset, scope, scale_factor, groups, style, scope_factor, init, height, width, backend):
    return _empty_result(x, height, width)


def _differentiate(
    grad: Tensor,
    x: Tensor,
    offset: Tensor,
    scope: Tensor | None,
    scale_factor: int,
    groups: int,
    style: str,
    scope_factor: float,
    init: str,
    backend: str,
    need_x: bool,
    need_offset: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, offset and scope; those not needed or absent come back empty."""
    x, offset, scope = _dense(x, offset, scope)
    grad = grad.contiguous(memory_format=memory_format(x))
    results = _empty_gradients(x, offset, scope, need_x, need_offset)
    for result in results:
        result.zero_()  # kernels add, and of offsets a cut result leaves some unread
    if grad.numel() and (need_x or need_offset):
        spec = SamplingSpec(scale_factor, groups, style, scope_factor, init)
        needed = (need_x, need_offset, need_offset and scope is not None)
        outputs = (result if need else None for result, need in zip(results, needed, strict=True))
        _kernels(backend).differentiate(grad, x, offset, scope, spec, *outputs)
    return results


_backward_operator = torch.library.custom_op(
    'mmdysample::dysample_backward', _differentiate, mutates_args=()
)


@_backward_operator.register_fake
def _(grad, x, offset, scope, *options):
    return _empty_gradients(*_dense(x, offset, scope), *options[-2:])


def _setup_context(ctx, inputs, output) -> None:
    x, offset, scope, *ctx.options = inputs
    ctx.save_for_backward(x, offset, scope)


def _backward(ctx, grad):
    inputs = ctx.saved_tensors
    needed = ctx.needs_input_grad[:3]
    *options, height, width, backend = ctx.options
    if torch.is_grad_enabled():  # create_graph: PyTorch's operators can be differentiated again
        spec = SamplingSpec(*options)
        out = sample_eager(*inputs, spec, (height, width))
        wanted = [tensor for tensor, need in zip(inputs, needed, strict=True) if need]
        found = iter(torch.autograd.grad(out, wanted, grad, create_graph=True))
        gradients = [next(found) if need else None for need in needed]
    else:
        need_offset = needed[1] or needed[2]
        run = _differentiate if runs_eagerly(grad, *inputs) else _backward_operator
        results = run(grad, *inputs, *options, backend, needed[0], need_offset)
        gradients = [result if need else None for result, need in zip(results, needed, strict=True)]
    return (*gradients, *[None] * 8)


_operator.register_autograd(_backward, setup_context=_setup_context)


class _Sampling(Function):
    """The same without the operator."""

    @staticmethod
    def forward(ctx, *inputs):
        output = _sample(*inputs)
        _setup_context(ctx, inputs, output)
        return output

    backward = staticmethod(_backward)


def _kernels(backend: str) -> ModuleType:
    return importlib.import_module(f'mmdysample.ops.dysample.{_MODULES[backend]}')


def _dense(x: Tensor, offset: Tensor, scope: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The inputs without holes, scope laid out as offset is; no copy in the usual case."""
    x = x.contiguous(memory_format=memory_format(x))
    offset = offset.contiguous(memory_format=memory_format(offset))
    if scope is not None:
        scope = scope.contiguous(memory_format=memory_format(offset))
    return x, offset, scope


def _empty_result(x: Tensor, height: int, width: int) -> Tensor:
    shape = (x.shape[0], x.shape[1], height, width)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format(x))


def _empty_gradients(
    x: Tensor, offset: Tensor, scope: Tensor | None, need_x: bool, need_offset: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.empty_like(x) if need_x else x.new_empty(0),
        torch.empty_like(offset) if need_offset else offset.new_empty(0),
        torch.empty_like(scope) if need_offset and scope is not None else offset.new_empty(0),
    )

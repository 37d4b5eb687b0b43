"""DySample's sampling on the CPU: the native kernels behind tensors."""

from __future__ import annotations

from math import ceil

import numpy as np
import torch
from torch import Tensor

from mmdysample.ops.dysample.native_backward import backward_last, backward_planes
from mmdysample.ops.dysample.native_forward import forward_last, forward_planes
from mmdysample.ops.dysample.spec import SamplingSpec
from mmdysample.ops.layout import is_channels_last, memory_format
from mmdysample.ops.native import PARTS_PER_THREAD, empty, run, threads_for

BAND = 8
"""Output rows of a block, NCHW: more share a buffer of turned rows, fewer keep it in the cache."""


def sample(
    x: Tensor, offset: Tensor, scope: Tensor | None, spec: SamplingSpec, size: tuple[int, int]
) -> Tensor:
    """Sample ``x``; all tensors dense, and the result laid out as ``x`` is."""
    dtype = x.dtype
    x, offset, scope = _alike(x, offset, scope)
    out = empty((*x.shape[:2], *size), x.dtype, memory_format(x))
    tensors = (_flat(x), *_projections(offset, scope), _flat(out))
    options = _options(x, offset, scope, spec, size)
    threads = threads_for(out.numel())
    if is_channels_last(x):
        run(forward_last, len(x) * x.shape[2], *tensors, options, threads=threads)
    else:
        blocks = len(x) * spec.groups * -(-size[0] // BAND)
        run(forward_planes, blocks, *tensors, options, BAND, threads=threads)
    return out.to(dtype)


def differentiate(
    grad: Tensor,
    x: Tensor,
    offset: Tensor,
    scope: Tensor | None,
    spec: SamplingSpec,
    *results: Tensor | None,
) -> None:
    """Add the gradients of x, offset and scope to the tensors given for them; all dense.

    ``grad`` and the first are laid out as ``x`` is, the others as ``offset``.
    """
    grad, x, offset, scope, *computed = _alike(grad, x, offset, scope, *results)
    grad_x, grad_offset, grad_scope = computed
    read = (_flat(grad), _flat(x), *_projections(offset, scope))
    to_x = None if grad_x is None else _flat(grad_x)
    to_offset = (None, None) if grad_offset is None else _projections(grad_offset, grad_scope)
    options = _options(x, offset, scope, spec, grad.shape[2:])
    last = is_channels_last(x)
    kernel, ends = (backward_last, ()) if last else (backward_planes, (BAND,))
    images, groups, height, threads = len(x), spec.groups, x.shape[2], threads_for(grad.numel())
    bands = _bands(offset, spec, height) if last and to_x is not None else 1
    step = 1 if bands == 1 else 2
    # One pass over bands and groups for both; where that leaves threads idle, one over rows and
    # one over channels. Each number is summed by one thread at a time, in the same order.
    apart = images * max(bands // 2, 1)
    group_parts = min(groups, -(-threads // apart)) if last else groups
    channel_parts = 1
    if apart * groups < threads:
        share = -(-threads // (apart * groups))
        channel_parts = min(-(-x.shape[1] // groups // 8), share * PARTS_PER_THREAD)
    passes = []
    if to_x is not None and grad_offset is not None and channel_parts == 1:
        passes.append((to_x, to_offset, (bands, group_parts, 1), step))
    else:
        if grad_offset is not None:
            rows = height if last else -(-grad.shape[2] // BAND)
            parts = min(rows, threads * PARTS_PER_THREAD)
            passes.append((None, to_offset, (parts, 1 if last else groups, 1), 1))
        if to_x is not None:
            passes.append((to_x, (None, None), (bands, group_parts, channel_parts), step))
    for to_x, to_offset, split, step in passes:
        for first in range(step):
            blocks = images * -(-(split[0] - first) // step) * split[1] * split[2]
            every = (*split, first, step)
            arrays = (*read, to_x, *to_offset)
            run(kernel, blocks, *arrays, options, every, *ends, threads=threads)
    for result, ours in zip(results, computed, strict=True):
        if ours is not result:  # another dtype was needed
            result.copy_(ours)


def _bands(offset: Tensor, spec: SamplingSpec, height: int) -> int:
    """Into how many bands the rows of ``x`` are cut for its gradient, channels last.

    Two bands with one between them reach no common input row, so every other band can be worked
    on at once. The offsets alone say how many there are, so the order of a sum does not depend on
    threads. It is one where positions lie far apart or an offset is NaN.
    """
    low, high = torch.aminmax(offset.chunk(2, dim=1)[1])
    reach = abs(spec.scope_factor) * max(-float(low), float(high))
    # Half a row to the initial position, one to the neighbour below, one at the lower border.
    least = max(2 * reach + 4, BAND)
    return height // ceil(least) if least <= height / 2 else 1


def _alike(*tensors: Tensor | None) -> list[Tensor | None]:
    """The tensors in the widest dtype among them, which in most calls they have."""
    double = any(t is not None and t.dtype == torch.float64 for t in tensors)
    dtype = torch.float64 if double else torch.float32
    return [None if t is None else t.to(dtype) for t in tensors]


def _flat(tensor: Tensor) -> np.ndarray:
    """The memory of a dense tensor as a flat array."""
    if is_channels_last(tensor):
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.detach().view(-1).numpy()


def _projections(offset: Tensor, scope: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    flat = _flat(offset)
    return flat, flat if scope is None else _flat(scope)


def _options(
    x: Tensor, offset: Tensor, scope: Tensor | None, spec: SamplingSpec, size: tuple[int, int]
) -> tuple:
    shape = (*x.shape[1:], spec.groups, *size, spec.scale_factor)
    factor = torch.empty(0, dtype=x.dtype).numpy().dtype.type(spec.scope_factor)
    flags = (spec.style == 'pl', scope is not None, spec.init == 'nearest')
    return shape, offset.stride(), factor, flags

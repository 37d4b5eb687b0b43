"""Filters that every sample makes for itself, applied to each of its channels: A2U's."""

from __future__ import annotations

from importlib import import_module

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from mmdysample.ops.backend import can_run_native, check_backend, runs_eagerly

SIDE = 6
"""Side of a filter."""


def filter_each(guide: Tensor, filters: Tensor, backend: str = 'auto') -> Tensor:
    """Convolve all channels of sample ``n`` with its own filters, stride 2 and padding 2.

    Args:
        guide (Tensor): ``(N, C, 2H, 2W)``.
        filters (Tensor): ``(N, F, 6, 6)`` in the dtype of ``guide``.
        backend (str): Native code runs for ``'auto'`` and ``'native'``, where it can and no graph
            is made. Everywhere else PyTorch's convolution. Defaults to ``'auto'``.

    Returns:
        Tensor: ``(F, N, C, H, W)``.
    """
    native = check_backend(backend) in ('auto', 'native') and runs_eagerly(guide, filters)
    if native and guide.dtype == filters.dtype and can_run_native(guide, filters):
        return _Filtered.apply(guide, filters)
    return _convolve(guide, filters)


def _convolve(guide: Tensor, filters: Tensor) -> Tensor:
    """Depth-wise over all samples at once: several times faster than a group per sample."""
    n, channels = guide.shape[:2]
    planes = guide.flatten(0, 1)[None]
    results = []
    for one in filters.unbind(1):
        weight = one[:, None].expand(n, channels, SIDE, SIDE).flatten(0, 1)[:, None]
        out = F.conv2d(planes, weight, stride=2, padding=2, groups=n * channels)
        results.append(out.unflatten(1, (n, channels))[0])
    return torch.stack(results)


class _Filtered(Function):
    """The same by native kernels: the gradient of PyTorch's convolution takes six times as long."""

    @staticmethod
    def forward(ctx, guide: Tensor, filters: Tensor) -> Tensor:
        ctx.save_for_backward(guide, filters)
        n, channels, height, width = guide.shape
        out = guide.new_empty(filters.shape[1], n, channels, height // 2, width // 2)
        _run('filter_planes', guide, filters, out)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        guide, filters = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph
            out = _convolve(guide, filters)
            return torch.autograd.grad(out, (guide, filters), grad, create_graph=True)
        n, channels = guide.shape[:2]
        grad_guide = torch.empty_like(guide, memory_format=torch.contiguous_format)
        of_planes = filters.new_empty(n, channels, *filters.shape[1:])
        _run('filter_gradients', guide, filters, grad, grad_guide, of_planes)
        return grad_guide, of_planes.sum(1)


def _run(name: str, guide: Tensor, *tensors: Tensor) -> None:
    """A block of work is one channel of one sample."""
    kernels = import_module('mmdysample.ops.filtering_kernels')
    arrays = [tensor.detach().contiguous().view(-1).numpy() for tensor in (guide, *tensors)]
    n, channels, height, width = guide.shape
    sizes = (channels, n * channels, tensors[0].shape[1], height // 2, width // 2)
    import_module('mmdysample.ops.native').run(getattr(kernels, name), n * channels, *arrays, sizes)

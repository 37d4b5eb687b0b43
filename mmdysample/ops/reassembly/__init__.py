"""Content-aware reassembly and windowed similarity: check, choose an implementation, run.

These are the operators of CARAFE (arXiv 1905.02188), A2U (arXiv 2011.14288), FADE
(arXiv 2207.10392) and SAPA (arXiv 2209.12866). All of them look at the ``k x k`` window of
low-resolution pixels around the *parent* ``(Y // s, X // s)`` of an output pixel ``(Y, X)``; tap
``t = ky * k + kx`` counts row first, and taps outside the map are zeros.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mmdysample.ops.backend import HAS_TRITON, check_backend, choose_backend, only_plain_operators
from mmdysample.ops.checks import (
    check_feature,
    check_multiple,
    check_positive,
    check_scale_factor,
    resolve_size,
)
from mmdysample.ops.reassembly.eager import reassemble_eager, window_similarity_eager
from mmdysample.ops.reassembly.mmcv_carafe import can_run_mmcv, reassemble_mmcv
from mmdysample.ops.reassembly.naive import reassemble_naive, window_similarity_naive
from mmdysample.ops.reassembly.native import reassemble_native, similarity_native

if HAS_TRITON:
    from mmdysample.ops.reassembly.operator import reassemble_triton, similarity_triton


def reassemble(
    x: Tensor,
    kernels: Tensor,
    *,
    kernel_size: int,
    groups: int = 1,
    scale_factor: int = 2,
    size: tuple[int, int] | None = None,
    backend: str = 'auto',
) -> Tensor:
    """Sum the window of every output pixel, weighted by the pixel's own kernel.

    Kernels are used as they are: nothing is normalised, and weight that falls outside the map is
    lost. Neither the windows nor anything else of output size is kept for the backward pass.

    Args:
        x (Tensor): Feature ``(N, C, H, W)``, floating point, any strides; group ``g`` owns the
            channels ``g * C/G`` to ``(g + 1) * C/G - 1``.
        kernels (Tensor): ``(N, G * k * k, sH, sW)``, channel ``g * k * k + t`` for tap ``t``.
        kernel_size (int): Side ``k`` of the window, odd.
        groups (int): Channel groups ``G`` with kernels of their own. Defaults to 1.
        scale_factor (int): The factor ``s``. Defaults to 2.
        size (tuple[int, int], optional): Output size ``(h', w')``, ``s(H-1) < h' <= sH``: the
            ``sH x sW`` result cut, not stretched. Defaults to ``(sH, sW)``.
        backend (str): ``'torch'``, ``'native'``, ``'triton'`` or ``'auto'``: what the environment
            variable ``MMDYSAMPLE_BACKEND`` says; else on the CPU the native kernels where Numba is
            installed, and on GPUs MMCV's operator where it gives our result, then our kernel.
            Graphs that are exported are made of PyTorch's operators alone. Defaults to ``'auto'``.

    Returns:
        Tensor: ``(N, C, h', w')`` in the dtype of ``x``, accumulated in float32 or wider.

    Raises:
        TypeError: If a tensor is not floating point.
        ValueError: If a shape or option does not fit.
        RuntimeError: If the ``backend`` asked for cannot run the arguments.
    """
    check_feature('x', x)
    _check_windows(x, 'x', kernel_size, groups, scale_factor)
    _check_fine('kernels', kernels, x, groups * kernel_size**2, scale_factor)
    size = resolve_size(x, scale_factor, size)
    run = _choose_reassembly(backend, x, kernels, kernel_size, groups)
    out = run(x, kernels, kernel_size, groups, scale_factor)
    if not torch.jit.is_tracing() and tuple(out.shape[2:]) == size:
        return out  # no view: writing to one makes the backward pass copy its gradient
    return out[..., : size[0], : size[1]]


def window_similarity(
    query: Tensor,
    key: Tensor,
    *,
    kernel_size: int,
    groups: int = 1,
    scale_factor: int = 2,
    backend: str = 'auto',
) -> Tensor:
    """Compare every fine pixel with the window of coarse pixels around its parent.

    Args:
        query (Tensor): ``(N, C, sH, sW)``, floating point, any strides.
        key (Tensor): ``(N, C, H, W)``.
        kernel_size (int): Side ``k`` of the window, odd.
        groups (int): Channel groups ``G`` compared apart. Defaults to 1.
        scale_factor (int): The factor ``s``. Defaults to 2.
        backend (str): ``'torch'``, ``'native'``, ``'triton'`` or ``'auto'``, see
            :func:`reassemble`. Defaults to ``'auto'``.

    Returns:
        Tensor: Inner products ``(N, G * k * k, sH, sW)``, 0 at taps outside the map; in float32
        or wider, since a softmax follows.

    Raises:
        TypeError: If a tensor is not floating point.
        ValueError: If a shape or option does not fit.
    """
    check_feature('key', key)
    _check_windows(key, 'key', kernel_size, groups, scale_factor)
    _check_fine('query', query, key, key.shape[1], scale_factor)
    run = _choose_similarity(backend, query, key)
    return run(query, key, kernel_size, groups, scale_factor)


def softmax_kernels(logits: Tensor, groups: int = 1) -> Tensor:
    """Softmax over the taps of each group, ``(N, G * k * k, H, W)``, in float32 or wider."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return logits.unflatten(1, (groups, -1)).softmax(2, dtype=dtype).flatten(1, 2)


def _choose_reassembly(
    backend: str, x: Tensor, kernels: Tensor, kernel_size: int, groups: int
) -> Callable[..., Tensor]:
    fits_mmcv = can_run_mmcv(x, kernels, kernel_size, groups) and not only_plain_operators()
    if fits_mmcv and check_backend(backend) == 'auto':
        return reassemble_mmcv
    chosen = choose_backend(backend, x, kernels)
    if chosen == 'native':
        return reassemble_native
    if chosen == 'triton':
        return reassemble_triton
    return reassemble_naive if only_plain_operators() else reassemble_eager


def _choose_similarity(backend: str, query: Tensor, key: Tensor) -> Callable[..., Tensor]:
    chosen = choose_backend(backend, query, key)
    if chosen == 'native':
        return similarity_native
    if chosen == 'triton':
        return similarity_triton
    return window_similarity_naive if only_plain_operators() else window_similarity_eager


def _check_windows(x: Tensor, name: str, kernel_size: int, groups: int, scale_factor: int) -> None:
    check_scale_factor(scale_factor)
    check_positive('kernel_size', kernel_size, odd=True)
    check_positive('groups', groups)
    if not torch.jit.is_tracing():
        check_multiple(f'channels of {name}', x.shape[1], of=groups)


def _check_fine(name: str, fine: Tensor, coarse: Tensor, channels: int, scale_factor: int) -> None:
    check_feature(name, fine)
    n, _, height, width = coarse.shape
    expected = (n, channels, scale_factor * height, scale_factor * width)
    if not torch.jit.is_tracing() and tuple(fine.shape) != expected:
        raise ValueError(f'{name} must be of shape {expected}, got {tuple(fine.shape)}')

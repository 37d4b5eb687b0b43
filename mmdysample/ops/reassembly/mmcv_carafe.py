"""MMCV's compiled CARAFE operator behind our signature."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

MAX_KERNEL_CHANNELS = 384
"""Kernel channels ``G*k*k`` that its fast CUDA kernel has shared memory for."""


def can_run_mmcv(x: Tensor, kernels: Tensor, kernel_size: int, groups: int) -> bool:
    """Whether MMCV's operator gives our result for these arguments.

    It checks none of this itself: it reads any memory as contiguous, indexes with 32 bits, and
    accumulates half precision in half precision.
    """
    dense = all(tensor.is_contiguous() and 0 < tensor.numel() < 2**31 for tensor in (x, kernels))
    return (
        x.device.type == kernels.device.type == 'cuda'
        and x.dtype == kernels.dtype
        and x.dtype in (torch.float32, torch.float64)
        and dense
        and groups * kernel_size**2 <= MAX_KERNEL_CHANNELS
        and not torch.compiler.is_compiling()  # Dynamo cannot look into a compiled extension
        and mmcv_has_cuda()
    )


@lru_cache(maxsize=1)
def mmcv_has_cuda() -> bool:
    """Whether MMCV is installed with its CUDA operators."""
    try:
        from mmcv.ops import get_compiling_cuda_version
    except ImportError:  # absent, without compiled operators, or built for another PyTorch
        return False
    return get_compiling_cuda_version() != 'not available'


def reassemble_mmcv(
    x: Tensor, kernels: Tensor, kernel_size: int, groups: int, scale_factor: int
) -> Tensor:
    """``(N, C, sH, sW)``: sum of each window of ``x``, weighted by ``kernels``."""
    from mmcv.ops import carafe

    return carafe(x, kernels, kernel_size, groups, scale_factor)

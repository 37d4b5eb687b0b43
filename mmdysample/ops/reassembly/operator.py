"""The Triton kernels as operators of PyTorch: autograd of any order, compile, export."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mmdysample.ops.backend import on_device
from mmdysample.ops.reassembly.gradients import connect
from mmdysample.ops.reassembly.kernel import reassemble_kernel, similarity_kernel, transposed_kernel

PIXELS, BLOCK = 128, 8
"""Pixels and channels of a program: whole memory lines, and 8 values per thread."""


@torch.library.custom_op('mmdysample::reassemble', mutates_args=())
def reassemble_triton(
    x: Tensor, kernels: Tensor, kernel_size: int, groups: int, scale_factor: int
) -> Tensor:
    """``(N, C, sH, sW)``: sum of each window of ``x``, weighted by ``kernels``."""
    out = _empty_reassembled(x, kernels, kernel_size, groups, scale_factor)
    share = x.shape[1] // groups
    blocks = x.shape[0] * groups * triton.cdiv(share, BLOCK)
    _launch(reassemble_kernel, blocks, x, kernels, out, x, share, kernel_size, scale_factor)
    return out


@torch.library.custom_op('mmdysample::window_similarity', mutates_args=())
def similarity_triton(
    query: Tensor, key: Tensor, kernel_size: int, groups: int, scale_factor: int
) -> Tensor:
    """``(N, G*k*k, sH, sW)`` in float32: inner products of ``query`` with windows of ``key``."""
    out = _empty_similarity(query, key, kernel_size, groups, scale_factor)
    share = key.shape[1] // groups
    taps = triton.next_power_of_2(kernel_size**2)
    tile = (max(32, min(PIXELS, 2048 // taps)), taps)  # its sums stay in registers
    blocks = out.shape[0] * groups
    _launch(similarity_kernel, blocks, query, key, out, key, share, kernel_size, scale_factor, tile)
    return out


@torch.library.custom_op('mmdysample::reassemble_transposed', mutates_args=())
def transposed_triton(
    kernels: Tensor, fine: Tensor, kernel_size: int, groups: int, scale_factor: int
) -> Tensor:
    """``(N, C, H, W)`` in float32: the transpose of reassembly, applied to ``fine``."""
    out = _empty_transposed(kernels, fine, kernel_size, groups, scale_factor)
    share = out.shape[1] // groups
    blocks = out.shape[0] * groups * triton.cdiv(share, BLOCK)
    _launch(transposed_kernel, blocks, kernels, fine, out, out, share, kernel_size, scale_factor)
    return out


@reassemble_triton.register_fake
def _empty_reassembled(x, kernels, kernel_size, groups, scale_factor):
    return x.new_empty(*x.shape[:2], *kernels.shape[2:])


@similarity_triton.register_fake
def _empty_similarity(query, key, kernel_size, groups, scale_factor):
    shape = (query.shape[0], groups * kernel_size**2, *query.shape[2:])
    return query.new_empty(shape, dtype=torch.float32)


@transposed_triton.register_fake
def _empty_transposed(kernels, fine, kernel_size, groups, scale_factor):
    n, channels, height, width = fine.shape
    shape = (n, channels, height // scale_factor, width // scale_factor)
    return fine.new_empty(shape, dtype=torch.float32)


def _launch(
    kernel,
    blocks: int,
    first: Tensor,
    second: Tensor,
    out: Tensor,
    coarse: Tensor,
    share: int,
    kernel_size: int,
    scale_factor: int,
    tile: tuple[int, int] = (PIXELS, BLOCK),
) -> None:
    """Run as many programs as ``blocks`` times the tiles of a plane of the result."""
    if out.numel() == 0:
        return
    pixels, block = tile
    programs = blocks * triton.cdiv(out.shape[2] * out.shape[3], pixels)
    large = max(first.numel(), second.numel(), out.numel()) >= 2**31
    with on_device(out.device):
        kernel[(programs,)](
            first.contiguous(),
            second.contiguous(),
            out,
            *coarse.shape[2:],
            share,
            SIDE=kernel_size,
            SCALE=scale_factor,
            PIXELS=pixels,
            BLOCK=block,
            INDEX=tl.int64 if large else tl.int32,
        )


connect(reassemble_triton, similarity_triton, transposed_triton)

"""How the three products differentiate: the gradient of each is the two others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.library import CustomOpDef


def connect(reassemble: CustomOpDef, similarity: CustomOpDef, spread: CustomOpDef) -> None:
    """Give three custom operators their gradients, of any order.

    Args:
        reassemble (CustomOpDef): ``(x, kernels, *geometry)`` to the fine map.
        similarity (CustomOpDef): ``(query, key, *geometry)`` to inner products with windows.
        spread (CustomOpDef): ``(kernels, fine, *geometry)`` to the coarse map, the transpose of
            ``reassemble``. The geometry of all three is ``kernel_size, groups, scale_factor``.
    """

    def of_reassemble(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, kernels = ctx.saved_tensors
        return _gradients(
            ctx,
            lambda: spread(kernels, grad, *ctx.geometry),
            lambda: similarity(grad, x, *ctx.geometry),
        )

    def of_similarity(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key = ctx.saved_tensors
        return _gradients(
            ctx,
            lambda: reassemble(key, grad, *ctx.geometry),
            lambda: spread(grad, query, *ctx.geometry),
        )

    def of_spread(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        kernels, fine = ctx.saved_tensors
        return _gradients(
            ctx,
            lambda: similarity(fine, grad, *ctx.geometry),
            lambda: reassemble(grad, kernels, *ctx.geometry),
        )

    reassemble.register_autograd(of_reassemble, setup_context=_save)
    similarity.register_autograd(of_similarity, setup_context=_save)
    spread.register_autograd(of_spread, setup_context=_save)


def _save(ctx: Any, inputs: tuple, output: Tensor) -> None:
    first, second, *ctx.geometry = inputs
    ctx.save_for_backward(first, second)


def _gradients(
    ctx: Any, of_first: Callable[[], Tensor], of_second: Callable[[], Tensor]
) -> tuple[Tensor | None, ...]:
    """Gradients in the dtypes of the inputs, computed where they are needed."""
    needed = zip((of_first, of_second), ctx.saved_tensors, ctx.needs_input_grad, strict=False)
    grads = [compute().to(tensor.dtype) if need else None for compute, tensor, need in needed]
    return (*grads, None, None, None)

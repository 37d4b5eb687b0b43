"""How the three products differentiate: the gradient of each is the two others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.autograd import Function
from torch.library import CustomOpDef

Product = Callable[..., Tensor]


def connect(*products: Product | CustomOpDef) -> list[Product]:
    """Give the three products their gradients, of any order.

    Args:
        *products (Callable or CustomOpDef): Functions or custom operators.
            ``reassemble(x, kernels, *geometry)`` gives the fine map;
            ``similarity(query, key, *geometry)`` inner products with windows;
            ``transposed(kernels, fine, *geometry)`` the coarse map, its transpose.
            The geometry of all three is ``kernel_size, groups, scale_factor``.

    Returns:
        list[Callable]: The three in their differentiable form; an operator is that itself.
    """

    def of_reassemble(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, kernels = saved = ctx.saved_tensors
        return _gradients(
            ctx,
            saved,
            lambda: transposed(kernels, grad, *ctx.geometry),
            lambda: similarity(grad, x, *ctx.geometry),
        )

    def of_similarity(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key = saved = ctx.saved_tensors
        return _gradients(
            ctx,
            saved,
            lambda: reassemble(key, grad, *ctx.geometry),
            lambda: transposed(grad, query, *ctx.geometry),
        )

    def of_transposed(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        kernels, fine = saved = ctx.saved_tensors
        return _gradients(
            ctx,
            saved,
            lambda: similarity(fine, grad, *ctx.geometry),
            lambda: reassemble(grad, kernels, *ctx.geometry),
        )

    backwards = (of_reassemble, of_similarity, of_transposed)
    reassemble, similarity, transposed = connected = [
        _differentiable(product, backward)
        for product, backward in zip(products, backwards, strict=True)
    ]
    return connected


def _differentiable(product: Product | CustomOpDef, backward: Callable) -> Product:
    if isinstance(product, CustomOpDef):
        product.register_autograd(backward, setup_context=_save)
        return product

    def forward(ctx: Any, *inputs: Any) -> Tensor:
        output = product(*inputs)
        _save(ctx, inputs, output)
        return output

    members = dict(forward=staticmethod(forward), backward=staticmethod(backward))
    return type(product.__name__, (Function,), members).apply


def _save(ctx: Any, inputs: tuple, output: Tensor) -> None:
    first, second, *ctx.geometry = inputs
    ctx.save_for_backward(first, second)


def _gradients(
    ctx: Any,
    saved: Sequence[Tensor],
    of_first: Callable[[], Tensor],
    of_second: Callable[[], Tensor],
) -> tuple[Tensor | None, ...]:
    """Gradients in the dtypes of the inputs, computed where they are needed.

    ``saved`` is what ``ctx`` has; activation checkpointing lets it be asked for once only.
    """
    needed = zip((of_first, of_second), saved, ctx.needs_input_grad, strict=False)
    grads = [compute().to(tensor.dtype) if need else None for compute, tensor, need in needed]
    return (*grads, None, None, None)

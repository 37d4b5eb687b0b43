"""Layers as sampling needs them: in float32 or wider, fast on the CPU, in graphs of free sizes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdysample.ops.backend import only_plain_operators, runs_eagerly


def at_least_float32(x: Tensor) -> Tensor:
    """Cast to float32, where that is wider than the dtype of ``x``."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def convolve(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a convolution in the dtype of ``x``: ``(N, C, H, W)`` to ``(N, C', H', W')``."""
    options = (layer.stride, layer.padding, layer.dilation, layer.groups)
    return F.conv2d(x, layer.weight.to(x.dtype), _cast(layer.bias, x), *options)


class PixelConv2d(nn.Conv2d):
    """A 1x1 convolution by :func:`convolve_pixels`.

    Args:
        in_channels (int): Channels ``C`` of the input.
        out_channels (int): Channels ``C'`` of the output.
        bias (bool): Add a bias. Defaults to True.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``(N, C, H, W)`` to ``(N, C', H, W)``."""
        return convolve_pixels(x, self.weight, self.bias)


def convolve_pixels(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a 1x1 convolution: ``(N, C, H, W)`` to ``(N, C', H, W)``.

    In NCHW on the CPU it is a product of matrices, which takes PyTorch a third to all of the time
    of its convolution. Graphs get the convolution, and so does autocast.
    """
    if may_multiply(x, weight, bias):
        return multiply_pixels(x, weight, bias)
    return F.conv2d(x, weight, bias)


def may_multiply(x: Tensor, *parameters: Tensor | None) -> bool:
    """Whether 1x1 convolutions of ``x`` by these weights and biases are products of matrices."""
    return (
        x.device.type == 'cpu'
        and x.dtype in (torch.float32, torch.float64)
        and runs_eagerly(x, *parameters)
        and not only_plain_operators()
        and not torch.is_autocast_enabled('cpu')
        and x.is_contiguous()
    )


def multiply_pixels(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a 1x1 convolution as a product of matrices; arguments as :func:`convolve_pixels`."""
    return _multiply(x.flatten(2), weight, bias).unflatten(2, x.shape[2:])


def multiply_shuffled(
    x: Tensor, scale_factor: int, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Apply a 1x1 convolution to the pixel-shuffled ``x``, and shuffle its results instead.

    They are fewer: ``x`` is read where it is.

    Args:
        x (Tensor): ``(N, C, H, W)``, contiguous.
        scale_factor (int): The factor ``s`` of the pixel shuffle.
        weight (Tensor): ``(C', C / s**2, 1, 1)``.
        bias (Tensor, optional): ``(C',)``. Defaults to None.

    Returns:
        Tensor: ``(N, C', sH, sW)``.
    """
    n, channels, height, width = x.shape
    subs = scale_factor**2
    # Of each s * s channels the first, then the second of each, and so on: no copy of one image.
    parts = x.view(n, channels // subs, subs, -1).transpose(1, 2).flatten(0, 1)
    product = _multiply(parts, weight, bias)
    product = product.view(n, scale_factor, scale_factor, -1, height, width)
    fine = (n, -1, scale_factor * height, scale_factor * width)
    return product.permute(0, 3, 4, 1, 5, 2).reshape(fine)


def _multiply(pixels: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply ``(N, C, pixels)`` by the weights of a 1x1 convolution."""
    matrix = weight.flatten(1).expand(len(pixels), -1, -1)
    if bias is None:
        return torch.bmm(matrix, pixels)
    return torch.baddbmm(bias[:, None], matrix, pixels)


def normalise_groups(layer: nn.GroupNorm, x: Tensor) -> Tensor:
    """Apply group norm in the dtype of ``x``, ``(N, C, H, W)``."""
    weight, bias = _cast(layer.weight, x), _cast(layer.bias, x)
    return F.group_norm(x, layer.num_groups, weight, bias, layer.eps)


def normalise_channels(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    """Apply layer norm over the channels of each pixel of ``x``, ``(N, C, H, W)``, in its dtype."""
    weight, bias = _cast(layer.weight, x), _cast(layer.bias, x)
    rows = x.permute(0, 2, 3, 1)
    return F.layer_norm(rows, layer.normalized_shape, weight, bias, layer.eps).permute(0, 3, 1, 2)


def average_cells(x: Tensor, cells: tuple[int, int]) -> Tensor:
    """Average ``(N, C, H, W)`` adaptively to ``(N, C, *cells)``, by two products of matrices.

    Exporters take the size of PyTorch's adaptive pooling for a constant.
    """
    (height, width), (rows, columns) = x.shape[2:], cells
    return _averages(height, rows, x) @ x @ _averages(width, columns, x).transpose(0, 1)


def _averages(length: int, cells: int, like: Tensor) -> Tensor:
    """Weigh pixels, ``(cells, length)``: cell i averages those in [i, i + 1) * length / cells."""
    pixel = torch.arange(length, device=like.device)
    cell = torch.arange(cells, device=like.device)[:, None]
    inside = ((pixel + 1) * cells > cell * length) & (pixel * cells < (cell + 1) * length)
    weights = inside.to(like.dtype)
    return weights / weights.sum(1, keepdim=True)


def _cast(parameter: Tensor | None, like: Tensor) -> Tensor | None:
    return None if parameter is None else parameter.to(like.dtype)

"""Layers computed in float32 or wider, whatever the dtype of their weights: positions need it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def at_least_float32(x: Tensor) -> Tensor:
    """Cast to float32, where that is wider than the dtype of ``x``."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def convolve(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a convolution in the dtype of ``x``: ``(N, C, H, W)`` to ``(N, C', H', W')``."""
    options = (layer.stride, layer.padding, layer.dilation, layer.groups)
    return F.conv2d(x, layer.weight.to(x.dtype), _cast(layer.bias, x), *options)


def normalise_groups(layer: nn.GroupNorm, x: Tensor) -> Tensor:
    """Apply group norm in the dtype of ``x``, ``(N, C, H, W)``."""
    weight, bias = _cast(layer.weight, x), _cast(layer.bias, x)
    return F.group_norm(x, layer.num_groups, weight, bias, layer.eps)


def normalise_channels(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    """Apply layer norm over the channels of each pixel of ``x``, ``(N, C, H, W)``, in its dtype."""
    weight, bias = _cast(layer.weight, x), _cast(layer.bias, x)
    rows = x.permute(0, 2, 3, 1)
    return F.layer_norm(rows, layer.normalized_shape, weight, bias, layer.eps).permute(0, 3, 1, 2)


def _cast(parameter: Tensor | None, like: Tensor) -> Tensor | None:
    return None if parameter is None else parameter.to(like.dtype)

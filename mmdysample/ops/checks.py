"""Argument checks that ops and upsamplers share."""

from __future__ import annotations

import torch
from torch import Tensor


def check_scale_factor(scale_factor: int) -> int:
    """Return ``scale_factor`` if it is an integer of at least 2, else raise ValueError."""
    if isinstance(scale_factor, bool) or not isinstance(scale_factor, int) or scale_factor < 2:
        raise ValueError(f'scale_factor must be an integer >= 2, got {scale_factor!r}')
    return scale_factor


def check_feature(name: str, feature: Tensor, channels: int | None = None) -> None:
    """Raise unless ``feature`` is a floating-point ``(N, C, H, W)`` map with pixels.

    Args:
        name (str): What to call the argument in messages.
        feature (Tensor): The map.
        channels (int, optional): Required ``C``. Defaults to None, any.

    Raises:
        TypeError: If it is not a floating-point tensor.
        ValueError: If its rank, channels or spatial size do not fit.
    """
    if not isinstance(feature, Tensor):
        raise TypeError(f'{name} must be a tensor, got {type(feature).__name__}')
    if not feature.is_floating_point():
        raise TypeError(f'{name} must be floating point, got {feature.dtype}')
    if feature.dim() != 4:
        raise ValueError(f'{name} must be of shape (N, C, H, W), got {tuple(feature.shape)}')
    if torch.jit.is_tracing():
        return  # sizes are traced values there: a comparison would be frozen into the graph
    if channels is not None and feature.shape[1] != channels:
        raise ValueError(f'{name} must have {channels} channels, got {feature.shape[1]}')
    if feature.shape[2] == 0 or feature.shape[3] == 0:
        raise ValueError(f'{name} must have at least one pixel, got {tuple(feature.shape)}')


def resolve_size(x: Tensor, scale_factor: int, size: tuple[int, int] | None) -> tuple[int, int]:
    """Return the output size of an upsampling that cuts: ``size``, or ``(sH, sW)`` if None.

    Args:
        x (Tensor): The map to upsample, ``(N, C, H, W)``.
        scale_factor (int): The factor ``s``.
        size (tuple[int, int], optional): Wanted size, ``s(H-1) < h' <= sH`` and so for the width.

    Raises:
        ValueError: If ``size`` is not a pair, or out of reach.
        TypeError: If ``size`` does not consist of integers.
    """
    full = (x.shape[-2] * scale_factor, x.shape[-1] * scale_factor)
    if size is None:
        return full
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise ValueError(f'size must be (height, width), got {size!r}')
    if not torch.jit.is_tracing():
        if not all(isinstance(length, (int, torch.SymInt)) for length in size):
            raise TypeError(f'size must be two integers, got {size!r}')
        for axis, wanted, most in zip(('height', 'width'), size, full, strict=True):
            if not most - scale_factor < wanted <= most:
                raise ValueError(
                    f'size {tuple(size)} is out of reach: the {axis} from {most // scale_factor} '
                    f'by scale_factor {scale_factor} can be {most - scale_factor + 1} to {most}'
                )
    return (size[0], size[1])


def check_positive(name: str, value: int, odd: bool = False) -> None:
    """Raise ValueError unless ``value`` is a positive integer, and an odd one where asked."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < 1 or (odd and value % 2 == 0):
        raise ValueError(f'{name} must be a positive {"odd " * odd}integer, got {value!r}')


def check_multiple(name: str, value: int, of: int) -> None:
    """Raise ValueError unless ``value`` is a multiple of ``of``."""
    if value % of:
        raise ValueError(f'{name} must be a multiple of {of}, got {value}')

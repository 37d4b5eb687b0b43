"""How maps lie in memory."""

from __future__ import annotations

import torch
from torch import Tensor


def is_channels_last(x: Tensor) -> bool:
    """Whether a 4-D tensor is dense with its channels last, and not NCHW as well."""
    try:
        return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    except RuntimeError:  # inside torch.func.vmap, which does not say
        return False


def memory_format(x: Tensor) -> torch.memory_format:
    """The format that results of ``x`` get."""
    return torch.channels_last if is_channels_last(x) else torch.contiguous_format

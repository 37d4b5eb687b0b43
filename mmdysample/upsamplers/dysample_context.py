"""DySample whose offsets see far: large depth-wise kernels on a few channels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdysample.ops.checks import check_positive
from mmdysample.ops.dysample import full_precision
from mmdysample.ops.layers import convolve
from mmdysample.upsamplers.base import register_upsampler
from mmdysample.upsamplers.dysample import DySample, project


@register_upsampler('dysample_context', style='lp', groups=4, dyscope=False)
class DySampleContext(DySample):
    """DySample whose offsets and scopes also depend on the surroundings of a pixel.

    The offsets of :class:`DySample` depend on one pixel of ``x``. Here ``x`` is projected to a few
    channels, and depth-wise convolutions gather what lies around each pixel: a 5x5, then a row and
    a column of ``context_size``, which cost a fraction of the whole square. They are added to the
    pixel's own embedding, and after a ReLU a 1x1 convolution gives what is added to offsets and
    scopes. Its weights start at zero, so a fresh module is a fresh :class:`DySample`.

    Args:
        in_channels (int): As for :class:`DySample`.
        scale_factor (int): As for :class:`DySample`. Defaults to 2.
        context_size (int): Length of the row and of the column, odd, in input pixels: the offsets
            see a square of side ``context_size + 4``. Defaults to 21.
        embedding (int): Channels that ``x`` is projected to. Defaults to 32.
        **kwargs: Further arguments of :class:`DySample`.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument is out of range or channels cannot be divided as needed.
    """

    def __init__(
        self,
        in_channels: int,
        scale_factor: int = 2,
        *,
        context_size: int = 21,
        embedding: int = 32,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, scale_factor, **kwargs)
        check_positive('context_size', context_size, odd=True)
        check_positive('embedding', embedding)
        outputs = 2 * self.groups * scale_factor**2 * (1 + self.dyscope)
        self.context = _Context(in_channels, embedding, context_size, outputs)

    def init_weights(self) -> None:
        """Begin as :class:`DySample` does; the part with the context ends in zeros."""
        super().init_weights()
        for part in self.children():  # none yet where the constructor of DySample calls this
            if isinstance(part, _Context):
                part.init_weights()

    def projections(self, x: Tensor, guide: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Predict offsets and scopes from each pixel, and add what its surroundings predict."""
        offset, scope = super().projections(x, guide)
        with full_precision(x.device):
            more = self.context(x)
        if self.style == 'pl':
            more = F.pixel_shuffle(more, self.scale_factor)
        if scope is None:
            return offset + more, None
        more_offset, more_scope = more.chunk(2, dim=1)
        return offset + more_offset, scope + more_scope

    def macs(self, height: int, width: int) -> int:
        """What DySample costs, and the convolutions of the context at the input's resolution."""
        weights = sum(m.weight.numel() for m in self.context.children())
        return super().macs(height, width) + weights * height * width


class _Context(nn.Module):
    """``x`` to offsets, and scopes if there are any, laid out as before a pixel shuffle."""

    def __init__(self, channels: int, embedding: int, size: int, outputs: int) -> None:
        super().__init__()

        def depthwise(height: int, width: int) -> nn.Conv2d:
            padding = (height // 2, width // 2)
            options = dict(padding=padding, groups=embedding, bias=False)
            return nn.Conv2d(embedding, embedding, (height, width), **options)

        self.reduce = nn.Conv2d(channels, embedding, 1)
        self.near = depthwise(5, 5)
        self.row = depthwise(1, size)
        self.column = depthwise(size, 1)
        self.offset = nn.Conv2d(embedding, outputs, 1, bias=False)
        self.init_weights()

    def init_weights(self) -> None:
        for layer in (self.reduce, self.near, self.row, self.column):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity='linear')  # keeps the variance
        nn.init.zeros_(self.reduce.bias)
        nn.init.zeros_(self.offset.weight)

    def forward(self, x: Tensor) -> Tensor:
        own = project(self.reduce, x)
        around = convolve(self.column, convolve(self.row, convolve(self.near, own)))
        return convolve(self.offset, torch.relu(own + around))

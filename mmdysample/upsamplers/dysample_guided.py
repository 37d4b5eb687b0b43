"""DySample that sees the finer feature: offsets and scopes predicted from both resolutions."""

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


@register_upsampler('dysample_guided', style='lp', groups=4, dyscope=True)
class DySampleGuided(DySample):
    """DySample whose offsets and scopes are corrected by the finer feature.

    The coarse feature knows a boundary to a pixel of its own; the guide knows it to an output
    pixel. Both are projected to a few channels and added at the output resolution. After a ReLU,
    which lets the layer compare the two, a 3x3 convolution gives what is added to the offsets and
    scopes of :class:`DySample`. Its weights start at zero, so a fresh module is a fresh
    :class:`DySample`, whatever the guide. Values of the guide itself never reach the result.

    Args:
        in_channels (int): As for :class:`DySample`.
        scale_factor (int): As for :class:`DySample`. Defaults to 2.
        guide_channels (int, optional): Channels ``Cg`` of the guide. Defaults to ``in_channels``.
        embedding (int): Channels that both features are projected to. Defaults to 32.
        dyscope (bool): As for :class:`DySample`. Defaults to True.
        **kwargs: Further arguments of :class:`DySample`.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument is out of range or channels cannot be divided as needed.
    """

    guided = True

    def __init__(
        self,
        in_channels: int,
        scale_factor: int = 2,
        *,
        guide_channels: int | None = None,
        embedding: int = 32,
        dyscope: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, scale_factor, dyscope=dyscope, **kwargs)
        if guide_channels is not None:
            check_positive('guide_channels', guide_channels)
            self.guide_channels = guide_channels
        check_positive('embedding', embedding)
        self.layout = 'pl'
        outputs = 2 * self.groups * (1 + dyscope)
        self.fine = _FineOffsets(in_channels, self.guide_channels, embedding, outputs)

    def init_weights(self) -> None:
        """Begin as :class:`DySample` does; the guide's part ends in zeros."""
        super().init_weights()
        for part in self.children():  # none yet where the constructor of DySample calls this
            if isinstance(part, _FineOffsets):
                part.init_weights()

    def projections(self, x: Tensor, guide: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Predict offsets and scopes from ``x``, and add what both features predict together."""
        offset, scope = super().projections(x, None)
        if self.style == 'lp':
            offset = F.pixel_shuffle(offset, self.scale_factor)
            scope = None if scope is None else F.pixel_shuffle(scope, self.scale_factor)
        with full_precision(x.device):
            fine = self.fine(x, guide, self.scale_factor)
        if scope is None:
            return offset + fine, None
        more_offset, more_scope = fine.chunk(2, dim=1)
        return offset + more_offset, scope + more_scope

    def macs(self, height: int, width: int) -> int:
        """What DySample costs, both projections, the coarse one interpolated, and the 3x3."""
        fine = self.fine.guide.weight.numel() + self.fine.offset.weight.numel()
        fine += 4 * self.fine.offset.in_channels
        coarse = self.fine.feature.weight.numel()
        more = (coarse + self.scale_factor**2 * fine) * height * width
        return super().macs(height, width) + more


class _FineOffsets(nn.Module):
    """Guide and ``x`` to offsets, and scopes if there are any, at the output resolution."""

    def __init__(self, channels: int, guide_channels: int, embedding: int, outputs: int) -> None:
        super().__init__()
        self.guide = nn.Conv2d(guide_channels, embedding, 1)
        self.feature = nn.Conv2d(channels, embedding, 1, bias=False)
        self.offset = nn.Conv2d(embedding, outputs, 3, padding=1, bias=False)
        self.init_weights()

    def init_weights(self) -> None:
        for projection in (self.guide, self.feature):
            nn.init.xavier_uniform_(projection.weight)
        nn.init.zeros_(self.guide.bias)
        nn.init.zeros_(self.offset.weight)

    def forward(self, x: Tensor, guide: Tensor, scale_factor: int) -> Tensor:
        coarse = project(self.feature, x)
        coarse = F.interpolate(coarse, scale_factor=scale_factor, mode='bilinear')
        return convolve(self.offset, torch.relu(project(self.guide, guide) + coarse))

"""What tests of several networks share: pyramids, and upsamplers whose doings are known."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mmdysample import DySample, Upsampler

BIAS = (0.5, -0.25)  # input pixels, exact in binary


def pyramid(
    channels: Sequence[int], size: tuple[int, int] = (32, 48), batch: int = 2
) -> list[torch.Tensor]:
    """Maps whose sizes halve, rounded up, as stride-2 convolutions leave them."""
    sizes = [[-(-side // 2**level) for side in size] for level in range(len(channels))]
    return [torch.randn(batch, c, *s) for c, s in zip(channels, sizes, strict=True)]


class Reports(Upsampler):
    """Repeats every pixel and notes what it was given; the fixture ``reports`` is its list."""

    guided = True
    calls: list[tuple] = []

    def upsample(self, x, guide, size):
        self.calls.append((self, x, guide))
        out = x.repeat_interleave(self.scale_factor, -2).repeat_interleave(self.scale_factor, -1)
        return out[..., : size[0], : size[1]]


def fixed_layer(*offsets: tuple[float, float], channels: int = 4, **options) -> DySample:
    """A layer whose offsets are one (x, y) in input pixels per group, whatever it sees."""
    layer = DySample(channels, groups=len(offsets or (BIAS,)), **options)
    torch.nn.init.zeros_(layer.offset.weight)
    per_axis = torch.tensor(offsets or (BIAS,)).T  # (2, G), as the channels are ordered
    repeats = layer.scale_factor**2 if layer.style == 'lp' else 1
    with torch.no_grad():
        layer.offset.bias.copy_(per_axis.flatten().repeat_interleave(repeats) / layer.scope_factor)
    return layer

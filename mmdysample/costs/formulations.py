"""Other ways to write DySample's sampling, to measure beside ours; static scope, style 'lp'."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdysample.upsamplers.dysample import initial_displacement


def published_sampling(x: Tensor, displacement: Tensor, groups: int, scale_factor: int) -> Tensor:
    """Follow the published code path, after the paper (Sec. 3.1, Eq. 1 and 2).

    A grid of pixel centres is made on the CPU for each call, in the dtype of ``displacement``. A
    module under half precision hands over half precision.

    Args:
        x (Tensor): ``(N, C, H, W)``.
        displacement (Tensor): Offset times scope plus initial position,
            ``(N, 2 * G * s * s, H, W)``.
        groups (int): Channel groups ``G``.
        scale_factor (int): The factor ``s``.

    Returns:
        Tensor: ``(N, C, sH, sW)``.
    """
    n, _, height, width = x.shape
    dtype, device = displacement.dtype, x.device
    displacement = displacement.reshape(n, 2, -1, height, width)
    columns, rows = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    centres = torch.stack(torch.meshgrid(columns, rows, indexing='ij')).transpose(1, 2)
    centres = centres[None, :, None].to(dtype).to(device, non_blocking=True)
    extent = torch.tensor([width, height], dtype=dtype, device=device).view(1, 2, 1, 1, 1)
    grid = 2 * (centres + displacement) / extent - 1
    grid = F.pixel_shuffle(grid.reshape(n, -1, height, width), scale_factor)
    grid = grid.reshape(n, 2, -1, scale_factor * height, scale_factor * width)
    sampled = F.grid_sample(
        x.reshape(n * groups, -1, height, width),
        grid.permute(0, 2, 3, 4, 1).contiguous().flatten(0, 1),
        mode='bilinear',
        align_corners=False,
        padding_mode='border',
    )
    return sampled.view(n, -1, scale_factor * height, scale_factor * width)


def gather_sampling(x: Tensor, displacement: Tensor, groups: int, scale_factor: int) -> Tensor:
    """Do the same as four weighted gathers, which a compiler can fuse into one pass."""
    n, channels, height, width = x.shape
    device = x.device
    grid = F.pixel_shuffle(displacement.float(), scale_factor).unflatten(1, (2, groups))
    parent_x = torch.arange(scale_factor * width, device=device) // scale_factor
    parent_y = torch.arange(scale_factor * height, device=device)[:, None] // scale_factor
    px = (grid[:, 0] + parent_x).clamp(0, width - 1)
    py = (grid[:, 1] + parent_y).clamp(0, height - 1)
    left, top = px.detach().floor(), py.detach().floor()
    u, v = (px - left)[:, :, None], (py - top)[:, :, None]
    left, top = left.long()[:, :, None], top.long()[:, :, None]
    right, bottom = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    image = torch.arange(n, device=device).view(n, 1, 1, 1, 1)
    group = torch.arange(groups, device=device).view(groups, 1, 1, 1)
    channel = torch.arange(channels // groups, device=device).view(-1, 1, 1)
    grouped = x.unflatten(1, (groups, -1))

    def read(rows: Tensor, columns: Tensor) -> Tensor:
        return grouped[image, group, channel, rows, columns].float()

    upper = read(top, left) * (1 - u) + read(top, right) * u
    lower = read(bottom, left) * (1 - u) + read(bottom, right) * u
    return (upper * (1 - v) + lower * v).flatten(1, 2).to(x.dtype)


class PublishedDySample(nn.Module):
    """A whole upsampler on the published code path, ``in_channels`` to ``in_channels``.

    Args:
        in_channels (int): Channels ``C``.
        scale_factor (int): The factor ``s``. Defaults to 2.
        groups (int): Channel groups ``G``. Defaults to 4.
    """

    def __init__(self, in_channels: int, scale_factor: int = 2, groups: int = 4) -> None:
        super().__init__()
        self.scale_factor, self.groups = scale_factor, groups
        self.offset = nn.Conv2d(in_channels, 2 * groups * scale_factor**2, 1)
        nn.init.normal_(self.offset.weight, std=0.001)
        nn.init.zeros_(self.offset.bias)
        self.register_buffer('init_pos', initial_displacement(groups, scale_factor))

    def forward(self, x: Tensor) -> Tensor:
        """Upsample ``(N, C, H, W)`` to ``(N, C, sH, sW)``."""
        displacement = self.offset(x) * 0.25 + self.init_pos
        return published_sampling(x, displacement, self.groups, self.scale_factor)

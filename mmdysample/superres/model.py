"""A small EDSR (arXiv 1707.02921) and the degradations that it learns to undo."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseDataPreprocessor, BaseModel
from torch import Tensor, nn

from mmdysample.ops.checks import check_positive
from mmdysample.upsamplers.output import UpsampleOutput


class DegradePreprocessor(BaseDataPreprocessor):
    """Make pairs of a degraded and a whole picture out of pictures alone.

    The whole one is cut to a multiple of the factor. The degraded one is its antialiased bicubic
    reduction, or of the same size and blurred; it is rounded to 256 steps as a file would hold it.

    Args:
        scale_factor (int): The factor ``s``.
        blur (float, optional): Standard deviation in pixels of the Gaussian to blur with instead
            of reducing. It is cut off at four deviations, and pictures are mirrored at their
            border, so they have to be larger than that. Defaults to None: reduce.

    Raises:
        ValueError: If ``blur`` is not positive.
    """

    def __init__(self, scale_factor: int, blur: float | None = None) -> None:
        super().__init__()
        number = isinstance(blur, int | float) and not isinstance(blur, bool)
        if blur is not None and not (number and 0 < blur < math.inf):
            raise ValueError(f'blur must be a positive number of pixels, got {blur!r}')
        self.scale_factor = scale_factor
        self.blur = blur

    def forward(self, data: Mapping[str, Any], training: bool = False) -> dict[str, Tensor]:
        """Degrade a batch.

        Args:
            data (Mapping): ``inputs``, a list of pictures ``(3, H, W)`` of one size, BGR, uint8.
            training (bool): Not used: both modes degrade alike. Defaults to False.

        Returns:
            dict: ``target`` ``(N, 3, H', W')`` and ``inputs``, of the same size where they are
            blurred and else ``(N, 3, H'/s, W'/s)``; RGB, float32 from 0 to 1.
        """
        pictures = torch.stack(self.cast_data(data['inputs'])).flip(1).float() / 255
        height, width = (side - side % self.scale_factor for side in pictures.shape[-2:])
        target = pictures[..., :height, :width]
        if self.blur is None:
            size = (height // self.scale_factor, width // self.scale_factor)
            degraded = F.interpolate(target, size, mode='bicubic', antialias=True)
        else:
            degraded = _blur(target, self.blur)
        return dict(inputs=(degraded.clamp(0, 1) * 255).round() / 255, target=target)


def _blur(pictures: Tensor, deviation: float) -> Tensor:
    """Convolve with a Gaussian, first along rows and then along columns."""
    radius = math.ceil(4 * deviation)
    at = torch.arange(-radius, radius + 1, device=pictures.device)
    line = torch.exp(-((at / deviation) ** 2) / 2)
    line = (line / line.sum()).to(pictures.dtype)
    kernel = line.expand(pictures.shape[1], 1, 1, -1)
    for _ in range(2):
        rows = F.pad(pictures, (radius, radius, 0, 0), mode='reflect')
        pictures = F.conv2d(rows, kernel, groups=len(kernel)).transpose(2, 3)
    return pictures


class SuperResolver(BaseModel):
    """Residual blocks at the coarse size, and one upsampler to the fine one.

    For pictures that are blurred, not reduced, the first convolution has the stride ``s``, so that
    the blocks work at the coarse size as well.

    As in EDSR the blocks have no normalisation, and the features before and after them are added.
    The input is added to the result, interpolated bicubically where it is coarse, so that short
    trainings suffice.

    Args:
        scale_factor (int): The factor ``s``. Defaults to 2.
        upsample_cfg (str or dict): The upsampler of the last layer, as for
            :class:`mmdysample.upsamplers.output.UpsampleOutput`. Defaults to ``'dysample'``.
        channels (int): Channels of all features. Defaults to 32.
        num_blocks (int): Residual blocks. Defaults to 8.
        blur (float, optional): As for :class:`DegradePreprocessor`. Defaults to None.

    Raises:
        TypeError: If ``upsample_cfg`` has unknown keys.
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        scale_factor: int = 2,
        upsample_cfg: str | Mapping[str, Any] = 'dysample',
        channels: int = 32,
        num_blocks: int = 8,
        blur: float | None = None,
    ) -> None:
        super().__init__(dict(type='DegradePreprocessor', scale_factor=scale_factor, blur=blur))
        check_positive('num_blocks', num_blocks)
        self.scale_factor = scale_factor
        self.output = UpsampleOutput(channels, 3, scale_factor, upsample_cfg)
        stride = 1 if blur is None else scale_factor
        self.head = nn.Conv2d(3, channels, 3, stride, padding=1)
        self.blocks = nn.Sequential(*(_Block(channels) for _ in range(num_blocks)))
        self.tail = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(
        self, inputs: Tensor, target: Tensor | None = None, mode: str = 'tensor'
    ) -> Tensor | dict[str, Tensor] | list[dict[str, Tensor]]:
        """Enlarge or sharpen pictures.

        Args:
            inputs (Tensor): ``(N, 3, H, W)``, RGB from 0 to 1; blurred ones ``(N, 3, sH, sW)``.
            target (Tensor, optional): ``(N, 3, sH, sW)``; not needed in the mode ``'tensor'``.
            mode (str): ``'tensor'``, ``'loss'`` or ``'predict'``. Defaults to ``'tensor'``.

        Returns:
            Tensor, dict or list: The pictures ``(N, 3, sH, sW)``; the loss, a mean of absolute
            differences; or for each image a dict of ``prediction`` and ``target``, ``(3, sH, sW)``.
        """
        first = self.head(inputs)
        restored = self.output(first + self.tail(self.blocks(first)))
        restored = restored + F.interpolate(inputs, restored.shape[-2:], mode='bicubic')
        if mode == 'loss':
            return dict(loss=F.l1_loss(restored, target))
        if mode == 'predict':
            pairs = zip(restored, target, strict=True)
            return [dict(prediction=ours, target=theirs) for ours, theirs in pairs]
        return restored


class _Block(nn.Module):
    """Add to a feature what two convolutions make of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(torch.relu(self.first(x)))

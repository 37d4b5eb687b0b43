"""A small EDSR (arXiv 1707.02921) and the degradation that it learns to undo."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseDataPreprocessor, BaseModel
from torch import Tensor, nn

from mmdysample.ops.checks import check_positive
from mmdysample.upsamplers.output import UpsampleOutput


class DegradePreprocessor(BaseDataPreprocessor):
    """Make pairs of a coarse and a fine picture out of pictures alone.

    The fine one is cut to a multiple of the factor; the coarse one is its antialiased bicubic
    reduction, rounded to 256 steps as a file would hold it.

    Args:
        scale_factor (int): The factor ``s``.
    """

    def __init__(self, scale_factor: int) -> None:
        super().__init__()
        self.scale_factor = scale_factor

    def forward(self, data: Mapping[str, Any], training: bool = False) -> dict[str, Tensor]:
        """Degrade a batch.

        Args:
            data (Mapping): ``inputs``, a list of pictures ``(3, H, W)`` of one size, BGR, uint8.
            training (bool): Not used: both modes degrade alike. Defaults to False.

        Returns:
            dict: ``target`` ``(N, 3, H', W')`` and ``inputs`` ``(N, 3, H'/s, W'/s)``, RGB, float32
            from 0 to 1.
        """
        pictures = torch.stack(self.cast_data(data['inputs'])).flip(1).float() / 255
        height, width = (side - side % self.scale_factor for side in pictures.shape[-2:])
        target = pictures[..., :height, :width]
        size = (height // self.scale_factor, width // self.scale_factor)
        coarse = F.interpolate(target, size, mode='bicubic', antialias=True)
        return dict(inputs=(coarse.clamp(0, 1) * 255).round() / 255, target=target)


class SuperResolver(BaseModel):
    """Residual blocks at the coarse size, and one upsampler to the fine one.

    As in EDSR the blocks have no normalisation, and the features before and after them are added.
    The bicubic interpolation of the input is added to the result, so that short trainings suffice.

    Args:
        scale_factor (int): The factor ``s``. Defaults to 2.
        upsample_cfg (str or dict): The upsampler of the last layer, as for
            :class:`mmdysample.upsamplers.output.UpsampleOutput`. Defaults to ``'dysample'``.
        channels (int): Channels of all features. Defaults to 32.
        num_blocks (int): Residual blocks. Defaults to 8.

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
    ) -> None:
        super().__init__(dict(type='DegradePreprocessor', scale_factor=scale_factor))
        check_positive('num_blocks', num_blocks)
        self.scale_factor = scale_factor
        self.output = UpsampleOutput(channels, 3, scale_factor, upsample_cfg)
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.Sequential(*(_Block(channels) for _ in range(num_blocks)))
        self.tail = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(
        self, inputs: Tensor, target: Tensor | None = None, mode: str = 'tensor'
    ) -> Tensor | dict[str, Tensor] | list[dict[str, Tensor]]:
        """Enlarge pictures.

        Args:
            inputs (Tensor): ``(N, 3, H, W)``, RGB from 0 to 1.
            target (Tensor, optional): ``(N, 3, sH, sW)``; not needed in the mode ``'tensor'``.
            mode (str): ``'tensor'``, ``'loss'`` or ``'predict'``. Defaults to ``'tensor'``.

        Returns:
            Tensor, dict or list: The pictures ``(N, 3, sH, sW)``; the loss, a mean of absolute
            differences; or for each image a dict of ``prediction`` and ``target``, ``(3, sH, sW)``.
        """
        first = self.head(inputs)
        enlarged = self.output(first + self.tail(self.blocks(first)))
        enlarged = enlarged + F.interpolate(inputs, enlarged.shape[-2:], mode='bicubic')
        if mode == 'loss':
            return dict(loss=F.l1_loss(enlarged, target))
        if mode == 'predict':
            pairs = zip(enlarged, target, strict=True)
            return [dict(prediction=ours, target=theirs) for ours, theirs in pairs]
        return enlarged


class _Block(nn.Module):
    """Add to a feature what two convolutions make of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(torch.relu(self.first(x)))

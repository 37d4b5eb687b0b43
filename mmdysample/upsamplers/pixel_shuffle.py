"""Sub-pixel convolution (arXiv 1609.05158) behind the common interface."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mmdysample.ops.checks import check_positive
from mmdysample.upsamplers.base import Upsampler, register_upsampler

INITS = ('xavier', 'pytorch')


@register_upsampler('pixel_shuffle')
class PixelShuffle(Upsampler):
    """Convolution to ``C * s * s`` channels, rearranged into ``s x s`` pixels (Sec. 2.2, Eq. 4).

    Parameters carry the names of ``mmcv.cnn.PixelShufflePack``.

    Args:
        in_channels (int): Channels ``C``.
        scale_factor (int): The factor ``s``. Defaults to 2.
        upsample_kernel (int): Side of the convolution, odd. Defaults to 3.
        init (str): How weights are drawn: ``'xavier'``, MMCV's uniform scheme, or ``'pytorch'``,
            the default of ``nn.Conv2d``, which the published segmentation code keeps.
            Defaults to ``'xavier'``.

    Raises:
        ValueError: If ``upsample_kernel`` is not odd and positive, or ``init`` is unknown.
    """

    def __init__(
        self,
        in_channels: int,
        scale_factor: int = 2,
        *,
        upsample_kernel: int = 3,
        init: str = 'xavier',
    ) -> None:
        super().__init__(in_channels, scale_factor)
        if init not in INITS:
            raise ValueError(f'init must be one of {INITS}, got {init!r}')
        self.init = init
        check_positive('upsample_kernel', upsample_kernel, odd=True)
        self.upsample_conv = nn.Conv2d(
            in_channels,
            in_channels * scale_factor**2,
            upsample_kernel,
            padding=upsample_kernel // 2,
        )
        self.init_weights()

    def init_weights(self) -> None:
        """Xavier-uniform weights and zero biases, or PyTorch's default."""
        if self.init == 'pytorch':
            self.upsample_conv.reset_parameters()
            return
        nn.init.xavier_uniform_(self.upsample_conv.weight)
        nn.init.zeros_(self.upsample_conv.bias)

    def upsample(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Convolve and shuffle, then cut to ``size``."""
        out = F.pixel_shuffle(self.upsample_conv(x), self.scale_factor)
        return out[..., : size[0], : size[1]].to(x.dtype)

    def macs(self, height: int, width: int) -> int:
        """The convolution, at low resolution."""
        return self.upsample_conv.weight.numel() * height * width

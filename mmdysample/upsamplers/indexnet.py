"""IndexNet: upsampling guided by learned index maps (arXiv 1908.00672)."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from mmdysample.upsamplers.base import Upsampler, register_upsampler


@register_upsampler('indexnet')
class IndexNet(Upsampler):
    """Nearest neighbour times an index map predicted from the guide, one for all channels.

    This is the decoder half of the holistic index block: the index map is the sigmoid
    of a small network on the guide, with strides of 2, so it upsamples by 2 only. Batch
    normalisation makes it depend on the batch while training.

    Parameters carry the names of the published block.

    Args:
        in_channels (int): Channels ``C`` of ``x``.
        scale_factor (int): 2. Defaults to 2.
        guide_channels (int, optional): Channels ``Cg`` of the guide. Defaults to ``in_channels``.
        use_nonlinear (bool): Predict by two convolutions around batch norm and ReLU6, instead of
            by one. Defaults to True.
        use_context (bool): Look at 4x4 guide pixels instead of 2x2. Defaults to True.

    Raises:
        ValueError: If ``scale_factor`` is not 2.
    """

    guided = True

    def __init__(
        self,
        in_channels: int,
        scale_factor: int = 2,
        *,
        guide_channels: int | None = None,
        use_nonlinear: bool = True,
        use_context: bool = True,
    ) -> None:
        super().__init__(in_channels, scale_factor, guide_channels=guide_channels)
        if scale_factor != 2:
            raise ValueError(f'scale_factor must be 2 for IndexNet, got {scale_factor}')
        window = dict(kernel_size=4, padding=1) if use_context else dict(kernel_size=2)
        if use_nonlinear:
            hidden = 2 * self.guide_channels
            self.indexnet = nn.Sequential(
                nn.Conv2d(self.guide_channels, hidden, stride=2, bias=False, **window),
                nn.BatchNorm2d(hidden),
                nn.ReLU6(inplace=True),
                nn.Conv2d(hidden, 4, 1, bias=False),
            )
        else:
            self.indexnet = nn.Conv2d(self.guide_channels, 4, stride=2, bias=False, **window)
        self.init_weights()

    def init_weights(self) -> None:
        """Convolutions from N(0, 2 / fan-out), batch norm to 1 and 0, as the published network."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.out_channels * math.prod(module.kernel_size)
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()

    def upsample(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Weigh the nearest neighbours by the index map, then cut to ``size``."""
        index = F.pixel_shuffle(self.indexnet(guide).sigmoid(), 2).to(x.dtype)
        out = index * F.interpolate(x, scale_factor=2, mode='nearest')
        return out[..., : size[0], : size[1]]

    def macs(self, height: int, width: int) -> int:
        """Convolutions at low resolution (stride 2), one product per output value."""
        convolutions = (m for m in self.modules() if isinstance(m, nn.Conv2d))
        weights = sum(convolution.weight.numel() for convolution in convolutions)
        return (weights + 4 * self.in_channels) * height * width

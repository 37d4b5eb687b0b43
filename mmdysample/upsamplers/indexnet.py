"""IndexNet: upsampling guided by learned index maps (arXiv 1908.00672)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdysample.upsamplers.base import Upsampler, check_flags, register_upsampler

BLOCKS = ('holistic', 'depthwise')
_DEPTHWISE_NAMES = ('indexnet1', 'indexnet2', 'indexnet3', 'indexnet4')


@register_upsampler('indexnet')
class IndexNet(Upsampler):
    """Nearest neighbour times an index map predicted from the guide.

    This is the decoder half of an index block: the index map is the sigmoid of a small network on
    the guide, with strides of 2, so it upsamples by 2 only. The holistic block predicts one map
    for all channels. The depth-wise block, in the paper's many-to-one form, predicts one for each
    channel from all channels of the guide, by a network of its own for each of the four output
    pixels of an input pixel. Batch normalisation makes the map depend on the batch while training.

    Parameters carry the names of the published blocks.

    Args:
        in_channels (int): Channels ``C`` of ``x``.
        scale_factor (int): 2. Defaults to 2.
        guide_channels (int, optional): Channels ``Cg`` of the guide. Defaults to ``in_channels``.
        block (str): ``'holistic'`` or ``'depthwise'``. Defaults to ``'holistic'``.
        use_nonlinear (bool): Predict by two convolutions around batch norm and ReLU6, instead of
            by one. Defaults to True.
        use_context (bool): Look at 4x4 guide pixels instead of 2x2. Defaults to True.

    Raises:
        ValueError: If ``scale_factor`` is not 2 or ``block`` is unknown.
        TypeError: If a flag is not a bool.
    """

    guided = True
    only_doubles = True

    def __init__(
        self,
        in_channels: int,
        scale_factor: int = 2,
        *,
        guide_channels: int | None = None,
        block: str = 'holistic',
        use_nonlinear: bool = True,
        use_context: bool = True,
    ) -> None:
        super().__init__(in_channels, scale_factor, guide_channels=guide_channels)
        if block not in BLOCKS:
            raise ValueError(f'block must be one of {BLOCKS}, got {block!r}')
        check_flags(use_nonlinear=use_nonlinear, use_context=use_context)
        self.block = block
        options = dict(nonlinear=use_nonlinear, context=use_context)
        if block == 'holistic':
            predictor = _predictor(self.guide_channels, 2 * self.guide_channels, 4, **options)
            self.indexnet = predictor if use_nonlinear else predictor[0]
        else:
            for name in _DEPTHWISE_NAMES:
                predictor = _predictor(
                    self.guide_channels, self.guide_channels, in_channels, **options
                )
                self.add_module(name, predictor)
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
        if self.block == 'holistic':
            logits = self.indexnet(guide)
        else:  # pixel_shuffle wants the four maps of a channel side by side
            maps = [getattr(self, name)(guide) for name in _DEPTHWISE_NAMES]
            logits = torch.stack(maps, dim=2).flatten(1, 2)
        index = F.pixel_shuffle(logits.sigmoid(), 2).to(x.dtype)
        out = index * F.interpolate(x, scale_factor=2, mode='nearest')
        return out[..., : size[0], : size[1]]

    def macs(self, height: int, width: int) -> int:
        """Convolutions at low resolution (stride 2), one product per output value."""
        convolutions = (m for m in self.modules() if isinstance(m, nn.Conv2d))
        weights = sum(convolution.weight.numel() for convolution in convolutions)
        return (weights + 4 * self.in_channels) * height * width


def _predictor(
    in_channels: int, hidden: int, out_channels: int, nonlinear: bool, context: bool
) -> nn.Sequential:
    window = dict(kernel_size=4, padding=1) if context else dict(kernel_size=2)
    if not nonlinear:
        return nn.Sequential(nn.Conv2d(in_channels, out_channels, stride=2, bias=False, **window))
    return nn.Sequential(
        nn.Conv2d(in_channels, hidden, stride=2, bias=False, **window),
        nn.BatchNorm2d(hidden),
        nn.ReLU6(inplace=True),
        nn.Conv2d(hidden, out_channels, 1, bias=False),
    )

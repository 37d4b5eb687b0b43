"""UPerNet's head with a chosen upsampler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import ModuleList
from mmseg.models.decode_heads import UPerHead
from torch import Tensor

from mmdysample.hosts.pyramid import PyramidUpsample, UpsampleCfg, build_head_upsampler


class UpsampleUPerHead(UPerHead):
    """:class:`mmseg.models.UPerHead` with any upsampler in its top-down path.

    ``upsample_modules[i]`` upsamples level ``i + 1`` towards level ``i``. The resize before the
    final fusion stays bilinear, as in the published comparisons, unless ``fusion_upsample_cfg``
    replaces it. With ``bilinear`` the head equals the stock one to the last bit; its other
    parameters carry the stock names, so published checkpoints load with only
    ``upsample_modules`` missing.

    Args:
        upsample_cfg (str or dict, optional): The upsampler of the top-down path by ``type``, as
            for :func:`mmdysample.build_upsampler`. Defaults to ``dict(type='dysample')``.
        fusion_upsample_cfg (str or dict): The same for the resize before the fusion; learned
            upsamplers climb there in steps of x2, six for four levels.
            Defaults to ``'bilinear'``.
        **kwargs: Arguments of the stock head.

    Raises:
        TypeError: If a config has unknown keys.
        ValueError: If a config names an unknown upsampler.
    """

    def __init__(
        self,
        upsample_cfg: UpsampleCfg | None = None,
        fusion_upsample_cfg: UpsampleCfg = 'bilinear',
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        upsample_cfg = dict(type='dysample') if upsample_cfg is None else upsample_cfg
        # mmengine's list, not PyTorch's: it lets each upsampler initialise itself after the head.
        self.upsample_modules = ModuleList(
            build_head_upsampler(upsample_cfg, self.channels, align_corners=self.align_corners)
            for _ in self.lateral_convs
        )
        self.fusion_upsample_modules = PyramidUpsample(
            fusion_upsample_cfg,
            self.channels,
            num_levels=len(self.in_channels),
            align_corners=self.align_corners,
        )

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        """The fused feature ``(N, channels, H_0, W_0)`` that the classifier reads."""
        inputs = self._transform_inputs(inputs)
        levels = [conv(x) for conv, x in zip(self.lateral_convs, inputs[:-1], strict=True)]
        levels.append(self.psp_forward(inputs))
        for i in range(len(levels) - 1, 0, -1):
            finer = levels[i - 1]
            upsample = self.upsample_modules[i - 1]
            levels[i - 1] = finer + upsample(levels[i], guide=finer, size=finer.shape[-2:])
        outs = [conv(level) for conv, level in zip(self.fpn_convs, levels[:-1], strict=True)]
        outs.append(levels[-1])
        return self.fpn_bottleneck(torch.cat(self.fusion_upsample_modules(outs), dim=1))

"""SegFormer's head with a chosen upsampler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmseg.models.decode_heads import SegformerHead
from torch import Tensor, nn

from mmdysample.hosts.pyramid import PyramidConcat, PyramidUpsample, UpsampleCfg

PROJECTIONS = ('conv', 'linear')


class UpsampleSegformerHead(SegformerHead):
    """:class:`mmseg.models.SegformerHead` with any upsampler between projection and fusion.

    The coarse levels reach the finest resolution by cascaded x2 upsamplers with separate weights,
    six for the usual four levels, in the order 1/32 (three), 1/16 (two), 1/8 (one). A guided
    upsampler gets the projected feature of the next finer level at each step. With ``bilinear``
    the head equals the stock one to the last bit; its other parameters carry the stock names, so
    checkpoints of mmseg load with only ``upsample_modules`` missing.

    Args:
        upsample_cfg (str or dict, optional): An upsampler by ``type``, as for
            :func:`mmdysample.build_upsampler`, or ``dict(mode=...)``.
            Defaults to ``dict(type='dysample')``.
        cascade (bool, optional): Whether to climb in steps of x2, or to go in one step. Defaults
            to None: one step for ``nearest`` and ``bilinear``, as in the stock head, a cascade
            for all others.
        interpolate_mode (str, optional): The stock head's option, short for
            ``upsample_cfg=dict(mode=interpolate_mode)``. Defaults to None.
        projection (str): What brings a level to the head's width: ``'conv'``, mmseg's 1x1
            convolution with normalisation and ReLU, or ``'linear'``, the bare linear layer of
            SegFormer (arXiv 2105.15203, Eq. 4), with which the published comparisons of
            upsamplers were trained. Checkpoints of mmseg need ``'conv'``. Defaults to ``'conv'``.
        stepwise (bool): Join the levels one after the other, by three upsamplers for the usual
            four levels; see :class:`mmdysample.hosts.pyramid.PyramidConcat`. Defaults to False.
        **kwargs: Arguments of the stock head.

    Raises:
        TypeError: If ``upsample_cfg`` has unknown keys.
        ValueError: If it names an unknown upsampler, ``interpolate_mode`` is given beside it, or
            ``cascade`` beside ``stepwise``, or ``projection`` is unknown.
    """

    def __init__(
        self,
        upsample_cfg: UpsampleCfg | None = None,
        cascade: bool | None = None,
        interpolate_mode: str | None = None,
        projection: str = 'conv',
        stepwise: bool = False,
        **kwargs: Any,
    ) -> None:
        if projection not in PROJECTIONS:
            raise ValueError(f'projection must be one of {PROJECTIONS}, got {projection!r}')
        if stepwise and cascade is not None:
            raise ValueError(f'stepwise=True has no choice of cascade, got cascade={cascade}')
        if interpolate_mode is None:
            super().__init__(**kwargs)
            upsample_cfg = dict(type='dysample') if upsample_cfg is None else upsample_cfg
        elif upsample_cfg is None:
            super().__init__(interpolate_mode=interpolate_mode, **kwargs)
            upsample_cfg = dict(mode=interpolate_mode)
        else:
            raise ValueError(
                f'interpolate_mode={interpolate_mode!r} contradicts upsample_cfg={upsample_cfg!r}: '
                'give one of them'
            )
        if projection == 'linear':
            # A linear layer on the channels of each pixel is a 1x1 convolution.
            self.convs = nn.ModuleList(
                nn.Conv2d(channels, self.channels, 1) for channels in self.in_channels
            )
        self.stepwise = stepwise
        options = dict(num_levels=len(self.in_channels), align_corners=self.align_corners)
        if stepwise:
            self.upsample_modules = PyramidConcat(upsample_cfg, self.channels, **options)
        else:
            options['cascade'] = cascade
            self.upsample_modules = PyramidUpsample(upsample_cfg, self.channels, **options)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Predict the class scores.

        Args:
            inputs (Sequence[Tensor]): The backbone's maps ``(N, C_i, H_i, W_i)``, finest first.

        Returns:
            Tensor: Scores ``(N, num_classes, H_0, W_0)``.
        """
        inputs = self._transform_inputs(inputs)
        levels = [conv(x) for conv, x in zip(self.convs, inputs, strict=True)]
        joined = self.upsample_modules(levels)
        if not self.stepwise:
            joined = torch.cat(joined, dim=1)
        return self.cls_seg(self.fusion_conv(joined))

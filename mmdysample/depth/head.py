"""The DenseDepth decoder of DepthFormer with a chosen upsampler (arXiv 1812.11941)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmengine.model import ModuleList
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from mmseg.utils import SampleList
from torch import Tensor, nn

from mmdysample.hosts.pyramid import UpsampleCfg, build_head_upsampler

REGRESSIONS = ('direct', 'sigmoid')


class DenseDepthHead(BaseDecodeHead):
    """Climb a pyramid from the coarsest level to the finest and regress metric depth.

    Each x2 step upsamples, guided by the level that it climbs to, concatenates that level, and
    convolves twice. With five levels from 1/32 to 1/2 there are four steps. Depth is predicted at
    1/2 and brought to the size of the picture by bilinear interpolation.

    Parameters carry the names of the published checkpoints; ``upsample_modules`` come on top,
    coarsest first. With ``bilinear`` (which follows ``align_corners``) the head is the published
    one.

    Args:
        in_channels (Sequence[int]): Channels of the levels, finest first.
        min_depth (float): Smallest predicted depth in metres. Defaults to 1e-3.
        max_depth (float): Largest predicted depth in metres. Defaults to 10.
        upsample_cfg (str or dict, optional): An upsampler by ``type``, as for
            :func:`mmdysample.build_upsampler`. Defaults to ``dict(type='dysample')``.
        decoder_channels (Sequence[int], optional): Channels of the decoder at each level, finest
            first. Defaults to ``in_channels``.
        regression (str): ``'direct'``: ``relu(y) + min_depth``; ``'sigmoid'``:
            ``max_depth * sigmoid(y)``. Predictions are clamped to the depth range in either
            case, training sees them as they are. Defaults to ``'direct'``.
        act_cfg (dict, optional): Activation of the convolutions.
            Defaults to ``dict(type='LeakyReLU')``.
        align_corners (bool): For the resize to the size of the picture, and for bilinear
            upsampling. Defaults to True, as published.
        loss_decode (dict or Sequence[dict], optional): Losses of prediction and depth map.
            Defaults to ``dict(type='SigLoss')``.
        init_cfg (dict, optional): Initialisation. Defaults to None: each layer's own.
        **kwargs: Further arguments of mmseg's ``BaseDecodeHead``.

    Raises:
        TypeError: If ``upsample_cfg`` has unknown keys.
        ValueError: If an option is out of range or ``upsample_cfg`` names an unknown upsampler.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        min_depth: float = 1e-3,
        max_depth: float = 10.0,
        upsample_cfg: UpsampleCfg | None = None,
        decoder_channels: Sequence[int] | None = None,
        regression: str = 'direct',
        act_cfg: Mapping[str, Any] | None = None,
        align_corners: bool = True,
        loss_decode: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        init_cfg: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        channels = list(in_channels if decoder_channels is None else decoder_channels)
        if len(channels) != len(in_channels):
            raise ValueError(
                f'decoder_channels must have one entry per level of in_channels={in_channels}, '
                f'got {channels}'
            )
        if not 0 < min_depth < max_depth:
            raise ValueError(
                f'min_depth and max_depth must satisfy 0 < min_depth < max_depth, '
                f'got {min_depth} and {max_depth}'
            )
        if regression not in REGRESSIONS:
            raise ValueError(f'regression must be one of {REGRESSIONS}, got {regression!r}')
        super().__init__(
            in_channels=in_channels,
            channels=channels[0],
            num_classes=1,
            threshold=0.0,  # a matter of binary segmentation
            dropout_ratio=0.0,
            in_index=list(range(len(in_channels))),
            input_transform='multiple_select',
            act_cfg=dict(type='LeakyReLU') if act_cfg is None else act_cfg,
            align_corners=align_corners,
            loss_decode=dict(type='SigLoss') if loss_decode is None else loss_decode,
            init_cfg=init_cfg,
            **kwargs,
        )
        self.min_depth = min_depth
        self.max_depth = max_depth
        self.regression = regression

        del self.conv_seg  # a 1x1 classifier; depth is regressed by the 3x3 convolution below
        self.conv_depth = nn.Conv2d(self.channels, 1, 3, padding=1)
        self.conv_list = ModuleList([ConvModule(in_channels[-1], channels[-1], 1, act_cfg=None)])
        # mmengine's list: it lets each upsampler initialise itself after the head.
        self.upsample_modules = ModuleList()
        upsample_cfg = dict(type='dysample') if upsample_cfg is None else upsample_cfg
        for level in range(len(channels) - 2, -1, -1):
            coarser, skip = channels[level + 1], in_channels[level]
            self.conv_list.append(self._fusion(coarser + skip, channels[level]))
            self.upsample_modules.append(
                build_head_upsampler(
                    upsample_cfg, coarser, align_corners=align_corners, guide_channels=skip
                )
            )

    def _fusion(self, in_channels: int, out_channels: int) -> nn.Sequential:
        options = dict(padding=1, norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        return nn.Sequential(
            OrderedDict(
                convA=ConvModule(in_channels, out_channels, 3, **options),
                convB=ConvModule(out_channels, out_channels, 3, **options),
            )
        )

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Decode.

        Args:
            inputs (Sequence[Tensor]): Maps ``(N, C_i, H_i, W_i)``, finest first, each half the
                size of the one before, rounded up.

        Returns:
            Tensor: Depth ``(N, 1, H_0, W_0)`` in metres, float32 or wider, positive.
        """
        *skips, coarsest = self._transform_inputs(inputs)
        start, *fusions = self.conv_list
        x = start(coarsest)
        for skip, upsample, fuse in zip(
            reversed(skips), self.upsample_modules, fusions, strict=True
        ):
            x = upsample(x, guide=skip, size=skip.shape[-2:])
            x = fuse(torch.cat((x, skip), dim=1))
        y = self.conv_depth(x)
        y = y.to(torch.promote_types(y.dtype, torch.float32))
        if self.regression == 'sigmoid':
            return self.max_depth * y.sigmoid()
        return y.relu() + self.min_depth

    def loss_by_feat(self, depth: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Compare a prediction with the depth maps, at their size.

        Args:
            depth (Tensor): What :meth:`forward` returns.
            batch_data_samples (list[SegDataSample]): Samples with ``gt_depth_map`` in metres,
                ``(1, H, W)``; pixels without depth hold zero.

        Returns:
            dict[str, Tensor]: The losses by name; those of one name are added.
        """
        target = torch.stack([sample.gt_depth_map.data for sample in batch_data_samples])
        depth = resize(
            depth,
            target.shape[-2:],
            mode='bilinear',
            align_corners=self.align_corners,
            warning=False,
        )
        single = not isinstance(self.loss_decode, nn.ModuleList)
        losses: dict[str, Tensor] = {}
        for loss in [self.loss_decode] if single else self.loss_decode:
            losses[loss.loss_name] = losses.get(loss.loss_name, 0) + loss(depth, target)
        return losses

    def predict_by_feat(self, depth: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Clamp a prediction to the depth range and bring it to the size of the picture."""
        return super().predict_by_feat(depth.clamp(self.min_depth, self.max_depth), batch_img_metas)

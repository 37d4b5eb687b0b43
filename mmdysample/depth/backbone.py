"""DepthFormer's backbone: a Swin Transformer and, beside it, one convolution (arXiv 2203.14211)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmseg.models.backbones import SwinTransformer
from torch import Tensor, nn


class DepthFormerSwin(SwinTransformer):
    """:class:`mmseg.models.SwinTransformer` with a convolutional stem branch at 1/2 resolution.

    Attention at 1/4 and coarser sees the whole scene and loses local detail; the branch keeps it
    (Sec. 3.2). It is the first layer of a ResNet, 7x7 with stride 2, trained from random weights.
    Parameters carry the names of the published checkpoints.

    Args:
        *args: Positional arguments of the Swin Transformer.
        stem_channels (int): Channels of the branch. Defaults to 64.
        stem_norm_cfg (dict, optional): Its normalisation. Defaults to ``dict(type='BN')``.
        **kwargs: Keyword arguments of the Swin Transformer; all of them keep their meaning.
    """

    def __init__(
        self,
        *args: Any,
        stem_channels: int = 64,
        stem_norm_cfg: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        in_channels = self.patch_embed.projection.in_channels
        self.conv1 = nn.Conv2d(in_channels, stem_channels, 7, stride=2, padding=3, bias=False)
        norm_cfg = dict(type='BN') if stem_norm_cfg is None else dict(stem_norm_cfg)
        self.bn1 = build_norm_layer(norm_cfg, stem_channels)[1]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Compute the pyramid.

        Args:
            x (Tensor): Images ``(N, 3, H, W)``.

        Returns:
            list[Tensor]: The branch at 1/2, then the transformer's stages at 1/4, 1/8, 1/16 and
            1/32; each size is half the one before, rounded up.
        """
        return [F.relu(self.bn1(self.conv1(x))), *super().forward(x)]

"""DepthFormer's neck: hierarchical aggregation and heterogeneous interaction (HAHI)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmcv.ops import MultiScaleDeformableAttention
from mmengine.model import BaseModule
from torch import Tensor, nn


class HAHINeck(BaseModule):
    """Let transformer levels and a convolution branch read from each other (Sec. 3.3).

    Deformable self-attention runs over the tokens of all transformer levels together
    (aggregation); deformable cross-attention lets every pixel of the branch read from them, at
    points that depend on its position (interaction). What either gathers is concatenated with its
    level and fused by a 3x3 convolution. Channels and resolutions stay as they are.

    Parameters carry the names of the published checkpoints, for whose sake the cross-attention is
    called ``multi_att``.

    Args:
        in_channels (Sequence[int]): Channels of the branch, then of each transformer level.
        embedding_dim (int): Width of the tokens, a multiple of 4 and of ``num_heads``.
        num_heads (int): Attention heads. Defaults to 8.
        num_points (int): Points that a head reads per level. Defaults to 8.
        dropout (float): Dropout after each attention. Defaults to 0.1.
        norm_cfg (dict, optional): Normalisation of the convolutions.
            Defaults to ``dict(type='BN')``.
        act_cfg (dict, optional): Their activation. Defaults to ``dict(type='ReLU')``.
        init_cfg (dict, optional): Initialisation of convolutions and linear layers; the
            attentions keep their own. Defaults to Xavier's, uniform.

    Raises:
        ValueError: If there is no transformer level or ``embedding_dim`` cannot be divided.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        embedding_dim: int,
        num_heads: int = 8,
        num_points: int = 8,
        dropout: float = 0.1,
        norm_cfg: Mapping[str, Any] | None = None,
        act_cfg: Mapping[str, Any] | None = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        if init_cfg is None:
            init_cfg = dict(type='Xavier', layer=['Conv2d', 'Linear'], distribution='uniform')
        super().__init__(dict(init_cfg))
        if len(in_channels) < 2:
            raise ValueError(
                f'in_channels must name the branch and a transformer level, got {in_channels}'
            )
        if embedding_dim % 4 or embedding_dim % num_heads:
            raise ValueError(
                f'embedding_dim must be a multiple of 4 and of num_heads={num_heads}, '
                f'got {embedding_dim}'
            )
        self.in_channels = list(in_channels)
        self.embedding_dim = embedding_dim
        branch, *levels = self.in_channels
        blocks = dict(
            norm_cfg=dict(type='BN') if norm_cfg is None else dict(norm_cfg),
            act_cfg=dict(type='ReLU') if act_cfg is None else dict(act_cfg),
        )

        def project(channels: int, out_channels: int) -> ConvModule:
            return ConvModule(channels, out_channels, 1, **blocks)

        def fuse(channels: int) -> ConvModule:
            return ConvModule(channels + embedding_dim, channels, 3, padding=1, **blocks)

        # PyTorch's lists, not mmengine's: the convolutions take the neck's initialisation.
        self.lateral_convs = nn.ModuleList(project(c, c) for c in self.in_channels)
        self.trans_proj = nn.ModuleList(project(c, embedding_dim) for c in levels)
        self.trans_fusion = nn.ModuleList(fuse(c) for c in levels)
        self.conv_proj = nn.Sequential(project(branch, embedding_dim))
        self.conv_fusion = nn.Sequential(fuse(branch))
        self.level_embed = nn.Parameter(torch.empty(len(levels), embedding_dim))
        self.reference_points = nn.Linear(embedding_dim, 2)
        attention = dict(
            embed_dims=embedding_dim,
            num_heads=num_heads,
            num_levels=len(levels),
            num_points=num_points,
            dropout=dropout,
            batch_first=True,
        )
        self.self_attn = MultiScaleDeformableAttention(**attention)
        self.multi_att = MultiScaleDeformableAttention(**attention)
        nn.init.normal_(self.level_embed)

    def init_weights(self) -> None:
        """Initialise as published; the attentions would otherwise be left with Xavier's."""
        super().init_weights()
        nn.init.normal_(self.level_embed)
        self.self_attn.init_weights()
        self.multi_att.init_weights()

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Aggregate and interact.

        Args:
            inputs (Sequence[Tensor]): The branch ``(N, C_0, H_0, W_0)``, then the transformer
                levels ``(N, C_i, H_i, W_i)``.

        Returns:
            tuple[Tensor, ...]: Maps of the same shapes, in the same order.

        Raises:
            ValueError: If the number of maps does not fit ``in_channels``.
        """
        if len(inputs) != len(self.in_channels):
            raise ValueError(f'expected {len(self.in_channels)} maps, got {len(inputs)}')
        pyramid = zip(self.lateral_convs, inputs, strict=True)
        branch, *levels = (conv(x) for conv, x in pyramid)
        shapes = [tuple(level.shape[-2:]) for level in levels]
        spatial_shapes = torch.tensor(shapes, device=branch.device)
        areas = spatial_shapes.prod(1)
        layout = dict(spatial_shapes=spatial_shapes, level_start_index=areas.cumsum(0) - areas)
        layout['shapes'] = shapes  # for exports; MMCV's layer passes over it
        tokens = self._aggregate(levels, shapes, layout)
        outs = [self._interact(branch, tokens, layout)]
        parts = tokens.split([height * width for height, width in shapes], dim=1)
        for level, part, fuse in zip(levels, parts, self.trans_fusion, strict=True):
            outs.append(fuse(torch.cat((level, _as_map(part, level)), dim=1)))
        return tuple(outs)

    def _aggregate(
        self, levels: Sequence[Tensor], shapes: list[tuple[int, int]], layout: dict[str, Any]
    ) -> Tensor:
        """Attend around the centre of each pixel: ``(N, sum of H_i W_i, embedding_dim)``."""
        tokens = torch.cat(
            [_as_tokens(proj(x)) for proj, x in zip(self.trans_proj, levels, strict=True)], dim=1
        )
        positions = torch.cat(
            [
                sine_encoding(*shape, self.embedding_dim, tokens.device) + embed
                for shape, embed in zip(shapes, self.level_embed, strict=True)
            ]
        )
        centres = torch.cat([pixel_centres(*shape, tokens.device) for shape in shapes])
        return self.self_attn(
            tokens,
            query_pos=positions[None].to(tokens.dtype),
            reference_points=centres[None, :, None],
            **layout,
        )

    def _interact(self, branch: Tensor, tokens: Tensor, layout: dict[str, Any]) -> Tensor:
        """Let the branch attend to the tokens, and fuse: ``(N, C_0, H_0, W_0)``."""
        query = _as_tokens(self.conv_proj(branch))
        positions = sine_encoding(*branch.shape[-2:], self.embedding_dim, query.device)
        positions = positions[None].to(query.dtype)
        attended = self.multi_att(
            query,
            value=tokens,
            query_pos=positions,
            reference_points=self.reference_points(positions).sigmoid()[:, :, None],
            **layout,
        )
        return self.conv_fusion(torch.cat((_as_map(attended, branch), branch), dim=1))


def sine_encoding(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """Make DETR's sine positional encoding, not normalised: pixels count from 1.

    Args:
        height (int): Rows of the map.
        width (int): Its columns.
        channels (int): A multiple of 4; the first half encodes the row, the second the column.
        device (torch.device): Where to make it.

    Returns:
        Tensor: ``(height * width, channels)``, float32, row by row.
    """
    half = channels // 2
    period = 10000 ** (2 * (torch.arange(half, device=device) // 2) / half)

    def encode(count: int) -> Tensor:
        angle = torch.arange(1, count + 1, device=device)[:, None] / period
        return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=-1).flatten(1)

    rows = encode(height)[:, None].expand(-1, width, -1)
    columns = encode(width)[None].expand(height, -1, -1)
    return torch.cat((rows, columns), dim=-1).flatten(0, 1)


def pixel_centres(height: int, width: int, device: torch.device) -> Tensor:
    """Give the centres ``(height * width, 2)`` of all pixels, x before y, as parts of the map."""
    y = (torch.arange(height, device=device) + 0.5) / height
    x = (torch.arange(width, device=device) + 0.5) / width
    return torch.stack((x.expand(height, -1), y[:, None].expand(-1, width)), dim=-1).flatten(0, 1)


def _as_tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def _as_map(tokens: Tensor, like: Tensor) -> Tensor:
    return tokens.transpose(1, 2).unflatten(2, like.shape[-2:])

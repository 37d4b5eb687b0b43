"""Bringing the levels of a pyramid to its finest resolution, as heads do before they fuse them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import ModuleList
from torch import Tensor

from mmdysample.hosts.fpn import check_one_batch
from mmdysample.upsamplers import Interpolate, Upsampler, build_upsampler

UpsampleCfg = str | Mapping[str, Any]


def build_head_upsampler(
    cfg: UpsampleCfg,
    channels: int,
    scale_factor: int = 2,
    align_corners: bool | None = None,
    guide_channels: int | None = None,
) -> Upsampler:
    """Build an upsampler for a head; an interpolation follows the head's ``align_corners``.

    Args:
        cfg (str or dict): As for :func:`mmdysample.build_upsampler`.
        channels (int): Channels of the feature.
        scale_factor (int): Ratio of the two resolutions. Defaults to 2.
        align_corners (bool, optional): The head's option. It applies where ``cfg`` gives none and
            the mode has such an option. Defaults to None.
        guide_channels (int, optional): Channels of the guide. Defaults to ``channels``.

    Returns:
        Upsampler: The module, initialised.

    Raises:
        TypeError: If ``cfg`` has unknown keys.
        ValueError: If it names an unknown upsampler.
    """
    upsampler = build_upsampler(cfg, channels, scale_factor, guide_channels)
    if (
        isinstance(upsampler, Interpolate)
        and upsampler.mode in ('bilinear', 'bicubic')
        and upsampler.align_corners is None
    ):
        upsampler.align_corners = align_corners
    return upsampler


class PyramidUpsample(ModuleList):
    """Upsample every level of a pyramid to the size of the first, the finest.

    Level ``i`` climbs ``i`` steps of x2 with separate weights; a guided upsampler gets, at each
    step, the level that it climbs to. The modules stand in the order of the published SegFormer
    head: of four levels, three for the coarsest, then two, then one. An interpolation goes there
    in one direct resize instead, which is what the stock heads do and what the papers call
    "bilinear"; a cascade of bilinear steps is smoother than one resize.

    The list is mmengine's, so the upsamplers keep their own initialisation in any network.

    Args:
        upsample_cfg (str or dict): As for :func:`mmdysample.build_upsampler`.
        channels (int): Channels of every level.
        num_levels (int): Number of levels. Defaults to 4.
        cascade (bool, optional): Climb in steps of x2, or go in one step of
            ``x(2 ** level)``. Defaults to None: one step for an interpolation, else a cascade.
        align_corners (bool, optional): The head's option, for interpolations. Defaults to None.

    Raises:
        TypeError: If ``upsample_cfg`` has unknown keys.
        ValueError: If it names an unknown upsampler.
    """

    def __init__(
        self,
        upsample_cfg: UpsampleCfg,
        channels: int,
        num_levels: int = 4,
        cascade: bool | None = None,
        align_corners: bool | None = None,
    ) -> None:
        super().__init__()
        if cascade is None:
            probe = build_upsampler(upsample_cfg, channels)
            cascade = not isinstance(probe, Interpolate)
        self.cascade = cascade
        for level in range(num_levels - 1, 0, -1):
            scale_factor = 2 if cascade else 2**level
            self.extend(
                build_head_upsampler(upsample_cfg, channels, scale_factor, align_corners)
                for _ in self._targets(level)
            )

    def _targets(self, level: int) -> list[int]:
        """List the levels whose size ``level`` takes on its way to the finest."""
        return list(range(level - 1, -1, -1)) if self.cascade else [0]

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Upsample.

        Args:
            levels (Sequence[Tensor]): ``num_levels`` maps ``(N, C, H_i, W_i)``, finest first,
                each half the size of the one before, rounded up.

        Returns:
            list[Tensor]: As many maps ``(N, C, H_0, W_0)``, in the same order.

        Raises:
            ValueError: If the batch or the size of a level does not fit.
        """
        check_one_batch(levels)
        outs = list(levels)
        upsamplers = iter(self)
        for level in range(len(outs) - 1, 0, -1):
            for target in self._targets(level):
                guide = levels[target]
                outs[level] = next(upsamplers)(outs[level], guide=guide, size=guide.shape[-2:])
        return outs


class PyramidConcat(ModuleList):
    """Climb a pyramid from its coarsest level and concatenate every level on the way.

    Each step upsamples all that has been gathered so far, by 2, towards the next finer level, and
    puts that level, as :meth:`Upsampler.fuse` returns it, before it. So the channels grow by those
    of a level at each step. This is how FreqFusion's authors join levels (arXiv 2408.12879).

    Args:
        upsample_cfg (str or dict): As for :func:`mmdysample.build_upsampler`.
        channels (int): Channels ``C`` of every level.
        num_levels (int): Number of levels ``L``. Defaults to 4.
        align_corners (bool, optional): The head's option, for interpolations. Defaults to None.

    Raises:
        TypeError: If ``upsample_cfg`` has unknown keys.
        ValueError: If it names an unknown upsampler.
    """

    def __init__(
        self,
        upsample_cfg: UpsampleCfg,
        channels: int,
        num_levels: int = 4,
        align_corners: bool | None = None,
    ) -> None:
        super().__init__(
            build_head_upsampler(upsample_cfg, step * channels, 2, align_corners, channels)
            for step in range(1, num_levels)
        )

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Upsample and concatenate.

        Args:
            levels (Sequence[Tensor]): ``L`` maps ``(N, C, H_i, W_i)``, finest first, each half the
                size of the one before, rounded up.

        Returns:
            Tensor: ``(N, L * C, H_0, W_0)``, the finest level's channels first.

        Raises:
            ValueError: If the batch or the size of a level does not fit.
        """
        check_one_batch(levels)
        *finer, gathered = levels
        for upsampler, level in zip(self, reversed(finer), strict=True):
            raised, level = upsampler.fuse(gathered, level, level.shape[-2:])
            gathered = torch.cat((level, raised), dim=1)
        return gathered

"""The feature pyramid with a chosen upsampler, shared by the mmdet and the mmseg neck."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from mmengine.model import ModuleList
from torch import Tensor, nn

from mmdysample.upsamplers import build_upsampler


def check_one_batch(inputs: Sequence[Tensor]) -> None:
    """Raise ValueError unless all levels hold as many images; a sum would broadcast one image."""
    # Neither len() nor a set: both make a free batch of an export the number of its example.
    batches = [level.shape[0] for level in inputs]
    if any(batch != batches[0] for batch in batches):
        raise ValueError(f'the levels of inputs must have one batch size, got {batches}')


class UpsampleFPNMixin:
    """Gives a stock FPN's top-down path an upsampler; put it before the FPN class.

    ``upsample_modules[i]`` upsamples level ``i + 1`` towards level ``i``, counted from
    ``start_level``: the parameter names of the published detection checkpoints. With
    ``nearest`` or ``bilinear`` the outputs equal the stock neck's to the last bit.

    Args:
        *args: Positional arguments of the FPN.
        upsample_cfg (str or dict): An upsampler by ``type``, as for
            :func:`mmdysample.build_upsampler`, or the stock ``dict(mode=...)``.
            Defaults to ``dict(type='dysample')``.
        init_upsamplers (bool): Let the neck's ``init_cfg`` initialise the convolutions of the
            upsamplers too. The published detection numbers were trained so: the neck's Xavier
            scheme overwrites what DySample, CARAFE and SAPA draw for themselves.
            Defaults to False: each upsampler keeps its own initialisation.
        **kwargs: Keyword arguments of the FPN; all of them keep their meaning.

    Raises:
        TypeError: If ``upsample_cfg`` has unknown keys.
        ValueError: If it names an unknown upsampler.
    """

    def __init__(
        self,
        *args: Any,
        upsample_cfg: str | Mapping[str, Any] | None = None,
        init_upsamplers: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.upsample_cfg = dict(type='dysample') if upsample_cfg is None else upsample_cfg
        # The neck initialises first. Then mmengine's list lets each upsampler initialise itself
        # again; PyTorch's list has no such step, so the neck's values stay.
        list_class = nn.ModuleList if init_upsamplers else ModuleList
        self.upsample_modules = list_class(
            build_upsampler(self.upsample_cfg, in_channels=self.out_channels)
            for _ in self.lateral_convs[1:]
        )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Build the pyramid.

        Args:
            inputs (Sequence[Tensor]): One ``(N, C_i, H_i, W_i)`` map per entry of
                ``in_channels``, each level half the size of the one before, rounded up.

        Returns:
            tuple[Tensor, ...]: ``num_outs`` maps of ``out_channels`` channels.

        Raises:
            ValueError: If the number of inputs, their batch or the size of a level does not fit.
        """
        laterals = self._laterals(inputs)
        merged = self._top_down(laterals)
        used_convs = self.fpn_convs[: len(merged)]
        levels = [conv(level) for conv, level in zip(used_convs, merged, strict=True)]
        outs = self.bottom_up(levels, merged, laterals)
        outs.extend(self._extra_levels(inputs[self.backbone_end_level - 1], merged[-1], outs[-1]))
        return tuple(outs)

    def bottom_up(
        self, levels: list[Tensor], merged: Sequence[Tensor], laterals: Sequence[Tensor]
    ) -> list[Tensor]:
        """Give the finished levels; a neck with a second path, from fine to coarse, overrides this.

        Args:
            levels (list[Tensor]): What the output convolutions made of ``merged``.
            merged (Sequence[Tensor]): What the top-down path made of ``laterals``.
            laterals (Sequence[Tensor]): The inputs at the neck's width. All are finest first.

        Returns:
            list[Tensor]: As many maps of the same shapes.
        """
        return levels

    def _laterals(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Check the input and bring its levels to the neck's width."""
        if len(inputs) != len(self.in_channels):
            raise ValueError(f'expected {len(self.in_channels)} inputs, got {len(inputs)}')
        check_one_batch(inputs)
        levels = inputs[self.start_level : self.backbone_end_level]
        return [conv(level) for conv, level in zip(self.lateral_convs, levels, strict=True)]

    def _top_down(self, laterals: Sequence[Tensor]) -> list[Tensor]:
        """Add to each level what comes from the coarser ones."""
        merged = [laterals[-1]]
        finer_levels = zip(laterals[:-1], self.upsample_modules, strict=True)
        for finer, upsample in reversed(list(finer_levels)):
            merged.insert(0, finer + upsample(merged[0], guide=finer, size=finer.shape[-2:]))
        return merged

    def _extra_levels(
        self, on_input: Tensor, on_lateral: Tensor, on_output: Tensor
    ) -> list[Tensor]:
        """Make the levels above the backbone's, pooled (Faster R-CNN) or convolved (RetinaNet)."""
        extra_count = self.num_outs - len(self.lateral_convs)
        if not self.add_extra_convs:
            # A pool of size 1 only subsamples, so each level can be taken from the last one.
            return [F.max_pool2d(on_output, 1, stride=2**k) for k in range(1, extra_count + 1)]
        sources = dict(on_input=on_input, on_lateral=on_lateral, on_output=on_output)
        extra: list[Tensor] = []
        for conv in self.fpn_convs[len(self.lateral_convs) :]:
            if not extra:
                extra.append(conv(sources[self.add_extra_convs]))
            else:
                extra.append(conv(F.relu(extra[-1]) if self.relu_before_extra_convs else extra[-1]))
        return extra

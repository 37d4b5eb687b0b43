"""DySample's point sampling as lookups and arithmetic, for runtimes without ``GridSample``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdysample.ops.dysample.eager import sampling_positions
from mmdysample.ops.dysample.spec import SamplingSpec


def sample_gather(
    x: Tensor,
    offset: Tensor,
    scope: Tensor | None,
    spec: SamplingSpec,
    size: tuple[int, int],
) -> Tensor:
    """Sample with four lookups of rows; arguments as in :func:`mmdysample.ops.dysample`.

    With its channels last, the map is a table with a row of ``C / G`` channels for each pixel and
    group. An exporter turns a lookup of rows into ONNX's ``Gather`` on the first axis, whose
    indices are ``C / G`` times fewer than those of ``GatherElements``.
    """
    n, channels, height, width = x.shape
    groups = spec.groups
    px, py = sampling_positions(x, offset, scope, spec, size)
    left, right, right_weight = neighbours(px, width)
    top, bottom, bottom_weight = neighbours(py, height)
    table = x.to(px.dtype).permute(0, 2, 3, 1).reshape(-1, channels // groups)
    image = torch.arange(n, device=x.device).view(-1, 1, 1, 1)
    group = torch.arange(groups, device=x.device)

    def read(row: Tensor, column: Tensor) -> Tensor:
        pixel = (image * height + row) * width + column
        return F.embedding(pixel * groups + group, table)

    upper = torch.lerp(read(top, left), read(top, right), right_weight)
    lower = torch.lerp(read(bottom, left), read(bottom, right), right_weight)
    sampled = torch.lerp(upper, lower, bottom_weight)
    return sampled.flatten(3).permute(0, 3, 1, 2).to(x.dtype)


def neighbours(position: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two pixels around each position on one axis, and the weight of the second.

    Indices are ``(N, h', w', G)``, the weight has a last axis of one more. The indices are clamped
    as integers, so that a NaN position, whose pixel has no meaning, still reads inside the map.
    """
    position = position.clamp(min=0).clamp(max=length - 1).permute(0, 2, 3, 1)
    lower = position.floor()
    weight = (position - lower)[..., None]
    first = lower.to(torch.int64).clamp(min=0).clamp(max=length - 1)
    return first, (first + 1).clamp(max=length - 1), weight

"""Forms that layers take while an exporter looks at them; the weights stay where they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mmdysample.export.errors import ExportError
from mmdysample.upsamplers import DySample

SAMPLINGS = {'gridsample': 'torch', 'gather': 'gather'}
"""Forms of DySample's sampling, and the backend of :func:`mmdysample.ops.dysample` for each."""


@contextmanager
def export_form(model: nn.Module, sampling: str, free: bool) -> Iterator[None]:
    """Let a model take the form that exporters follow; afterwards it is what it was.

    Args:
        model (nn.Module): The model.
        sampling (str): DySample's form, a key of :data:`SAMPLINGS`.
        free (bool): Replace layers that freeze sizes: adaptive pooling to more than one pixel and
            deformable attention.
    """
    samplers = [module for module in model.modules() if isinstance(module, DySample)]
    backends = {module: module.backend for module in samplers}
    replaced = {}
    for name, module in model.named_modules() if free else ():
        form = _free_form(module)
        if form is not None:
            replaced[name] = (module, form)
    for module in samplers:
        module.backend = SAMPLINGS[sampling]
    for name, (_, form) in replaced.items():
        model.set_submodule(name, form)
    try:
        yield
    finally:
        for module, backend in backends.items():
            module.backend = backend
        for name, (module, _) in replaced.items():
            model.set_submodule(name, module)


def _free_form(module: nn.Module) -> nn.Module | None:
    """What computes the same as a layer without freezing sizes; None for layers that do not."""
    if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size not in (1, (1, 1)):
        return FreePool(module.output_size)
    if type(module).__name__ == 'MultiScaleDeformableAttention':
        return FreeAttention(module)
    return None


class FreePool(nn.Module):
    """Adaptive average pooling as two products of matrices, made from the size of the input.

    Args:
        output_size (int or tuple[int, int]): As of :class:`torch.nn.AdaptiveAvgPool2d`.
    """

    def __init__(self, output_size: int | tuple[int, int]) -> None:
        super().__init__()
        pair = (output_size, output_size) if isinstance(output_size, int) else output_size
        self.output_size = tuple(pair)

    def forward(self, x: Tensor) -> Tensor:
        """Pool ``(N, C, H, W)`` to ``(N, C, *output_size)``."""
        rows, columns = (
            _averages(length, count, x)
            for length, count in zip(x.shape[-2:], self.output_size, strict=True)
        )
        return rows @ x @ columns.T


def _averages(length: int, count: int, like: Tensor) -> Tensor:
    """Weights ``(count, length)``: cell i averages what [i, i + 1) * length / count touches."""
    pixel = torch.arange(length, device=like.device)
    cell = torch.arange(count, device=like.device)[:, None]
    inside = ((pixel + 1) * count > cell * length) & (pixel * count < (cell + 1) * length)
    weights = inside.to(like.dtype)
    return weights / weights.sum(1, keepdim=True)


class FreeAttention(nn.Module):
    """MMCV's deformable attention with the sizes of the levels as numbers instead of a tensor.

    A size that is read from a tensor is a constant to an exporter. The host hands the numbers
    over as ``shapes``.

    Args:
        attention (nn.Module): The ``mmcv.ops.MultiScaleDeformableAttention`` that it stands for.
    """

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(
        self,
        query: Tensor,
        value: Tensor | None = None,
        query_pos: Tensor | None = None,
        reference_points: Tensor | None = None,
        shapes: list[tuple[int, int]] | None = None,
        **_: Any,
    ) -> Tensor:
        """Attend; arguments as MMCV's, and the ``(height, width)`` of every level as ``shapes``."""
        from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

        layer = self.attention
        if shapes is None or not layer.batch_first or reference_points.shape[-1] != 2:
            raise ExportError(
                'deformable attention can be exported with free sizes where its host names the '
                'shapes of the levels, batch first and with points as references; export with '
                'fixed sizes'
            )
        identity, value = query, query if value is None else value
        query = query if query_pos is None else query + query_pos
        per_point = (layer.num_heads, layer.num_levels, layer.num_points)
        value = layer.value_proj(value).unflatten(-1, (layer.num_heads, -1))
        offsets = layer.sampling_offsets(query).unflatten(-1, (*per_point, 2))
        weights = layer.attention_weights(query).unflatten(-1, (layer.num_heads, -1)).softmax(-1)
        steps = [
            torch.stack((step[..., 0] / width, step[..., 1] / height), -1)
            for step, (height, width) in zip(offsets.unbind(3), shapes, strict=True)
        ]
        locations = reference_points[:, :, None, :, None] + torch.stack(steps, 3)
        attended = multi_scale_deformable_attn_pytorch(
            value, shapes, locations, weights.unflatten(-1, per_point[1:])
        )
        return layer.dropout(layer.output_proj(attended)) + identity

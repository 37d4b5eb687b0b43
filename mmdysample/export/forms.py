"""Forms that layers take while an exporter looks at them; the weights stay where they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdysample.export.errors import ExportError
from mmdysample.ops.layers import average_cells
from mmdysample.upsamplers import DySample

SAMPLINGS = {'gridsample': 'torch', 'gather': 'gather'}
"""Forms of DySample's sampling, and the backend of :func:`mmdysample.ops.dysample` for each."""


@contextmanager
def export_form(model: nn.Module, sampling: str, free: bool) -> Iterator[None]:
    """Let a model take the form that exporters follow; afterwards it is what it was.

    Args:
        model (nn.Module): The model.
        sampling (str): DySample's form, a key of :data:`SAMPLINGS`.
        free (bool): Replace layers that freeze sizes: adaptive pooling to more than one pixel,
            deformable attention, and what a Swin Transformer pads.
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
    """Make the form of a layer that freezes no sizes; None for layers that need none."""
    if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size not in (1, (1, 1)):
        return FreePool(module.output_size)
    # MMDetection and MMSegmentation each have layers of these names, and they are the same.
    forms = dict(
        MultiScaleDeformableAttention=FreeAttention,
        ShiftWindowMSA=FreeWindows,
        AdaptivePadding=FreePadding,
    )
    form = forms.get(type(module).__name__)
    return form and form(module)


class FreePool(nn.Module):
    """Adaptive average pooling as :func:`mmdysample.ops.layers.average_cells`.

    Args:
        output_size (int or tuple[int, int]): As of :class:`torch.nn.AdaptiveAvgPool2d`.
    """

    def __init__(self, output_size: int | tuple[int, int]) -> None:
        super().__init__()
        pair = (output_size, output_size) if isinstance(output_size, int) else output_size
        self.output_size = tuple(pair)

    def forward(self, x: Tensor) -> Tensor:
        """Pool ``(N, C, H, W)`` to ``(N, C, *output_size)``."""
        return average_cells(x, self.output_size)


class FreeAttention(nn.Module):
    """MMCV's deformable attention with the sizes of the levels as numbers instead of a tensor.

    A size that is read from a tensor is a constant to an exporter. The neck around it
    hands the numbers over as ``shapes``.

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
                'deformable attention can be exported with free sizes where the neck names the '
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


class FreePadding(nn.Module):
    """The frameworks' ``AdaptivePadding`` without a branch for images that need none.

    Args:
        layer (nn.Module): The layer that it stands for, of a stride up to its kernel's side.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Pad ``(N, C, H, W)`` until the kernel reaches every pixel."""
        layer = self.layer
        pads = []
        steps = zip(x.shape[:1:-1], layer.kernel_size[::-1], layer.stride[::-1], strict=True)
        for (length, kernel, stride), dilation in zip(steps, layer.dilation[::-1], strict=True):
            last = (length + stride - 1) // stride - 1
            pad = last * stride + (kernel - 1) * dilation + 1 - length
            before = pad // 2 if layer.padding == 'same' else 0
            pads += [before, pad - before]
        return F.pad(x, pads)


class FreeWindows(nn.Module):
    """Swin's ``ShiftWindowMSA``, whose sizes are written so that exporters can simplify them.

    The original pads by ``(-H) % 7`` and divides the padded size by 7; nested over the stages, such
    terms keep an exporter busy for many minutes. Here the number of windows comes first.

    Args:
        layer (nn.Module): The layer that it stands for.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, query: Tensor, hw_shape: tuple[int, int]) -> Tensor:
        """Attend within windows; arguments as the layer's, ``(N, H * W, C)`` and ``(H, W)``."""
        layer = self.layer
        side, shift = layer.window_size, layer.shift_size
        height, width = hw_shape
        rows, columns = (height + side - 1) // side, (width + side - 1) // side
        x = query.unflatten(1, (height, width))
        x = F.pad(x, (0, 0, 0, columns * side - width, 0, rows * side - height))
        mask = None
        if shift:
            x = x.roll((-shift, -shift), (1, 2))
            region = 3 * _band(rows * side, layer, x)[:, None] + _band(columns * side, layer, x)
            region = self._split(region[None, ..., None], rows, columns).squeeze(-1)
            mask = -100.0 * (region[:, None] != region[:, :, None]).to(x.dtype)
        x = layer.w_msa(self._split(x, rows, columns), mask=mask)
        x = x.unflatten(0, (-1, rows, columns)).unflatten(3, (side, side))
        x = x.transpose(2, 3).flatten(3, 4).flatten(1, 2)
        if shift:
            x = x.roll((shift, shift), (1, 2))
        return layer.drop(x[:, :height, :width].flatten(1, 2))

    def _split(self, x: Tensor, rows: int, columns: int) -> Tensor:
        """Cut ``(N, H, W, C)`` into windows ``(N * rows * columns, side ** 2, C)``."""
        side = self.layer.window_size
        x = x.unflatten(2, (columns, side)).unflatten(1, (rows, side))
        return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def _band(length: int, layer: nn.Module, like: Tensor) -> Tensor:
    """Number the bands of a rolled map, 0 to 2 for each row; only those of one are neighbours."""
    row = torch.arange(length, device=like.device)
    seams = (length - layer.window_size, length - layer.shift_size)
    return sum((row >= seam).to(torch.int64) for seam in seams)

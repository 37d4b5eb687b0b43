"""The models of the published tables, with any upsampler, and the cost of both."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmdysample.upsamplers import Upsampler

PROPOSALS = 1000
"""Proposals that the second stage of a detector sees; its masks see the first hundred."""

FREE_OPS = (
    *('aten::add', 'aten::add_', 'aten::sub', 'aten::sum'),
    *('aten::batch_norm', 'aten::group_norm', 'aten::layer_norm'),
    *('aten::adaptive_avg_pool2d', 'aten::max_pool2d', 'aten::upsample_nearest2d'),
    *('aten::gelu', 'aten::sigmoid', 'aten::softmax', 'aten::feature_dropout'),
    *('aten::linspace', 'aten::unflatten'),
)
"""Operators without products of their own, by the convention of :meth:`Upsampler.macs`.

Normalisation counts as folded into the convolution before it.
"""


@dataclass(frozen=True)
class Host:
    """A model of a published table.

    Args:
        name (str): What to call it.
        package (str): The package whose config it is, ``'mmdet'`` or ``'mmseg'``.
        config (str): That config, below the package's ``configs``.
        part (str): Key of the part that upsamples, in the config's ``model``.
        type (str): Class of ours that replaces that part.
        size (tuple[int, int]): Height and width of the image that is counted.
        table (str): Its table among the published ones.
        baseline (str): The upsampler of the stock model.
    """

    name: str
    package: str
    config: str
    part: str
    type: str
    size: tuple[int, int]
    table: str
    baseline: str


HOSTS = (
    Host(
        name='SegFormer-B1',
        package='mmseg',
        config='segformer/segformer_mit-b1_8xb2-160k_ade20k-512x512.py',
        part='decode_head',
        type='UpsampleSegformerHead',
        size=(512, 512),
        table='semantic_segmentation_segformer_b1_ade20k',
        baseline='bilinear',
    ),
    Host(
        name='UPerNet-R50',
        package='mmseg',
        config='upernet/upernet_r50_4xb4-80k_ade20k-512x512.py',
        part='decode_head',
        type='UpsampleUPerHead',
        size=(512, 512),
        table='semantic_segmentation_upernet_r50_ade20k',
        baseline='bilinear',
    ),
    *(
        Host(
            name=name,
            package='mmdet',
            config=config,
            part='neck',
            type='UpsampleFPN',
            size=(800, 1344),
            table=table,
            baseline='nearest',
        )
        for name, config, table in (
            (
                'Faster-R-CNN-R50',
                'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
                'object_detection_faster_rcnn_coco',
            ),
            (
                'Mask-R-CNN-R50',
                'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
                'instance_segmentation_mask_rcnn_coco',
            ),
            (
                'Panoptic-FPN-R50',
                'panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py',
                'panoptic_segmentation_panoptic_fpn_coco',
            ),
        )
    ),
)


@dataclass(frozen=True)
class HostCost:
    """What a model costs with one upsampler.

    Args:
        upsampler (str): Type name.
        params (int): Parameters of the whole model.
        macs (int): Multiply-accumulates of the whole model for one image.
        count (int): Number of upsamplers in it.
        upsampler_params (int): Parameters of all its upsamplers.
        upsampler_weights (int): Those of them that are convolution weights.
        upsampler_macs (int): Multiply-accumulates of all its upsamplers.
    """

    upsampler: str
    params: int
    macs: int
    count: int
    upsampler_params: int
    upsampler_weights: int
    upsampler_macs: int


def available_hosts() -> list[Host]:
    """The models whose package is installed, with fvcore to count them."""
    if any(find_spec(package) is None for package in ('fvcore', 'mmcv', 'mmengine')):
        return []
    return [host for host in HOSTS if find_spec(host.package) is not None]


def build_host(host: Host, upsampler: str) -> nn.Module:
    """Build a model of the tables with random weights.

    Args:
        host (Host): The model.
        upsampler (str): Type name of its upsampler.

    Returns:
        nn.Module: The whole detector or segmentor, in evaluation mode.
    """
    from mmengine.config import Config
    from mmengine.registry import MODELS, DefaultScope

    package = Path(importlib.import_module(host.package).__file__).parent
    model = Config.fromfile(package / '.mim' / 'configs' / host.config).model
    model[host.part].update(type=host.type, upsample_cfg=dict(type=upsampler))
    with DefaultScope.overwrite_default_scope(host.package):
        return MODELS.build(model).eval()


def count_parameters(modules: Sequence[nn.Module], weights_only: bool = False) -> int:
    """Count parameters, frozen ones too.

    Args:
        modules (Sequence[nn.Module]): The modules to sum over.
        weights_only (bool): Leave out biases, and scales and shifts of normalisation layers.
            Defaults to False.

    Returns:
        int: Their number.
    """
    parameters = (parameter for module in modules for parameter in module.parameters())
    return sum(p.numel() for p in parameters if p.dim() > 1 or not weights_only)


def count_rest(host: Host) -> tuple[int, Counter[str]]:
    """Count a model without its upsamplers, with fvcore.

    Args:
        host (Host): The model.

    Returns:
        tuple[int, Counter[str]]: Multiply-accumulates, and how often operators occurred that
        nobody counts.
    """
    from fvcore.nn import FlopCountAnalysis

    model = build_host(host, host.baseline)
    _stand_in(model, host)
    analysis = FlopCountAnalysis(_Forward(model), torch.zeros(1, 3, *host.size))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.set_op_handle(**dict.fromkeys(FREE_OPS, _count_nothing))
    analysis.set_op_handle(**{f'aten::{op}': _count_product for op in ('mul', 'mul_', 'div')})
    return int(analysis.total()), analysis.unsupported_ops()


def count_host(host: Host, upsampler: str, rest: int) -> HostCost:
    """Count a model with one upsampler.

    Args:
        host (Host): The model.
        upsampler (str): Type name.
        rest (int): What :func:`count_rest` found; no upsampler changes it.

    Returns:
        HostCost: Parameters and multiply-accumulates.
    """
    model = build_host(host, upsampler)
    upsamplers = _upsamplers(model, host)
    params = dict(
        params=count_parameters([model]),
        upsampler_params=count_parameters(upsamplers),
        upsampler_weights=count_parameters(upsamplers, weights_only=True),
    )
    calls = _stand_in(model, host)
    # Shapes are all that the upsamplers' counts need, so nothing is computed.
    model.to('meta')
    features = model.extract_feat(torch.empty(1, 3, *host.size, device='meta'))
    if hasattr(model, 'decode_head'):
        model.decode_head(features)
    return HostCost(
        upsampler=upsampler,
        macs=rest + sum(calls),
        count=len(upsamplers),
        upsampler_macs=sum(calls),
        **params,
    )


class _Forward(nn.Module):
    """Everything that a model computes before it decodes or suppresses its predictions."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> list[Any]:
        features = self.model.extract_feat(image)
        if hasattr(self.model, 'decode_head'):
            return [self.model.decode_head(features)]
        from mmengine.structures import InstanceData

        outs = [self.model.rpn_head(features)]
        if hasattr(self.model, 'semantic_head'):
            outs.append(self.model.semantic_head(features))
        boxes = image.new_tensor([[0, 0, 64, 64]]).expand(PROPOSALS, 4)
        outs.append(self.model.roi_head(features, [InstanceData(bboxes=boxes)]))
        return outs


def _upsamplers(model: nn.Module, host: Host) -> list[Upsampler]:
    return list(getattr(model, host.part).upsample_modules)


def _stand_in(model: nn.Module, host: Host) -> list[int]:
    """Let every upsampler count its calls into the returned list instead of computing."""
    calls: list[int] = []

    def stand_in(upsampler: Upsampler) -> Any:
        def forward(x: Tensor, guide: Tensor | None = None, size: Any = None) -> Tensor:
            height, width = x.shape[-2:]
            calls.append(upsampler.macs(int(height), int(width)))
            if size is None:
                size = (height * upsampler.scale_factor, width * upsampler.scale_factor)
            return x.new_zeros((*x.shape[:2], *size))

        return forward

    for upsampler in _upsamplers(model, host):
        upsampler.forward = stand_in(upsampler)
    return calls


def _count_nothing(inputs: list[Any], outputs: list[Any]) -> int:
    """Overrule fvcore, which counts some of the free operators."""
    return 0


def _count_product(inputs: list[Any], outputs: list[Any]) -> int:
    """Count a product or quotient of two maps; constants are folded into other operations."""
    from fvcore.nn.jit_handles import get_shape, prod

    return int(prod(get_shape(outputs[0]))) if all(get_shape(x) for x in inputs[:2]) else 0

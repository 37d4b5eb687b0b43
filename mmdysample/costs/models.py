"""The networks of the published tables, with any upsampler, and the cost of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmdysample.engine.macs import macs_counted
from mmdysample.upsamplers import Upsampler

PROPOSALS = 1000
"""Proposals that the second stage of a detector sees; its masks see the first hundred."""

FVCORE_OPS = ('conv', 'linear', 'matmul', 'bmm', 'addmm', 'einsum', 'upsample_bilinear2d')
"""What counts of fvcore's operators; normalisation is folded into the convolution before it."""


@dataclass(frozen=True)
class Network:
    """A network of a published table."""

    name: str
    package: str  # whose config it is, 'mmdet' or 'mmseg'
    config: str  # below the package's configs
    part: str  # that upsamples: its key in the config's model
    type: str  # the class of this package that replaces it
    size: tuple[int, int]  # height and width of the image that is counted
    table: str  # among the published ones
    baseline: str  # the upsampler of the stock network
    options: Mapping[str, dict[str, Any]] = field(default_factory=dict)  # of `type`, by upsampler


_SEGMENTOR = dict(package='mmseg', part='decode_head', size=(512, 512), baseline='bilinear')
_DETECTOR = dict(package='mmdet', part='neck', type='UpsampleFPN', size=(800, 1344))
NETWORKS = (
    Network(
        name='SegFormer-B1',
        config='segformer/segformer_mit-b1_8xb2-160k_ade20k-512x512.py',
        type='UpsampleSegformerHead',
        table='semantic_segmentation_segformer_b1_ade20k',
        options=dict(freqfusion=dict(stepwise=True)),
        **_SEGMENTOR,
    ),
    Network(
        name='UPerNet-R50',
        config='upernet/upernet_r50_4xb4-80k_ade20k-512x512.py',
        type='UpsampleUPerHead',
        table='semantic_segmentation_upernet_r50_ade20k',
        **_SEGMENTOR,
    ),
    *(
        Network(name=name, config=config, table=table, baseline='nearest', **_DETECTOR)
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
class NetworkCost:
    """What a network costs with one upsampler."""

    upsampler: str  # its type
    params: int  # of the whole network, like the next
    macs: int  # multiply-accumulates for one image
    count: int  # how many upsamplers there are
    upsampler_params: int  # of all upsamplers, like the rest
    upsampler_weights: int  # those of them that are convolution weights
    upsampler_macs: int


def available_networks() -> list[Network]:
    """List the networks whose package is installed."""
    if any(find_spec(package) is None for package in ('mmcv', 'mmengine')):
        return []
    return [network for network in NETWORKS if find_spec(network.package) is not None]


def build_network(network: Network, upsampler: str) -> nn.Module:
    """Build a network of the tables with random weights.

    Args:
        network (Network): The network.
        upsampler (str): Type name of its upsampler.

    Returns:
        nn.Module: The whole detector or segmentor, in evaluation mode.
    """
    from mmengine.hub import get_config

    from mmdysample.engine.build import build_model

    cfg = get_config(f'{network.package}::{network.config}')
    options = network.options.get(upsampler, {})
    cfg.model[network.part].update(type=network.type, upsample_cfg=dict(type=upsampler), **options)
    return build_model(cfg)


def count_parameters(modules: Sequence[nn.Module], weights_only: bool = False) -> int:
    """Count parameters, frozen ones too.

    With ``weights_only``, biases and the scales and shifts of normalisation layers are left out.
    """
    parameters = (parameter for module in modules for parameter in module.parameters())
    return sum(p.numel() for p in parameters if p.dim() > 1 or not weights_only)


def count_network(network: Network, upsampler: str) -> NetworkCost:
    """Count a network with one upsampler.

    PyTorch's counter runs on tensors without data, so nothing is computed. The upsamplers count
    themselves, because that counter sees neither a reassembly nor a custom operator.

    Args:
        network (Network): The network.
        upsampler (str): Type name.

    Returns:
        NetworkCost: Parameters and multiply-accumulates.
    """
    model = build_network(network, upsampler)
    upsamplers = _upsamplers(model, network)
    counter = FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.upsample_bilinear2d: _bilinear_flops}
    )
    with macs_counted(upsamplers, compute=False) as calls, counter, torch.no_grad():
        _Forward(model.to('meta'))(torch.empty(1, 3, *network.size, device='meta'))
    return NetworkCost(
        upsampler=upsampler,
        params=count_parameters([model]),
        macs=counter.get_total_flops() // 2 + sum(calls),
        count=len(upsamplers),
        upsampler_params=count_parameters(upsamplers),
        upsampler_weights=count_parameters(upsamplers, weights_only=True),
        upsampler_macs=sum(calls),
    )


def count_with_fvcore(network: Network) -> int:
    """Count a network without its upsamplers by fvcore, in multiply-accumulates: a second opinion.

    It runs the network on the CPU and counts the operators in :data:`FVCORE_OPS`.
    """
    from fvcore.nn import FlopCountAnalysis

    model = build_network(network, network.baseline)
    analysis = FlopCountAnalysis(_Forward(model), torch.zeros(1, 3, *network.size))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with macs_counted(_upsamplers(model, network), compute=False):
        counts = analysis.by_operator()
    return int(sum(counts[operator] for operator in FVCORE_OPS))


class _Forward(nn.Module):
    """Everything that a network computes before it decodes or suppresses its predictions."""

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
        if image.is_meta:
            _stand_in_pooling(self.model.roi_head)
        boxes = image.new_tensor([[0, 0, 64, 64]]).expand(PROPOSALS, 4)
        outs.append(self.model.roi_head(features, [InstanceData(bboxes=boxes)]))
        return outs


def _upsamplers(model: nn.Module, network: Network) -> list[Upsampler]:
    return list(getattr(model, network.part).upsample_modules)


def _stand_in_pooling(roi_head: nn.Module) -> None:
    """Replace RoIAlign, which cannot run without data. Its taps are in no published count."""
    for name in ('bbox_roi_extractor', 'mask_roi_extractor'):
        extractor = getattr(roi_head, name, None)
        if extractor is not None:

            def forward(features: Any, rois: Tensor, *_: Any, extractor: Any = extractor) -> Tensor:
                size = extractor.roi_layers[0].output_size
                return rois.new_zeros((len(rois), extractor.out_channels, *size))

            extractor.forward = forward


def _bilinear_flops(*args: Any, out_shape: Sequence[int], **kwargs: Any) -> int:
    """Count four taps, each one product and one sum, for every value of the result."""
    return 2 * 4 * torch.Size(out_shape).numel()

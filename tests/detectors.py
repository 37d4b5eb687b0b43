"""The detectors of configs made cheap, random batches for them, and a step of training."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from mmdet.testing import demo_mm_inputs
from mmengine.config import Config, ConfigDict
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from torch import nn


@cache
def read(path: Path) -> Config:
    """Read a config, once: nobody may change it."""
    return Config.fromfile(path)


def shrink(model: ConfigDict) -> None:
    """Make a model cheap: a ResNet-18, thin box heads, few proposals, queries and layers."""
    model.backbone.init_cfg = None
    model.data_preprocessor.batch_augments = None
    if model.backbone.type == 'ResNet' and model.backbone.depth != 18:
        model.backbone.depth = 18
        if 'neck' in model:
            model.neck.in_channels = [64, 128, 256, 512]
    if model.type == 'Mask2Former':
        head = model.panoptic_head
        head.update(in_channels=[64, 128, 256, 512], num_queries=8)
        head.pixel_decoder.encoder.num_layers = 1
        head.transformer_decoder.num_layers = 1
        model.train_cfg.num_points = 64
    if 'roi_head' in model:
        heads = model.roi_head.bbox_head
        for head in heads if isinstance(heads, list) else [heads]:
            head.fc_out_channels = 16
        stages = model.train_cfg.rcnn
        for stage in stages if isinstance(stages, list) else [stages]:
            stage.sampler.num = 8
        model.train_cfg.rpn_proposal.max_per_img = 16
        model.test_cfg.rpn.max_per_img = 16
        model.test_cfg.rcnn.max_per_img = 8


def build(path: Path) -> nn.Module:
    """The detector of a config, made cheap."""
    model = deepcopy(read(path).model)
    shrink(model)
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(model)


def things_of(cfg: ConfigDict) -> int:
    """How many classes of objects a model knows."""
    head = cfg.get('panoptic_head') or cfg.get('semantic_head')
    if head:
        return head.num_things_classes
    head = cfg.roi_head.bbox_head if 'roi_head' in cfg else cfg.bbox_head
    return (head[0] if isinstance(head, list) else head).num_classes


def batch(path: Path, objects: list[int]) -> dict[str, Any]:
    """Noise images, one per entry, with that many random objects of the config's classes."""
    cfg = read(path).model
    panoptic = 'panoptic' in str(path)
    data = demo_mm_inputs(
        batch_size=len(objects),
        image_shapes=[(3, 64, 96)] * len(objects),
        num_items=objects,
        num_classes=max(things_of(cfg), 2),
        with_mask='rtmdet_' not in path.stem,  # it takes masks for RTMDet-Ins
        with_semantic=panoptic,
        use_box_type=True,
    )
    for sample in data['data_samples']:
        sample.gt_instances.labels.clamp_(max=things_of(cfg) - 1)
    return data


def train_step(path: Path, model: nn.Module, objects: list[int]) -> None:
    """One step of the config's optimizer; the gradients are left in place."""
    model.train()
    optimizer = build_optim_wrapper(model, deepcopy(read(path).optim_wrapper))
    data = model.data_preprocessor(batch(path, objects), training=True)
    loss, logged = model.parse_losses(model(**data, mode='loss'))
    optimizer.backward(loss)
    optimizer.step()
    assert all(value.isfinite() for value in logged.values()), logged

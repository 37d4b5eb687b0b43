"""Configs beyond the published tables: heads, other hosts and complete examples, built and run."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip('mmdet')

from mmdet.testing import demo_mm_inputs
from mmengine.config import Config, ConfigDict
from mmengine.optim import build_optim_wrapper
from mmengine.registry import METRICS, MODELS, DefaultScope
from torch import nn

from mmdysample import Upsampler
from mmdysample.upsamplers.carafe import CARAFE

CONFIGS = Path(__file__).parents[1] / 'configs'
#: Learned upsamplers by the config's folder and name, without the schedule and the data.
UPSAMPLERS = {
    'bccd/faster-rcnn_mobilenet-v2_fpn-carafe': 3,
    'bccd/faster-rcnn_mobilenet-v2_fpn-dysample': 3,
    'bccd/faster-rcnn_mobilenet-v2_fpn-dysample-plus': 3,
    'bccd/faster-rcnn_mobilenet-v2_fpn-nearest': 0,
    'bccd/faster-rcnn_r18_fpn': 0,
    'bccd/faster-rcnn_r18_fpn-dysample': 3,
    'cascade_mask_rcnn/cascade-mask-rcnn_r50_fpn-dysample': 3,
    'cascade_mask_rcnn/cascade-mask-rcnn_r50_fpn-dysample_mask-head-dysample': 6,
    'coco_sample/panoptic-fpn_r18_fpn-dysample_overfit': 9,
    'heads/mask-rcnn_r50_fpn-dysample_mask-head-dysample': 4,
    'heads/panoptic-fpn_r50_fpn-dysample_semantic-head-dysample': 9,
    'mask2former/mask2former_r50_dysample_8xb2-lsj-50e_coco': 1,
    'mask2former/mask2former_r50_dysample_8xb2-lsj-50e_coco-panoptic': 1,
    'nuclei/mask-rcnn_mobilenet-v2_fpn-carafe': 3,
    'nuclei/mask-rcnn_mobilenet-v2_fpn-dysample': 3,
    'nuclei/mask-rcnn_mobilenet-v2_fpn-dysample-plus': 3,
    'nuclei/mask-rcnn_mobilenet-v2_fpn-nearest': 0,
    'nuclei/mask-rcnn_r18_fpn': 0,
    'nuclei/mask-rcnn_r18_fpn-dysample': 3,
    'nuclei/mask-rcnn_r18_fpn-dysample-plus': 3,
    'nuclei/mask-rcnn_r18_fpn-dysample_mask-head-dysample': 4,
    'rtmdet/rtmdet-ins_tiny_dysample': 2,
    'rtmdet/rtmdet_tiny_dysample': 2,
    'scenes/faster-rcnn_r18_fpn': 0,
    'scenes/faster-rcnn_r18_fpn-dysample': 3,
    'scenes/panoptic-fpn_r18_fpn': 0,
    'scenes/panoptic-fpn_r18_fpn-dysample': 3,
    'yolox/yolox_s_dysample': 2,
}
SCHEDULES = (
    '_1x_coco',
    '_12e_bccd',
    '_12e_nuclei',
    '_coco-sample',
    '_12e_scenes',
    '_8xb32-300e_coco',
    '_8xb8-300e_coco',
)
PATHS = [
    path
    for folder in sorted({name.split('/')[0] for name in UPSAMPLERS})
    for path in sorted((CONFIGS / folder).glob('*.py'))
    if not path.stem.startswith(('segformer', 'depthformer'))
]


def row(path: Path) -> str:
    """Folder and name without the ending that tells schedule and data."""
    name = f'{path.parent.name}/{path.stem}'
    for ending in SCHEDULES:
        name = name if name in UPSAMPLERS else name.removesuffix(ending)
    return name


each_config = pytest.mark.parametrize('path', PATHS, ids=row)


def shrink(model: ConfigDict) -> None:
    """Make a model cheap: a ResNet-18, thin box heads, few proposals, queries and layers."""
    model.backbone.init_cfg = None
    model.data_preprocessor.batch_augments = None
    if model.backbone.type == 'ResNet':
        model.backbone.depth = 18
    if model.type == 'Mask2Former':
        head = model.panoptic_head
        head.update(in_channels=[64, 128, 256, 512], num_queries=8)
        head.pixel_decoder.encoder.num_layers = 1
        head.transformer_decoder.num_layers = 1
        model.train_cfg.num_points = 64
    if 'roi_head' in model:
        if model.backbone.type == 'ResNet':
            model.neck.in_channels = [64, 128, 256, 512]
        heads = model.roi_head.bbox_head
        for head in heads if isinstance(heads, list) else [heads]:
            head.fc_out_channels = 16
        stages = model.train_cfg.rcnn
        for stage in stages if isinstance(stages, list) else [stages]:
            stage.sampler.num = 8
        model.train_cfg.rpn_proposal.max_per_img = 16
        model.test_cfg.rpn.max_per_img = 16


def build(path: Path) -> nn.Module:
    cfg = Config.fromfile(path)
    shrink(cfg.model)
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(cfg.model)


def things_of(cfg: ConfigDict) -> int:
    head = cfg.get('panoptic_head') or cfg.get('semantic_head')
    if head:
        return head.num_things_classes
    head = cfg.roi_head.bbox_head if 'roi_head' in cfg else cfg.bbox_head
    return (head[0] if isinstance(head, list) else head).num_classes


def batch(path: Path, objects: list[int]) -> dict[str, Any]:
    """Noise images, one per entry, with that many random objects of the config's classes."""
    cfg = Config.fromfile(path).model
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
    model.train()
    optimizer = build_optim_wrapper(model, Config.fromfile(path).optim_wrapper)
    data = model.data_preprocessor(batch(path, objects), training=True)
    loss, logged = model.parse_losses(model(**data, mode='loss'))
    optimizer.backward(loss)
    optimizer.step()
    assert all(value.isfinite() for value in logged.values()), logged


def learned_upsamplers(model: nn.Module) -> list[Upsampler]:
    return [
        module
        for module in model.modules()
        if isinstance(module, Upsampler) and any(True for _ in module.parameters())
    ]


def test_every_file_is_covered():
    assert {row(path) for path in PATHS} == set(UPSAMPLERS)


@each_config
def test_train_and_test_step(path):
    """With an image without objects in the batch, and with nothing detected."""
    model = build(path)
    upsamplers = learned_upsamplers(model)
    assert len(upsamplers) == UPSAMPLERS[row(path)]
    before = [next(up.parameters()).clone() for up in upsamplers]
    train_step(path, model, objects=[2, 0])
    for up, start in zip(upsamplers, before, strict=True):
        assert all(p.grad is not None and p.grad.isfinite().all() for p in up.parameters())
        assert not torch.equal(next(up.parameters()), start)

    model.eval()
    for module in model.modules():  # what each kind of model calls its threshold
        if getattr(module, 'test_cfg', None) is not None and 'score_thr' in module.test_cfg:
            module.test_cfg.score_thr = 1.1
    for sample in model.test_step(batch(path, [0, 1])):
        if 'pred_panoptic_seg' in sample:
            assert sample.pred_panoptic_seg.sem_seg.shape[-2:] == (64, 96)
        elif model.__class__.__name__ != 'Mask2Former':  # which has no threshold
            assert len(sample.pred_instances) == 0


@each_config
def test_train_step_without_any_object(path):
    model = build(path)
    train_step(path, model, objects=[0, 0])
    assert all(p.isfinite().all() for p in model.parameters())


@each_config
def test_upsamplers_keep_their_own_initialisation(path):
    model = build(path)
    model.init_weights()
    for up in learned_upsamplers(model):
        last = up.content_encoder if isinstance(up, CARAFE) else up.offset
        assert 0 < last.weight.abs().max() < 0.01  # N(0, 0.001²)
        assert not last.bias.any()


def test_the_nuclei_metric_counts_more_than_100_detections(real_data_dir, tmp_path):
    """The truth of the image with 101 nuclei, fed back as detections, is perfect."""
    truth = json.loads((real_data_dir / 'nuclei/annotations/train.json').read_text())
    (image, count), *_ = Counter(o['image_id'] for o in truth['annotations']).most_common(1)
    assert count == 101
    objects = [o for o in truth['annotations'] if o['image_id'] == image]
    images = [i for i in truth['images'] if i['id'] == image]
    annotations = tmp_path / 'one_image.json'
    annotations.write_text(json.dumps(truth | dict(images=images, annotations=objects)))
    boxes = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in (o['bbox'] for o in objects)])
    detections = dict(
        bboxes=boxes,
        labels=torch.zeros(101, dtype=torch.long),
        scores=torch.linspace(1, 0.5, 101),
        masks=[o['segmentation'] for o in objects],
    )
    cfg = Config.fromfile(next((CONFIGS / 'nuclei').glob('mask-rcnn_r18_fpn_*.py')))
    for evaluator in cfg.test_evaluator:
        metric = METRICS.build(dict(evaluator, type='mmdet.CocoMetric', ann_file=str(annotations)))
        metric.dataset_meta = cfg.metainfo
        sample = dict(img_id=image, ori_shape=(256, 256), pred_instances=detections)
        metric.process({}, [sample])
        scores = metric.evaluate(size=1)
        prefix = evaluator.prefix
        assert scores[f'{prefix}/nucleus_precision'] == 1.0
        assert scores[f'{prefix}/{prefix}_mAP_50'] == 1.0
        assert scores[f'{prefix}/{prefix}_mAP'] < 1.0  # fixed at 100 by pycocotools
    assert cfg.model.test_cfg.rcnn.max_per_img >= max(cfg.test_evaluator[0].proposal_nums) > 101

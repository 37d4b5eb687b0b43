"""Configs beyond the published tables: heads, other hosts and complete examples, built and run."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmdet')

from detectors import batch, build, train_step
from mmengine.config import Config
from mmengine.registry import METRICS
from torch import nn

from mmdysample import Upsampler

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
    '_6e_bccd-adopted',
    '_12e_nuclei',
    '_6e_nuclei-adopted',
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

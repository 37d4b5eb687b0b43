"""One image through the inference APIs of mmdet, with configs and weights of ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip('mmdet')

from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmdet.registry import MODELS, VISUALIZERS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmdysample import DySample

CONFIGS = Path(__file__).parents[2] / 'configs'
FILES = {
    'instance': CONFIGS / 'nuclei/mask-rcnn_r18_fpn-dysample_mask-head-dysample_12e_nuclei.py',
    'panoptic': CONFIGS / 'coco_sample/panoptic-fpn_r18_fpn-dysample_overfit_coco-sample.py',
}
SIZE = (60, 84)


@pytest.fixture(scope='module', params=FILES)
def case(request, tmp_path_factory):
    """A config that lets weak detections pass, weights, and a picture of noise."""
    folder = tmp_path_factory.mktemp(request.param)
    config = folder / 'config.py'
    config.write_text(
        f'_base_ = {str(FILES[request.param])!r}\n'
        'model = dict(test_cfg=dict(rcnn=dict(score_thr=0.0, max_per_img=5)))\n'
    )
    cfg = Config.fromfile(config)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
    weights = folder / 'weights.pth'
    classes = cfg.get('metainfo', {}).get('classes') or ('thing',) * 80 + ('stuff',) * 53
    torch.save(
        dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=classes))), weights
    )
    picture = folder / 'picture.png'
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(noise).save(picture)
    return request.param, str(config), str(weights), str(picture)


def check(kind, sample):
    if kind == 'panoptic':
        assert sample.pred_panoptic_seg.sem_seg.shape[-2:] == SIZE
    else:
        found = sample.pred_instances
        assert 0 < len(found) <= 5 and found.masks.shape[-2:] == SIZE


def test_init_detector_and_inference_detector(case, tmp_path):
    kind, config, weights, picture = case
    model = init_detector(config, weights, device='cpu')
    assert isinstance(model.neck.upsample_modules[0], DySample)
    saved = torch.load(weights)['state_dict']
    key = 'neck.upsample_modules.0.offset.weight'
    assert torch.equal(model.state_dict()[key], saved[key])
    result = inference_detector(model, picture)
    check(kind, result)
    visualizer = VISUALIZERS.build(model.cfg.visualizer)
    visualizer.dataset_meta = model.dataset_meta
    target = tmp_path / 'drawn.png'
    image = np.asarray(Image.open(picture))
    visualizer.add_datasample(
        'picture', image, result, draw_gt=False, pred_score_thr=0, out_file=str(target)
    )
    drawn = np.asarray(Image.open(target))
    assert drawn.shape == image.shape and not np.array_equal(drawn, image)


def test_det_inferencer(case, tmp_path):
    kind, config, weights, picture = case
    inferencer = DetInferencer(model=config, weights=weights, device='cpu', show_progress=False)
    results = inferencer(
        picture, out_dir=str(tmp_path), pred_score_thr=0.0, return_datasamples=True
    )
    check(kind, results['predictions'][0])
    drawn = np.asarray(Image.open(tmp_path / 'vis/picture.png'))
    assert drawn.shape == (*SIZE, 3) and not np.array_equal(drawn, Image.open(picture))

"""Tiny real data and configs, so that the tools run in seconds on a CPU."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image

IMAGES = 4
SIZE = 64

DETECTOR = """
default_scope = 'mmdet'
data_root = {root!r}
log_level = 'WARNING'
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=({size}, {size}), keep_ratio=True),
    dict(type='PackDetInputs', meta_keys=(
        'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
dataset = dict(
    type='CocoDataset', data_root=data_root, ann_file='annotations.json',
    metainfo=dict(classes=('box',)), data_prefix=dict(img='images/'), pipeline=pipeline)
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='RepeatDataset', times=1, dataset=dataset))
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(test_mode=True, **dataset))
test_dataloader = val_dataloader
val_evaluator = dict(
    type='CocoMetric', ann_file=data_root + '/annotations.json', metric='bbox')
test_evaluator = val_evaluator
model = dict(
    type='RetinaNet',
    data_preprocessor=dict(type='DetDataPreprocessor', mean=[128] * 3, std=[64] * 3),
    backbone=dict(type='ResNet', depth=18, base_channels=8, out_indices=(1, 2, 3)),
    neck=dict(type='FPN', in_channels=[16, 32, 64], out_channels=16, num_outs=3),
    bbox_head=dict(
        type='RetinaHead', num_classes=1, in_channels=16, stacked_convs=1, feat_channels=16,
        anchor_generator=dict(
            type='AnchorGenerator', octave_base_scale=4, scales_per_octave=1, ratios=[1.0],
            strides=[8, 16, 32]),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder')),
    train_cfg=dict(
        assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0),
        allowed_border=-1, pos_weight=-1, debug=False),
    test_cfg=dict(
        nms_pre=100, min_bbox_size=0, score_thr=0.0, max_per_img=20,
        nms=dict(type='nms', iou_threshold=0.5)))
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))
param_scheduler = [dict(type='MultiStepLR', milestones=[2, 3], by_epoch=True)]
visualizer = dict(type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
"""

SEGMENTOR = """
default_scope = 'mmseg'
data_root = {root!r}
log_level = 'WARNING'
pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
dataset = dict(
    type='BaseSegDataset', data_root=data_root, img_suffix='.png', seg_map_suffix='.png',
    data_prefix=dict(img_path='images', seg_map_path='masks'), pipeline=pipeline,
    metainfo=dict(classes=('ground', 'box'), palette=[[0, 0, 0], [255, 0, 0]]))
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dataset)
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(test_mode=True, **dataset))
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
norm_cfg = dict(type='BN')
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[128] * 3, std=[64] * 3, size=({size}, {size})),
    backbone=dict(type='ResNetV1c', depth=18, base_channels=8, norm_cfg=norm_cfg),
    decode_head=dict(
        type='FCNHead', in_channels=64, channels=8, num_convs=1, num_classes=2,
        dropout_ratio=0, norm_cfg=norm_cfg, loss_decode=dict(type='CrossEntropyLoss')),
    train_cfg=dict(), test_cfg=dict(mode='whole'))
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))
visualizer = dict(type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
"""

SCHEDULE = """
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=3, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
randomness = dict(seed=0)
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', interval=1),
    logger=dict(type='LoggerHook', interval=1),
    visualization=dict(type={hook!r}))
"""


@pytest.fixture(scope='session')
def tiny_data(tmp_path_factory) -> Path:
    """Images of bright boxes on noise, as COCO boxes and as semantic masks."""
    root = tmp_path_factory.mktemp('data')
    for folder in ('images', 'masks'):
        (root / folder).mkdir()
    random = np.random.default_rng(0)
    images, annotations = [], []
    for index in range(IMAGES):
        pixels = random.integers(0, 80, (SIZE, SIZE, 3), dtype=np.uint8)
        mask = np.zeros((SIZE, SIZE), np.uint8)
        for x, y in random.integers(0, SIZE - 32, (2, 2)).tolist():
            pixels[y : y + 24, x : x + 24] = 220
            mask[y : y + 24, x : x + 24] = 1
            annotations.append(
                dict(id=len(annotations) + 1, image_id=index, category_id=1, iscrowd=0)
                | dict(bbox=[x, y, 24, 24], area=24 * 24)
            )
        name = f'{index}.png'
        Image.fromarray(pixels).save(root / 'images' / name)
        Image.fromarray(mask).save(root / 'masks' / name)
        images.append(dict(id=index, file_name=name, width=SIZE, height=SIZE))
    categories = [dict(id=1, name='box')]
    (root / 'annotations.json').write_text(
        json.dumps(dict(images=images, annotations=annotations, categories=categories))
    )
    return root


@pytest.fixture(scope='session')
def configs(tiny_data, tmp_path_factory) -> dict[str, Path]:
    """Config files of a detector ('mmdet') and a segmentor ('mmseg') on the tiny data."""
    folder = tmp_path_factory.mktemp('configs')
    parts = {
        'mmdet': (DETECTOR, 'DetVisualizationHook'),
        'mmseg': (SEGMENTOR, 'SegVisualizationHook'),
    }
    paths = {}
    for scope, (text, hook) in parts.items():
        paths[scope] = folder / f'{scope}.py'
        paths[scope].write_text(
            text.format(root=str(tiny_data), size=SIZE) + SCHEDULE.format(hook=hook)
        )
    return paths


@pytest.fixture(scope='session')
def tool():
    """Run tools in this process: ``tool('train', config, ...)`` returns the exit status."""
    pytest.importorskip('mmdet')
    pytest.importorskip('mmseg')
    from mmdysample.engine import test, train

    mains = {'train': train.main, 'test': test.main}

    def run(name: str, *args, options: tuple[str, ...] = ()) -> int:
        # MMEngine keeps its singletons by experiment name; without a new one, runs would share.
        experiment = f'experiment_name={uuid4().hex}'
        with pytest.MonkeyPatch.context() as environment:
            # The tools set these two for their own process, which here is the tests'.
            environment.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '1')
            environment.setenv('LOCAL_RANK', '0')
            return mains[name]([*map(str, args), '--cfg-options', experiment, *options])

    return run


@pytest.fixture(scope='session')
def trained(tool, configs, tmp_path_factory) -> dict[str, Path]:
    """Work dirs of both tiny models after an uninterrupted training of three epochs."""
    work_dirs = {}
    for scope, config in configs.items():
        work_dirs[scope] = tmp_path_factory.mktemp(f'{scope}_trained')
        assert tool('train', config, '--work-dir', work_dirs[scope]) == 0
    return work_dirs

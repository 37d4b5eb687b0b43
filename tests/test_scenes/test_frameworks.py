"""The files through the eyes of pycocotools, MMDetection and MMSegmentation."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mmdysample.scenes import CLASSES, THINGS, render_frame
from mmdysample.scenes.annotations import segments

pytestmark = pytest.mark.smoke


@pytest.fixture(scope='module')
def frames(arguments):
    return [
        render_frame(arguments['seed'], 'train', index, arguments['size'])
        for index in range(arguments['num_train'])
    ]


def things_of(frame):
    return [part for part in segments(frame) if part.thing]


def build(package, name, scenes_root, arguments, **kwargs):
    pytest.importorskip(package)
    module = 'mmdysample.scenes.det' if package == 'mmdet' else 'mmdysample.scenes.seg'
    pytest.importorskip(module)
    registry = __import__(f'{package}.registry', fromlist=['DATASETS'])
    __import__(f'{package}.datasets')
    return registry.DATASETS.build(
        dict(type=name, data_root=str(scenes_root), scenes=arguments, **kwargs)
    )


def test_pycocotools_reads_boxes_and_masks(scenes_root, frames):
    coco_module = pytest.importorskip('pycocotools.coco')
    coco = coco_module.COCO(str(scenes_root / 'annotations/instances_train.json'))
    assert [c['name'] for c in coco.loadCats(coco.getCatIds())] == list(THINGS)
    crowds = 0
    for image_id, frame in enumerate(frames, 1):
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image_id, iscrowd=None))
        parts = things_of(frame)
        assert len(annotations) == len(parts) > 0
        for annotation, part in zip(annotations, parts, strict=True):
            assert (coco.annToMask(annotation) == part.mask).all()
            assert annotation['category_id'] == part.label + 1
            assert annotation['iscrowd'] == part.crowd
            crowds += part.crowd
    assert crowds > 0


def test_perfect_results_have_full_ap(scenes_root):
    coco_module = pytest.importorskip('pycocotools.coco')
    evaluation = pytest.importorskip('pycocotools.cocoeval')
    path = str(scenes_root / 'annotations/instances_train.json')
    truth = coco_module.COCO(path)
    results = [
        dict(
            image_id=a['image_id'],
            category_id=a['category_id'],
            score=1.0,
            bbox=a['bbox'],
            segmentation=truth.annToRLE(a),
        )
        for a in truth.dataset['annotations']
        if not a['iscrowd']
    ]
    for kind in ('bbox', 'segm'):
        run = evaluation.COCOeval(truth, truth.loadRes(results), kind)
        run.evaluate()
        run.accumulate()
        run.summarize()
        assert run.stats[0] == pytest.approx(1.0)


@pytest.mark.parametrize('split, count', [('train', 5), ('val', 2)])
def test_detection(scenes_root, arguments, split, count):
    dataset = build(
        'mmdet',
        'ScenesDetDataset',
        scenes_root,
        arguments,
        split=split,
        pipeline=[
            dict(type='mmdet.LoadImageFromFile'),
            dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True),
        ],
    )
    assert len(dataset) == count
    assert dataset.metainfo['classes'] == THINGS
    for index in range(count):
        sample = dataset[index]
        frame = render_frame(arguments['seed'], split, index, arguments['size'])
        parts = things_of(frame)
        boxes = [(x, y, x + w, y + h) for x, y, w, h in (part.box for part in parts)]
        np.testing.assert_array_equal(sample['gt_bboxes'].tensor.numpy(), boxes)
        np.testing.assert_array_equal(sample['gt_bboxes_labels'], [p.label for p in parts])
        np.testing.assert_array_equal(sample['gt_ignore_flags'], [p.crowd for p in parts])
        np.testing.assert_array_equal(sample['gt_masks'].masks, [p.mask for p in parts])
        assert np.abs(sample['img'][..., ::-1].astype(int) - frame.image).mean() < 3


def test_panoptic(scenes_root, arguments, frames):
    pytest.importorskip('panopticapi')
    dataset = build(
        'mmdet',
        'ScenesPanopticDataset',
        scenes_root,
        arguments,
        pipeline=[dict(type='mmdet.LoadImageFromFile'), dict(type='mmdet.LoadPanopticAnnotations')],
    )
    assert dataset.metainfo['classes'] == CLASSES
    assert len(dataset) == len(frames)
    for sample, frame in zip((dataset[i] for i in range(len(frames))), frames, strict=True):
        np.testing.assert_array_equal(sample['gt_seg_map'], frame.semantic)
        objects = [part for part in things_of(frame) if not part.crowd]
        np.testing.assert_array_equal(sample['gt_masks'].masks, [p.mask for p in objects])
        np.testing.assert_array_equal(sample['gt_bboxes_labels'], [p.label for p in objects])


def test_perfect_panoptic_results_have_full_pq(scenes_root):
    evaluation = pytest.importorskip('panopticapi.evaluation')
    annotations = scenes_root / 'annotations'
    truth = json.loads((annotations / 'panoptic_train.json').read_text())
    categories = {c['id']: c for c in truth['categories']}
    assert [c['name'] for c in truth['categories']] == list(CLASSES)
    pairs = [
        (a, {**a, 'segments_info': [dict(s) for s in a['segments_info']]})
        for a in truth['annotations']
    ]
    folder = str(annotations / 'panoptic_train')
    result = evaluation.pq_compute_single_core(0, pairs, folder, folder, categories)
    scores, _ = result.pq_average(categories, isthing=None)
    assert scores['pq'] == pytest.approx(1.0)


def test_semantic_maps(scenes_root, arguments, frames):
    dataset = build(
        'mmseg',
        'ScenesSegDataset',
        scenes_root,
        arguments,
        pipeline=[dict(type='mmseg.LoadImageFromFile'), dict(type='mmseg.LoadAnnotations')],
    )
    assert dataset.metainfo['classes'] == CLASSES
    assert len(dataset) == len(frames)
    for sample, frame in zip((dataset[i] for i in range(len(frames))), frames, strict=True):
        np.testing.assert_array_equal(sample['gt_seg_map'], frame.semantic)


def test_depth(scenes_root, arguments, frames):
    dataset = build(
        'mmseg',
        'ScenesDepthDataset',
        scenes_root,
        arguments,
        pipeline=[
            dict(type='mmseg.LoadImageFromFile'),
            dict(type='mmseg.LoadDepthAnnotation', depth_rescale_factor=1e-3),
        ],
    )
    assert len(dataset) == len(frames)
    for sample, frame in zip((dataset[i] for i in range(len(frames))), frames, strict=True):
        np.testing.assert_allclose(sample['gt_depth_map'], frame.depth, atol=5.1e-4)
        valid = sample['gt_depth_map'][sample['gt_depth_map'] > 0]
        assert valid.min() > 1e-3 and valid.max() <= 10


@pytest.mark.parametrize(
    'package, name', [('mmdet', 'ScenesDetDataset'), ('mmseg', 'ScenesSegDataset')]
)
def test_missing_data_is_rendered_when_a_data_set_is_built(tmp_path, package, name):
    small = dict(num_train=1, num_val=2, size=(48, 64))
    dataset = build(package, name, tmp_path / 'new' / 'scenes', small, split='val')
    assert len(dataset) == 2


def test_given_paths_and_unknown_splits(scenes_root, arguments):
    dataset = build(
        'mmdet',
        'ScenesDetDataset',
        scenes_root,
        arguments,
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='val/'),
    )
    assert len(dataset) == arguments['num_val']
    with pytest.raises(ValueError, match=r"split must be one of .*'train', 'val'.* got 'test'"):
        build('mmdet', 'ScenesDetDataset', scenes_root, arguments, split='test')

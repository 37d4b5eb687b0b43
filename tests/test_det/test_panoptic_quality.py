"""mmdet's panoptic metric with panopticapi-lite on real images, against the definition."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from oracles.panoptic_quality import Segment, panoptic_quality
from PIL import Image

pytest.importorskip('mmdet')
pytest.importorskip('panopticapi')
from mmdet.datasets import CocoPanopticDataset
from mmdet.evaluation import CocoPanopticMetric

CLASSES = CocoPanopticDataset.METAINFO['classes']
THINGS = CocoPanopticDataset.METAINFO['thing_classes']
VOID = len(CLASSES)


@pytest.fixture(scope='module')
def images(real_data_dir):
    """Name, size, id map and segments ``{id: (class, crowd)}`` of both images."""
    root = real_data_dir / 'coco_panoptic_sample/annotations'
    data = json.loads((root / 'panoptic.json').read_text())
    names = {category['id']: category['name'] for category in data['categories']}
    found = []
    for annotation in data['annotations']:
        rgb = np.asarray(Image.open(root / 'panoptic' / annotation['file_name'])).astype(np.int64)
        segments = {
            segment['id']: (CLASSES.index(names[segment['category_id']]), segment['iscrowd'])
            for segment in annotation['segments_info']
        }
        ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
        found.append((annotation['image_id'], annotation['file_name'], ids, segments))
    assert len(found) == 2
    return found


def encode(ids, segments):
    """The model's map: ``class + 1000 * instance``, void elsewhere."""
    encoded = np.full(ids.shape, VOID)
    for number, (segment, (label, _)) in enumerate(segments.items(), start=1):
        encoded[ids == segment] = label + 1000 * number
    return encoded


def unchanged(encoded, rng):
    return encoded


def shifted(encoded, rng):
    """Everything a few pixels off."""
    moved = np.full_like(encoded, VOID)
    moved[6:, :-9] = encoded[:-6, 9:]
    return moved


def partly_dropped(encoded, rng):
    """Every third segment missed."""
    kept = encoded.copy()
    for value in np.unique(encoded)[::3]:
        kept[encoded == value] = VOID
    return kept


def confused(encoded, rng):
    """Some segments of another class."""
    wrong = encoded.copy()
    for value in np.unique(encoded)[::4]:
        if value != VOID:
            wrong[encoded == value] = value // 1000 * 1000 + (value % 1000 + 7) % VOID
    return wrong


def merged(encoded, rng):
    """Instances of a class taken for one, as a semantic segmentation would."""
    return np.where(encoded == VOID, VOID, encoded % 1000 + 1000)


def noisy(encoded, rng):
    """Blocks of pixels from elsewhere in the image."""
    mixed = encoded.copy()
    height, width = encoded.shape
    for _ in range(60):
        y, x, v, u = rng.integers(0, [height - 48, width - 48, height - 48, width - 48])
        mixed[y : y + 48, x : x + 48] = encoded[v : v + 48, u : u + 48]
    return mixed


def evaluate(real_data_dir, images, predictions):
    root = real_data_dir / 'coco_panoptic_sample/annotations'
    metric = CocoPanopticMetric(
        ann_file=str(root / 'panoptic.json'), seg_prefix=str(root / 'panoptic'), nproc=1
    )
    metric.dataset_meta = CocoPanopticDataset.METAINFO
    for (image, name, ids, _), prediction in zip(images, predictions, strict=True):
        sample = dict(
            img_id=image,
            img_path=name.replace('.png', '.jpg'),
            ori_shape=ids.shape,
            pred_panoptic_seg=dict(sem_seg=torch.from_numpy(prediction.copy())[None]),
        )
        metric.process({}, [sample])
    scores = metric.evaluate(size=len(images))
    return {name.removeprefix('coco_panoptic/'): value for name, value in scores.items()}


def expect(images, predictions):
    pairs = []
    for (_, _, ids, segments), prediction in zip(images, predictions, strict=True):
        truth = [
            Segment(ids == segment, label, bool(crowd))
            for segment, (label, crowd) in segments.items()
        ]
        guesses = [
            Segment(prediction == value, int(value % 1000))
            for value in np.unique(prediction)
            if value != VOID
        ]
        pairs.append((truth, guesses))
    return panoptic_quality(pairs, set(range(len(THINGS))))


@pytest.mark.parametrize('change', [unchanged, shifted, partly_dropped, confused, merged, noisy])
def test_agrees_with_the_definition(change, images, real_data_dir):
    rng = np.random.default_rng(0)
    predictions = [change(encode(ids, segments), rng) for _, _, ids, segments in images]
    scores = evaluate(real_data_dir, images, predictions)
    expected = expect(images, predictions)
    assert scores == pytest.approx(expected, rel=1e-9)
    if change is unchanged:
        assert scores['PQ'] == scores['SQ'] == scores['RQ'] == 100
    else:
        assert 5 < scores['PQ'] < 97


def test_nothing_predicted(images, real_data_dir):
    predictions = [np.full(ids.shape, VOID) for _, _, ids, _ in images]
    assert evaluate(real_data_dir, images, predictions)['PQ'] == 0

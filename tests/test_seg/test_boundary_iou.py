"""Boundary IoU against distances, against the reference code's erosion, and by hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from oracles import boundary_iou as oracle

pytest.importorskip('mmseg')
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope

from mmdysample.seg import BoundaryIoUMetric
from mmdysample.seg.boundary_iou import boundary_areas, boundary_band, boundary_distance

IGNORE = 255
SIZES = {
    'usual': (40, 53),
    'thinner_than_the_band': (5, 60),
    'one_row': (1, 30),
    'one_pixel': (1, 1),
    'smaller_than_the_band': (7, 9),
}


def blobs(size, num_classes, seed, ignored=False):
    """A label map of smooth regions, with holes and thin parts, and ignored ones if wanted."""
    generator = np.random.default_rng(seed)
    noise = generator.standard_normal((num_classes + ignored, *size)).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(plane, (0, 0), 2) for plane in noise])
    labels = smooth.reshape(-1, *size).argmax(0)
    labels[labels == num_classes] = IGNORE
    return torch.from_numpy(labels)


def evaluate(samples, num_classes=3, **options):
    metric = BoundaryIoUMetric(**options)
    metric.dataset_meta = dict(classes=[f'class {i}' for i in range(num_classes)])
    for prediction, label in samples:
        metric.process(
            None,
            [dict(pred_sem_seg=dict(data=prediction[None]), gt_sem_seg=dict(data=label[None]))],
        )
    return metric.evaluate(len(samples))['bIoU']


@pytest.mark.parametrize('distance', [1, 2, 3, 6, 17])
@pytest.mark.parametrize('size', SIZES.values(), ids=SIZES)
def test_band_is_the_mask_minus_its_erosion(size, distance):
    labels = blobs(size, 4, seed=distance)
    band = boundary_band(labels, distance).numpy()
    kernel = np.ones((3, 3), np.uint8)
    for index in labels.unique().tolist():
        mask = (labels == index).numpy().astype(np.uint8)
        padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        eroded = cv2.erode(padded, kernel, iterations=distance)[1:-1, 1:-1]
        assert np.array_equal(band & (mask > 0), (mask - eroded) > 0)


@pytest.mark.parametrize('dtype', [torch.int64, torch.uint8])
@pytest.mark.parametrize('size', SIZES.values(), ids=SIZES)
@pytest.mark.parametrize('ratio', [0.02, 0.1])
def test_areas_match_distances(size, ratio, dtype):
    prediction, label = blobs(size, 5, seed=1), blobs(size, 5, seed=2, ignored=True)
    expected = oracle.areas(
        prediction.numpy(), label.numpy(), 5, IGNORE, boundary_distance(size, ratio)
    )
    areas = boundary_areas(prediction.to(dtype), label.to(dtype), 5, IGNORE, ratio)
    assert np.array_equal(areas.numpy(), expected)


def test_known_answer():
    """A square of 10 against itself moved by one: bands of width 2 by hand, class 1 alone."""
    label = torch.zeros(30, 40, dtype=torch.long)  # diagonal 50
    label[10:20, 10:20] = 1
    prediction = label.roll(1, dims=1)
    both, predicted, true = boundary_areas(prediction, label, 2, dilation_ratio=0.04)[:, 1]
    ring = 10 * 10 - 6 * 6
    assert predicted == true == ring
    # The overlap is 10 x 9. The inner 6 x 6 of the two cover columns 12..18 of it.
    assert both == 10 * 9 - 6 * 7


def test_distance():
    assert boundary_distance((512, 683)) == 17
    assert boundary_distance((4, 4)) == 1
    assert boundary_distance((300, 400), 0.01) == 5


def test_ignored_region_never_counts():
    label = blobs((60, 80), 3, seed=3, ignored=True)
    ignored = label == IGNORE
    assert 0 < ignored.sum() < label.numel() / 2
    perfect = label.where(~ignored, torch.randint(0, 3, label.shape))
    assert evaluate([(perfect, label)]) == 100
    guess = blobs((60, 80), 3, seed=4)
    other_guess = guess.where(~ignored, (guess + 1) % 3)
    assert torch.equal(boundary_areas(guess, label, 3), boundary_areas(other_guess, label, 3))


@pytest.mark.parametrize('ignore_index', [-100, 3, 255])
def test_any_ignore_index(ignore_index):
    prediction, label = blobs((40, 40), 3, seed=5), blobs((40, 40), 3, seed=6, ignored=True)
    expected = boundary_areas(prediction, label, 3, IGNORE)
    label = label.masked_fill(label == IGNORE, ignore_index)
    assert torch.equal(boundary_areas(prediction, label, 3, ignore_index), expected)


def test_areas_add_up_over_images_and_absent_classes_are_left_out():
    samples = [(blobs(size, 3, seed=7), blobs(size, 3, seed=8)) for size in ((40, 50), (30, 20))]
    both, predicted, true = sum(
        oracle.areas(p.numpy(), g.numpy(), 3, IGNORE, boundary_distance(g.shape))
        for p, g in samples
    )
    expected = 100 * (both / (predicted + true - both)).mean()
    assert evaluate(samples, num_classes=3) == pytest.approx(expected, abs=0.005)
    assert evaluate(samples, num_classes=7) == pytest.approx(expected, abs=0.005)


def test_no_valid_pixel_gives_nan():
    label = torch.full((20, 20), IGNORE)
    assert np.isnan(evaluate([(torch.zeros_like(label), label)]))


def test_kept_per_image_are_areas_and_no_maps():
    metric = BoundaryIoUMetric()
    metric.dataset_meta = dict(classes=['a', 'b'])
    maps = dict(data=blobs((200, 300), 2, seed=9)[None])
    metric.process(None, [dict(pred_sem_seg=maps, gt_sem_seg=maps)] * 3)
    assert [result.shape for result in metric.results] == [(3, 2)] * 3


def test_builds_from_a_config_beside_iou_metric():
    with DefaultScope.overwrite_default_scope('mmseg'):
        evaluator = Evaluator([dict(type='IoUMetric'), dict(type='BoundaryIoUMetric')])
    evaluator.dataset_meta = dict(classes=['a', 'b', 'c'])
    maps = dict(data=blobs((40, 40), 3, seed=10)[None])
    evaluator.process([dict(pred_sem_seg=maps, gt_sem_seg=maps)])
    results = evaluator.evaluate(1)
    assert results['mIoU'] == results['bIoU'] == 100


@pytest.mark.parametrize(
    ('prediction', 'label', 'message'),
    [
        (torch.zeros(4, 4), torch.zeros(4, 5), 'one shape'),
        (torch.zeros(1, 4, 4), torch.zeros(1, 4, 4), 'one shape'),
        (torch.zeros(0, 4), torch.zeros(0, 4), r'with pixels, got \(0, 4\) and \(0, 4\)'),
        (torch.zeros(4, 4), torch.full((4, 4), 3), 'label must hold classes 0..2'),
        (torch.full((4, 4), -1), torch.zeros(4, 4), 'prediction must hold classes 0..2'),
        (torch.zeros(4, 4), torch.full((4, 4), 65536), 'label .* values from 65536 to 65536'),
        (torch.full((4, 4), 65537), torch.zeros(4, 4), 'prediction .* values from 65537 to 65537'),
    ],
)
def test_bad_maps(prediction, label, message):
    with pytest.raises(ValueError, match=message):
        boundary_areas(prediction.long(), label.long(), 3)


@pytest.mark.parametrize('ratio', [0, -0.1, float('nan')])
def test_bad_dilation_ratio(ratio):
    with pytest.raises(ValueError, match='dilation_ratio'):
        BoundaryIoUMetric(dilation_ratio=ratio)

"""What a picture shows, as masks, boxes or depth: read from truth and predictions alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

SCORE_THRESHOLD = 0.3
"""Objects that a detector is less sure of are not shown; the frameworks' own default."""

_DEPTH_JUMP = 1.1  # ratio of neighbouring depths that makes an edge


@dataclass(frozen=True)
class View:
    """The truth of a picture, or a prediction.

    Args:
        labels (list[int]): Class of each mask or box.
        masks (list[np.ndarray]): ``(H, W)``, bool. Defaults to none.
        boxes (list[np.ndarray]): Left, top, right and bottom in pixels. Defaults to none.
        depth (np.ndarray, optional): ``(H, W)`` in metres; 0 is no depth. Defaults to None.
    """

    labels: list[int] = field(default_factory=list)
    masks: list[np.ndarray] = field(default_factory=list)
    boxes: list[np.ndarray] = field(default_factory=list)
    depth: np.ndarray | None = None


def truth_of(task: str, info: dict[str, Any], sample: Any) -> View:
    """Read the truth of a picture, in the pixels of its file.

    Args:
        task (str): A table's.
        info (dict): What the data set knows about the picture before any step of its pipeline.
        sample: The data sample after the last step.
    """
    if task == 'segmentation':
        return _semantic(sample.gt_sem_seg.data)
    if task == 'depth':
        return View(depth=_array(sample.gt_depth_map.data)[0])
    if task == 'panoptic':
        return _panoptic_truth(info)
    shown = [item for item in info['instances'] if not item.get('ignore_flag')]
    labels = [int(item['bbox_label']) for item in shown]
    boxes = [np.asarray(item['bbox'], dtype=float) for item in shown]
    if task == 'detection':
        return View(labels, boxes=boxes)
    size = info['height'], info['width']
    return View(labels, [_decode(item['mask'], size) for item in shown], boxes)


def prediction_of(task: str, sample: Any, num_classes: int) -> View:
    """Read what a model predicted, in the pixels of the picture's file.

    Args:
        task (str): A table's.
        sample: The data sample that ``test_step`` returned.
        num_classes (int): Classes of the data set; whatever a panoptic map has beyond them is
            left out.
    """
    if task == 'segmentation':
        return _semantic(sample.pred_sem_seg.data)
    if task == 'depth':
        return View(depth=_array(sample.pred_depth_map.data)[0])
    if task == 'panoptic':
        from mmdet.evaluation import INSTANCE_OFFSET

        segments = _array(sample.pred_panoptic_seg.sem_seg)[0]
        found = [number for number in np.unique(segments) if number % INSTANCE_OFFSET < num_classes]
        labels = [int(number % INSTANCE_OFFSET) for number in found]
        return View(labels, [segments == number for number in found])
    sure = sample.pred_instances[sample.pred_instances.scores >= SCORE_THRESHOLD]
    boxes = list(_array(sure.bboxes).astype(float))
    masks = list(_array(sure.masks).astype(bool)) if task == 'instance' else []
    return View(_array(sure.labels).tolist(), masks, boxes)


def boundary(view: View, size: tuple[int, int]) -> np.ndarray:
    """Find the pixels at an edge: of a mask, of a box where there are no masks, or in depth.

    Args:
        view (View): What to look at.
        size (tuple[int, int]): Height and width of the picture in pixels.

    Returns:
        np.ndarray: ``(H, W)``, bool.
    """
    edges = np.zeros(size, dtype=bool)
    for mask in view.masks:
        edges |= inner_edge(mask)
    for box in () if view.masks else view.boxes:
        left, top, right, bottom = np.clip(box.round().astype(int), 0, [*size[::-1]] * 2)
        edges |= inner_edge(_filled(size, left, top, right, bottom))
    if view.depth is not None:
        logs = np.log(np.where(view.depth > 0, view.depth, np.nan))
        with np.errstate(invalid='ignore'):
            edges[:, 1:] |= np.abs(np.diff(logs, axis=1)) > np.log(_DEPTH_JUMP)
            edges[1:] |= np.abs(np.diff(logs, axis=0)) > np.log(_DEPTH_JUMP)
    return edges


def inner_edge(mask: np.ndarray, width: int = 1) -> np.ndarray:
    """Find the outermost pixels of a mask; the picture's own border is no edge."""
    kernel = np.ones((2 * width + 1,) * 2, np.uint8)
    return mask & (cv2.erode(mask.astype(np.uint8), kernel) == 0)


def busiest_window(edges: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Find the window that holds most of some pixels, the first of several.

    Args:
        edges (np.ndarray): ``(H, W)``, bool.
        size (tuple[int, int]): Height and width of the window in pixels.

    Returns:
        tuple[int, int, int, int]: Top, left, height and width.
    """
    height, width = size
    sums = np.zeros(np.add(edges.shape, 1), dtype=np.int64)
    sums[1:, 1:] = edges.cumsum(axis=0).cumsum(axis=1)
    counts = sums[height:, width:] - sums[:-height, width:]
    counts = counts - sums[height:, :-width] + sums[:-height, :-width]
    top, left = np.unravel_index(counts.argmax(), counts.shape)
    return int(top), int(left), height, width


def _semantic(data: Any) -> View:
    classes = _array(data)[0]
    labels = [int(label) for label in np.unique(classes) if label != 255]
    return View(labels, [classes == label for label in labels])


def _panoptic_truth(info: dict[str, Any]) -> View:
    import mmcv

    picture = mmcv.imread(info['seg_map_path'], channel_order='rgb').astype(np.int64)
    segments = picture @ np.array([1, 256, 256**2])  # COCO's way to number segments by colour
    found = info['segments_info']
    labels = [int(segment['category']) for segment in found]
    return View(labels, [segments == segment['id'] for segment in found])


def _decode(mask: Any, size: tuple[int, int]) -> np.ndarray:
    """Fill COCO's polygons or run lengths."""
    from pycocotools import mask as coco

    if isinstance(mask, list):
        mask = coco.merge(coco.frPyObjects(mask, *size))
    elif isinstance(mask['counts'], list):
        mask = coco.frPyObjects(mask, *size)
    return coco.decode(mask).astype(bool)


def _filled(size: tuple[int, int], left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def _array(data: Any) -> np.ndarray:
    return data.numpy(force=True) if hasattr(data, 'numpy') else np.asarray(data)

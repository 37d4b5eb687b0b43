"""Boundary IoU for semantic segmentation (arXiv 2103.16562)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger, print_log
from prettytable import PrettyTable
from torch import Tensor


def boundary_distance(size: tuple[int, int], dilation_ratio: float = 0.02) -> int:
    """The width ``d`` of the band in pixels: a share of the image diagonal, at least 1.

    Args:
        size (tuple[int, int]): Height and width of the label map.
        dilation_ratio (float): Share of the diagonal. Defaults to 0.02.

    Returns:
        int: ``max(1, round(dilation_ratio * sqrt(height² + width²)))``, 17 for 512 x 683.
    """
    return max(1, round(dilation_ratio * math.hypot(*size)))


def boundary_band(labels: Tensor, distance: int) -> Tensor:
    """Pixels within ``distance`` of the contour of the region that their own label forms.

    A pixel is in the band if the square of ``2 * distance + 1`` pixels around it holds another
    label or reaches over the border of the image. For every class at once this is the mask minus
    its ``distance``-fold erosion by a 3x3 square, with the outside as background: the reference
    code's definition, without its loop over classes.

    Args:
        labels (Tensor): Integer label map ``(..., H, W)``.
        distance (int): Width of the band in pixels (Chebyshev distance), at least 1.

    Returns:
        Tensor: Boolean map of the same shape.
    """
    same_as_right = labels[..., 1:] == labels[..., :-1]
    same_as_below = labels[..., 1:, :-1] == labels[..., :-1, :-1]
    # A square of side 2d + 1 has one label if and only if each of its (2d)² blocks of 2x2 has.
    uniform = same_as_right[..., 1:, :] & same_as_right[..., :-1, :] & same_as_below
    for dim in (-2, -1):
        uniform = _all_in_window(uniform, dim, 2 * distance)
    band = torch.ones_like(labels, dtype=torch.bool)
    if uniform.numel():
        band[..., distance:-distance, distance:-distance] = ~uniform
    return band


def _all_in_window(mask: Tensor, dim: int, length: int) -> Tensor:
    """AND over each run of ``length`` pixels along ``dim``, by doubling; shorter by length - 1."""
    covered = 1
    while covered < length:
        step = min(covered, length - covered)
        rest = max(0, mask.shape[dim] - step)
        mask = mask.narrow(dim, 0, rest) & mask.narrow(dim, mask.shape[dim] - rest, rest)
        covered += step
    return mask


def boundary_areas(
    prediction: Tensor,
    label: Tensor,
    num_classes: int,
    ignore_index: int = 255,
    dilation_ratio: float = 0.02,
) -> Tensor:
    """Band areas of one image, which add up over a dataset.

    Ignored pixels are taken out of both maps before anything else: they belong to no class, and
    what is predicted there changes nothing. A region ends where ignored pixels begin, in both
    maps alike.

    Args:
        prediction (Tensor): Predicted classes ``(H, W)``, integers.
        label (Tensor): True classes ``(H, W)``, integers.
        num_classes (int): Number of classes ``K``.
        ignore_index (int): The label to leave out. Defaults to 255.
        dilation_ratio (float): Band width as a share of the diagonal. Defaults to 0.02.

    Returns:
        Tensor: ``(3, K)``, int64: pixels per class in both bands, in the prediction's and in
        the label's.

    Raises:
        ValueError: If the two maps differ in shape, are empty or hold other values than classes.
    """
    if prediction.shape != label.shape or label.ndim != 2 or not label.numel():
        raise ValueError(
            'prediction and label must be two (H, W) maps of one shape, with pixels, '
            f'got {tuple(prediction.shape)} and {tuple(label.shape)}'
        )
    ignored = label == ignore_index
    for name, values in (('prediction', prediction), ('label', label)):
        low, high = values.masked_fill(ignored, 0).aminmax()
        if low < 0 or high >= num_classes:
            raise ValueError(
                f'{name} must hold classes 0..{num_classes - 1} or, in label, '
                f'ignore_index={ignore_index}, got values from {int(low)} to {int(high)}'
            )
    nothing = num_classes
    # 16 bits are fast to compare, and hold the classes now that they are known to be in range.
    maps = torch.stack([m.to(torch.int16) for m in (prediction, label)])
    maps.masked_fill_(ignored, nothing)
    band = boundary_band(maps, boundary_distance(label.shape, dilation_ratio))
    maps.masked_fill_(~band, nothing)
    pairs = maps[0].int().mul_(num_classes + 1).add_(maps[1])
    confusion = torch.bincount(pairs.flatten(), minlength=(num_classes + 1) ** 2)
    confusion = confusion.view(num_classes + 1, num_classes + 1)
    areas = torch.stack((confusion.diagonal(), confusion.sum(1), confusion.sum(0)))
    return areas[:, :num_classes]


class BoundaryIoUMetric(BaseMetric):
    """Mean boundary IoU over classes ("bIoU"), for use beside mmseg's ``IoUMetric``.

    For each class, the band of a map is the part of its mask within ``d`` pixels of the mask's
    contour, ``d`` being 2 % of the image diagonal; boundary IoU is the IoU of the predicted and
    the true band. As for mIoU, areas are added up over the dataset before the division, and
    classes that occur in neither map are left out of the mean. See :func:`boundary_band` and
    :func:`boundary_areas` for the geometry and the ignored region.

    Each image is reduced to its ``(3, K)`` areas as it comes; no maps are kept. Result:
    ``bIoU``, in percent.

    Args:
        ignore_index (int): The label to leave out. Defaults to 255.
        dilation_ratio (float): Band width as a share of the image diagonal. Defaults to 0.02.
        collect_device (str): ``'cpu'`` or ``'gpu'``, for distributed evaluation.
            Defaults to ``'cpu'``.
        prefix (str, optional): Prefix of the result's name. Defaults to None.

    Raises:
        ValueError: If ``dilation_ratio`` is not positive.
    """

    def __init__(
        self,
        ignore_index: int = 255,
        dilation_ratio: float = 0.02,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if not dilation_ratio > 0:
            raise ValueError(f'dilation_ratio must be positive, got {dilation_ratio!r}')
        self.ignore_index = ignore_index
        self.dilation_ratio = dilation_ratio

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Add the areas of a batch.

        Args:
            data_batch (Any): Not read.
            data_samples (Sequence[dict]): Samples with ``pred_sem_seg`` and ``gt_sem_seg``, each
                a dict whose ``data`` is a ``(1, H, W)`` map.
        """
        num_classes = len(self.dataset_meta['classes'])
        for sample in data_samples:
            prediction = sample['pred_sem_seg']['data'].squeeze(0)
            label = sample['gt_sem_seg']['data'].squeeze(0).to(prediction.device)
            areas = boundary_areas(
                prediction, label, num_classes, self.ignore_index, self.dilation_ratio
            )
            self.results.append(areas.cpu())

    def compute_metrics(self, results: list[Tensor]) -> dict[str, float]:
        """Divide the summed areas.

        Args:
            results (list[Tensor]): ``(3, K)`` areas of each image.

        Returns:
            dict[str, float]: ``bIoU`` in percent, rounded to two digits.
        """
        both, predicted, true = sum(results).double().numpy()
        union = predicted + true - both
        iou = np.divide(both, union, out=np.full_like(both, np.nan), where=union > 0) * 100
        table = PrettyTable()
        table.add_column('Class', self.dataset_meta['classes'])
        table.add_column('bIoU', iou.round(2))
        print_log(f'per class boundary IoU:\n{table}', MMLogger.get_current_instance())
        mean = np.nanmean(iou) if np.isfinite(iou).any() else np.nan
        return {'bIoU': float(np.round(mean, 2))}

"""The depth metrics of the NYU and KITTI benchmarks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.logging import MMLogger, print_log
from mmseg.evaluation import DepthMetric
from prettytable import PrettyTable
from torch import Tensor


def nyu_crop(height: int, width: int) -> tuple[slice, slice]:
    """Give Eigen's rows and columns for NYU: the part of 480 x 640 pixels with projected depth."""
    return slice(45, 471), slice(41, 601)


def garg_crop(height: int, width: int) -> tuple[slice, slice]:
    """Give Garg's rows and columns for KITTI: the part of a map that its laser reaches."""
    rows = slice(int(0.40810811 * height), int(0.99189189 * height))
    return rows, slice(int(0.03594771 * width), int(0.96405229 * width))


CROPS = dict(nyu_crop=nyu_crop, garg_crop=garg_crop)


def depth_errors(truth: Tensor, prediction: Tensor) -> dict[str, float]:
    """Compute the nine benchmark numbers of one image (Eigen et al., arXiv 1406.2283, Sec. 4).

    Args:
        truth (Tensor): True depths in metres, ``(P,)``, positive.
        prediction (Tensor): Predicted depths in metres, ``(P,)``, positive.

    Returns:
        dict[str, float]: Shares of pixels whose ratio is below 1.25, 1.25² and 1.25³ (``d1``,
        ``d2``, ``d3``); ``abs_rel`` and ``sq_rel``, which divide by the truth; ``rmse`` in
        metres; ``rmse_log``; ``log10``; and ``silog``, 100 times the standard deviation of the
        logarithmic gap, as in the KITTI benchmark.
    """
    truth, prediction = truth.double(), prediction.double()
    silog = 100 * (prediction.log() - truth.log()).std(correction=0).item()
    return DepthMetric._calc_all_metrics(truth, prediction) | dict(silog=silog)


class BenchmarkDepthMetric(DepthMetric):
    """:class:`mmseg.evaluation.DepthMetric` as the NYU and KITTI benchmarks are evaluated.

    It adds the Garg crop, takes KITTI's definition of ``silog``, leaves out images without a
    valid pixel instead of returning NaN, and keeps nine numbers of an image instead of its maps.
    The mean is over images, as published. Only pixels whose true depth lies strictly between the
    bounds count.

    Args:
        crop_type (str, optional): ``'nyu_crop'``, Eigen's for NYU, for maps of 480 x 640;
            ``'garg_crop'``, Garg's for KITTI; None for the whole map. Defaults to None.
        min_depth_eval (float): Lower bound of the true depth in metres. Defaults to 1e-3.
        max_depth_eval (float): Upper bound. Defaults to 10.
        depth_metrics (Sequence[str], optional): The numbers to report, of those that
            :func:`depth_errors` computes. Defaults to None, all nine.
        **kwargs: Further arguments of mmseg's metric.

    Raises:
        ValueError: If ``crop_type`` or one of ``depth_metrics`` is unknown.
        TypeError: If ``depth_metrics`` is a string.
    """

    def __init__(
        self,
        crop_type: str | None = None,
        min_depth_eval: float = 1e-3,
        max_depth_eval: float = 10.0,
        depth_metrics: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        if crop_type is not None and crop_type not in CROPS:
            raise ValueError(f'crop_type must be None or one of {list(CROPS)}, got {crop_type!r}')
        if isinstance(depth_metrics, str):
            raise TypeError(f'depth_metrics must be a list of names, got {depth_metrics!r}')
        unknown = sorted(set(depth_metrics or ()) - set(self.METRICS))
        if unknown:
            raise ValueError(f'depth_metrics must be of {list(self.METRICS)}, got {unknown}')
        super().__init__(min_depth_eval=min_depth_eval, max_depth_eval=max_depth_eval, **kwargs)
        self.crop_type = crop_type
        # mmseg's own check of the names raises a TypeError for every list.
        self.metrics = self.METRICS if depth_metrics is None else tuple(depth_metrics)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Evaluate a batch.

        Every image leaves a row, because distributed evaluation counts them: the sampler repeats
        images until all ranks have as many, and that many rows are cut off in the end.

        Args:
            data_batch (Any): Not read.
            data_samples (Sequence[dict]): Samples with ``pred_depth_map`` and ``gt_depth_map``,
                each a dict whose ``data`` is a ``(1, H, W)`` map in metres.
        """
        done = len(self.results)
        super().process(data_batch, data_samples)
        pairs = self.results[done:]
        self.results[done:] = [depth_errors(*pair) if len(pair[0]) else None for pair in pairs]

    def _get_eval_mask(self, gt_depth: Tensor) -> Tensor:
        mask = (gt_depth > self.min_depth_eval) & (gt_depth < self.max_depth_eval)
        if self.crop_type is None:
            return mask
        inside = torch.zeros_like(mask)
        inside[CROPS[self.crop_type](*gt_depth.shape)] = True
        return mask & inside

    def compute_metrics(self, results: list[dict[str, float] | None]) -> dict[str, float]:
        """Average over images.

        Args:
            results (list[dict[str, float] or None]): The numbers of each image; None for an image
                without a valid pixel, which does not count.

        Returns:
            dict[str, float]: The chosen metrics; NaN if no image had a valid pixel. Nothing with
            ``format_only``.
        """
        if self.format_only:
            return super().compute_metrics(results)
        results = [row for row in results if row is not None]
        count = len(results) or math.nan
        metrics = {name: sum(r[name] for r in results) / count for name in self.metrics}
        table = PrettyTable()
        for name, value in metrics.items():
            table.add_column(name, [round(value, 5)])
        print_log(f'depth of {len(results)} images:\n{table}', MMLogger.get_current_instance())
        return metrics

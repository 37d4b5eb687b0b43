"""PSNR and SSIM of the luma, by scikit-image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from torch import Tensor


class PictureMetric(BaseMetric):
    """PSNR in dB and SSIM, means over the pictures, as papers on super-resolution report them.

    Both are of the luma Y of ITU-R BT.601 of pictures rounded to 256 steps, without a border.
    SSIM has the Gaussian window of its paper (Wang et al., 2004).

    Args:
        border (int): Pixels to leave out at each side; papers take the factor.
        **kwargs: Arguments of :class:`mmengine.evaluator.BaseMetric`.
    """

    def __init__(self, border: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.border = border

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Tensor]]) -> None:
        """Compare pictures.

        Args:
            data_batch: Not used.
            data_samples (Sequence[dict]): ``prediction`` and ``target``, ``(3, H, W)``, RGB from 0
                to 1, more than 10 pixels a side without the border.
        """
        from skimage.metrics import peak_signal_noise_ratio, structural_similarity

        window = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
        for sample in data_samples:
            truth, ours = (self._luma(sample[name]) for name in ('target', 'prediction'))
            psnr = peak_signal_noise_ratio(truth, ours, data_range=255)
            ssim = structural_similarity(truth, ours, data_range=255, **window)
            self.results.append((psnr, ssim))

    def compute_metrics(self, results: list[tuple[float, float]]) -> dict[str, float]:
        """Average over the pictures: ``PSNR`` and ``SSIM``."""
        psnr, ssim = np.mean(results, axis=0).tolist()
        return dict(PSNR=psnr, SSIM=ssim)

    def _luma(self, picture: Tensor) -> np.ndarray:
        from skimage.color import rgb2ycbcr

        steps = (picture.clamp(0, 1) * 255).round().permute(1, 2, 0).cpu().numpy() / 255
        height, width = steps.shape[:2]
        inner = steps[self.border : height - self.border, self.border : width - self.border]
        return rgb2ycbcr(inner)[..., 0]

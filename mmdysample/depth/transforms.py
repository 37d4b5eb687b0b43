"""Crops and colours of the published depth pipelines, as mmseg transforms."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness


class _FixedCrop(BaseTransform):
    """Cut picture and maps to the part that a subclass names; it becomes the whole picture.

    Notes the part as ``crop_box``, (top, bottom, left, right), with which a visualizer can cut
    the picture file in the same way.
    """

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Give top, bottom, left and right of the part to keep."""
        raise NotImplementedError

    def transform(self, results: dict) -> dict:
        """Cut.

        Args:
            results (dict): With ``img`` ``(H, W, 3)`` and the maps that ``seg_fields`` names.

        Returns:
            dict: The same, changed.

        Raises:
            ValueError: If the picture is smaller than the part.
        """
        height, width = results['img'].shape[:2]
        top, bottom, left, right = self.box(height, width)
        if top < 0 or left < 0 or bottom > height or right > width:
            raise ValueError(
                f'{type(self).__name__} cuts rows {top}:{bottom} and columns {left}:{right}, '
                f'but img is {height} x {width}'
            )
        for key in ('img', *results.get('seg_fields', ())):
            results[key] = results[key][top:bottom, left:right]
        results['img_shape'] = results['ori_shape'] = (bottom - top, right - left)
        results['crop_box'] = (top, bottom, left, right)
        return results


class NYUCrop(_FixedCrop):
    """Cut the white frame off the pictures of NYU Depth v2: 480 x 640 to 427 x 565."""

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Keep the same part of every picture."""
        return 45, 472, 43, 608


class KBCrop(_FixedCrop):
    """Cut KITTI's pictures, which differ in size, to one size: bottom, in the middle.

    This is the part that the KITTI benchmark publishes.

    Args:
        size (tuple[int, int]): Height and width. Defaults to ``(352, 1216)``.
    """

    def __init__(self, size: tuple[int, int] = (352, 1216)) -> None:
        self.size = size

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Keep the last rows, and the columns in the middle."""
        top, left = height - self.size[0], (width - self.size[1]) // 2
        return top, height, left, left + self.size[1]


class DepthColorAug(BaseTransform):
    """Change gamma, brightness and the colour channels at random, all three or none.

    As in the published pipelines, gamma acts on values of 0..255, so that it changes the
    brightness as well.

    Args:
        prob (float): Probability. Defaults to 0.5.
        gamma_range (tuple[float, float]): Exponents. Defaults to ``(0.9, 1.1)``.
        brightness_range (tuple[float, float]): Factors. Defaults to ``(0.9, 1.1)``.
        color_range (tuple[float, float]): Factors, drawn for each channel.
            Defaults to ``(0.9, 1.1)``.
    """

    def __init__(
        self,
        prob: float = 0.5,
        gamma_range: tuple[float, float] = (0.9, 1.1),
        brightness_range: tuple[float, float] = (0.9, 1.1),
        color_range: tuple[float, float] = (0.9, 1.1),
    ) -> None:
        self.prob = prob
        self.gamma_range = gamma_range
        self.brightness_range = brightness_range
        self.color_range = color_range

    @cache_randomness
    def draw(self) -> tuple[float, np.ndarray] | None:
        """Draw gamma and the factor of each channel, or None for no change."""
        if np.random.rand() >= self.prob:
            return None
        brightness = np.random.uniform(*self.brightness_range)
        return (
            np.random.uniform(*self.gamma_range),
            brightness * np.random.uniform(*self.color_range, size=3),
        )

    def transform(self, results: dict) -> dict:
        """Change the colours.

        Args:
            results (dict): With ``img`` ``(H, W, 3)``, values of 0..255.

        Returns:
            dict: The same, with ``img`` as float32 where it was changed.
        """
        drawn = self.draw()
        if drawn is not None:
            gamma, factors = drawn
            image = results['img'].astype(np.float32) ** gamma * factors
            results['img'] = image.clip(0, 255).astype(np.float32)
        return results

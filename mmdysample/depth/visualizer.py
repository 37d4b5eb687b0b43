"""Depth maps as pictures, with a scale in metres."""

from __future__ import annotations

from typing import Any

import cv2
import mmcv
import numpy as np
from mmengine.dist import master_only
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer

_GREYS = np.arange(256, dtype=np.uint8)[::-1, None]
_COLOURS = cv2.applyColorMap(_GREYS, cv2.COLORMAP_MAGMA)[:, 0, ::-1]  # near first, RGB
_TICKS = 5


def colour_depth(depth: np.ndarray, depth_range: tuple[float, float]) -> np.ndarray:
    """Colour a depth map: near is bright, far is dark, no depth is grey.

    Args:
        depth (np.ndarray): ``(H, W)`` in metres; no depth is zero, negative or not finite.
        depth_range (tuple[float, float]): Depths of the first and of the last colour.

    Returns:
        np.ndarray: ``(H, W, 3)``, RGB, uint8.
    """
    near, far = depth_range
    valid = np.isfinite(depth) & (depth > 0)
    share = (np.where(valid, depth, near) - near) / max(far - near, 1e-6)
    picture = _COLOURS[(share.clip(0, 1) * 255).round().astype(np.uint8)]
    picture[~valid] = 128
    return picture


def scale_bar(height: int, depth_range: tuple[float, float]) -> np.ndarray:
    """Draw the scale that belongs to :func:`colour_depth`.

    Args:
        height (int): Height in pixels.
        depth_range (tuple[float, float]): Depths at the top and at the bottom, in metres.

    Returns:
        np.ndarray: ``(height, W, 3)``, RGB, uint8, black on white.
    """
    size = max(0.4, height / 640)
    font = dict(fontFace=cv2.FONT_HERSHEY_SIMPLEX, fontScale=size, thickness=max(1, round(size)))
    labels = [f'{value:.2f} m' for value in np.linspace(*depth_range, _TICKS)]
    sizes = [cv2.getTextSize(label, **font)[0] for label in labels]
    margin = sizes[0][1]  # the height of a line of text
    bar_width = 2 * margin
    width = bar_width + max(text_width for text_width, _ in sizes) + 3 * margin
    picture = np.full((height, width, 3), 255, np.uint8)

    length = max(height - 2 * margin, 1)
    rows = np.linspace(*depth_range, length)[:, None].repeat(bar_width, axis=1)
    picture[margin : margin + length, margin : margin + bar_width] = colour_depth(rows, depth_range)
    for index, label in enumerate(labels):
        middle = margin + round(index * (length - 1) / (_TICKS - 1))
        place = (2 * margin + bar_width, middle + margin // 2)
        cv2.putText(picture, label, place, color=(0, 0, 0), lineType=cv2.LINE_AA, **font)
    return picture


def draw_depth(
    image: np.ndarray,
    depth_maps: list[np.ndarray],
    depth_range: tuple[float, float] | None = None,
) -> np.ndarray:
    """Put a picture, its depth maps in colour and their common scale side by side.

    Args:
        image (np.ndarray): ``(H, W, 3)``, RGB, uint8.
        depth_maps (list[np.ndarray]): One or more maps ``(H, W)`` in metres.
        depth_range (tuple[float, float], optional): Nearest and farthest depth of the colours.
            Defaults to None: those of the valid pixels of all maps.

    Returns:
        np.ndarray: ``(H, W', 3)``, RGB, uint8.
    """
    if depth_range is None:
        values = np.concatenate([depth.ravel() for depth in depth_maps])
        values = values[np.isfinite(values) & (values > 0)]
        depth_range = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    coloured = [colour_depth(depth, depth_range) for depth in depth_maps]
    return np.concatenate((image, *coloured, scale_bar(len(image), depth_range)), axis=1)


class DepthLocalVisualizer(SegLocalVisualizer):
    """Draws the picture, true depth, predicted depth and one scale in metres, side by side.

    Samples without depth are drawn as :class:`mmseg.visualization.SegLocalVisualizer` does.

    Args:
        name (str): Name of the instance. Defaults to 'visualizer'.
        *args: Positional arguments of mmseg's visualizer.
        depth_range (tuple[float, float], optional): Depths of the first and the last colour, in
            metres. Defaults to None: from the nearest to the farthest of each picture.
        **kwargs: Keyword arguments of mmseg's visualizer.
    """

    def __init__(
        self,
        name: str = 'visualizer',
        *args: Any,
        depth_range: tuple[float, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, *args, **kwargs)
        self.depth_range = depth_range

    @master_only
    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: SegDataSample | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: str | None = None,
        step: int = 0,
        **kwargs: Any,
    ) -> None:
        """Draw a sample and show it, write it to a file, or hand it to the backends.

        Args:
            name (str): Name of the picture.
            image (np.ndarray): ``(H, W, 3)``, RGB, uint8.
            data_sample (SegDataSample, optional): With ``gt_depth_map`` and ``pred_depth_map``.
                If it has a ``crop_box``, the picture is cut to that. Defaults to None.
            draw_gt (bool): Draw the true depth. Defaults to True.
            draw_pred (bool): Draw the predicted depth. Defaults to True.
            show (bool): Open a window. Defaults to False.
            wait_time (float): Seconds for which the window stays. Defaults to 0.
            out_file (str, optional): File to write, instead of the backends. Defaults to None.
            step (int): Number of the picture, for the backends. Defaults to 0.
            **kwargs: Options of mmseg's visualizer that do not concern depth.
        """
        wanted = dict(gt_depth_map=draw_gt, pred_depth_map=draw_pred)
        maps = [
            np.squeeze(data_sample.get(key).cpu().numpy().data, axis=0)
            for key, draw in wanted.items()
            if draw and data_sample is not None and key in data_sample
        ]
        options = dict(show=show, wait_time=wait_time, out_file=out_file, step=step)
        if not maps:
            super().add_datasample(
                name, image, data_sample, draw_gt, draw_pred, **options, **kwargs
            )
            return
        if 'crop_box' in data_sample:
            top, bottom, left, right = data_sample.crop_box
            image = image[top:bottom, left:right]
        drawn = draw_depth(image, maps, self.depth_range)
        self.set_image(drawn)
        if show:
            self.show(drawn, win_name=name, wait_time=wait_time)
        if out_file is not None:
            mmcv.imwrite(mmcv.rgb2bgr(drawn), out_file)
        else:
            self.add_image(name, drawn, step)

"""Drawing of views over pictures, and of strips of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import cv2
import numpy as np
from mmengine.visualization import Visualizer

from mmdysample.reproduce.report.views import View, boundary, busiest_window, inner_edge

WIDTH = 320
"""Width of a panel in pixels."""

_GAP = 8
_FEWEST_ZOOMED = 32
_MOST_ZOOMED = 80  # pixels that a zoom shows in a row


class Panels:
    """The panels of one picture: what is over it, and a window of it enlarged.

    Args:
        pixels (np.ndarray): ``(H, W, 3)``, RGB, uint8.
        truth (View): Chooses the window: the one that most of its boundary is in.
        palette (Sequence[tuple[int, int, int]]): Colour of each class.
        outlined (bool): Whether neighbouring masks can be of one class, so that lines must part
            them.
        depth_range (tuple[float, float], optional): Depths of the first and the last colour, in
            metres. Defaults to None, which suits pictures without depth.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        truth: View,
        palette: Sequence[tuple[int, int, int]],
        outlined: bool,
        depth_range: tuple[float, float] | None = None,
    ) -> None:
        self.pixels = pixels
        self.palette = palette
        self.outlined = outlined
        self.depth_range = depth_range
        self.visualizer = Visualizer()
        height, width = pixels.shape[:2]
        self.size = round(WIDTH * height / width), WIDTH
        zoomed = min(max(width // 4, _FEWEST_ZOOMED), _MOST_ZOOMED, width)
        window = max(1, min(round(zoomed * height / width), height)), zoomed
        self.window = busiest_window(boundary(truth, (height, width)), window)

    def draw(self, view: View | None) -> np.ndarray:
        """Draw a panel and, below it, its enlarged window.

        Args:
            view (View, optional): What to draw; None for the picture itself, on which the
                window is framed.

        Returns:
            np.ndarray: ``(H, W, 4)``, RGBA, uint8; what is between both is transparent.
        """
        whole = self._panel(view, (0, 0, *self.pixels.shape[:2]), enlarge=False)
        if view is None:
            self._frame(whole)
        zoom = self._panel(view, self.window, enlarge=True)
        gap = np.zeros((_GAP, WIDTH, 4), np.uint8)
        return np.vstack((_opaque(whole), gap, _opaque(zoom)))

    def _panel(self, view: View | None, window: tuple[int, int, int, int], enlarge: bool):
        top, left, height, width = window
        rows, columns = slice(top, top + height), slice(left, left + width)

        def fitted(array: np.ndarray, exact: bool) -> np.ndarray:
            smooth = cv2.INTER_AREA if width > WIDTH else cv2.INTER_CUBIC
            how = cv2.INTER_NEAREST if enlarge or exact else smooth
            part = np.ascontiguousarray(array[rows, columns])
            return cv2.resize(part, self.size[::-1], interpolation=how)

        if view is not None and view.depth is not None:
            from mmdysample.depth.visualizer import colour_depth

            return fitted(colour_depth(view.depth, self.depth_range), exact=True)
        visualizer = self.visualizer
        visualizer.set_image(fitted(self.pixels, exact=False))
        visualizer.ax_save.autoscale(False)  # or lines beyond the border shrink the picture
        if view is not None and view.masks:
            masks = [fitted(mask.astype(np.uint8), exact=True) > 0 for mask in view.masks]
            colours = [self.palette[label] for label in view.labels]
            visualizer.draw_binary_masks(np.stack(masks), colours, 0.5 if view.boxes else 0.7)
            if self.outlined:
                edges = np.any([inner_edge(mask) for mask in masks], axis=0)
                visualizer.draw_binary_masks(edges, 'white', 0.9)
        elif view is not None and view.boxes:
            scale = self.size[1] / width, self.size[0] / height
            moved = (np.stack(view.boxes) - [left, top] * 2) * (scale * 2)
            self._boxes(visualizer, moved, view.labels)
        return visualizer.get_image()

    def _boxes(self, visualizer: Visualizer, boxes: np.ndarray, labels: Sequence[int]) -> None:
        """Draw boxes; lines that leave the panel end beyond its border."""
        beyond = 10
        height, width = self.size
        boxes = boxes.clip(-beyond, [width + beyond, height + beyond] * 2)
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', message='.*out of bounds')  # they are meant to be
            for colour, width in (('white', 3.5), (None, 2)):
                colours = [colour or tuple(self.palette[label]) for label in labels]
                visualizer.draw_bboxes(boxes, edge_colors=colours, line_widths=width, alpha=1)

    def _frame(self, panel: np.ndarray) -> None:
        """Frame the window, so that it is seen on bright and on dark."""
        top, left, height, width = self.window
        scale = self.size[1] / self.pixels.shape[1]
        corners = np.array([[left, top], [left + width, top + height]]) * scale
        (x1, y1), (x2, y2) = corners.round().astype(int).tolist()
        cv2.rectangle(panel, (x1, y1), (x2, y2), (20, 20, 20), 4)
        cv2.rectangle(panel, (x1, y1), (x2, y2), (255, 255, 255), 2)


def join(panels: Sequence[np.ndarray]) -> np.ndarray:
    """Put panels of one height side by side, with transparent gaps."""
    gap = np.zeros((len(panels[0]), _GAP, 4), np.uint8)
    parts = [part for panel in panels for part in (gap, panel)]
    return np.hstack(parts[1:])


def _opaque(picture: np.ndarray) -> np.ndarray:
    return np.dstack((picture, np.full(picture.shape[:2], 255, np.uint8)))

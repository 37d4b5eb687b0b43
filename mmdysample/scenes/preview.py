"""Contact sheets: a few scenes with their truth, side by side."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image, ImageDraw

from mmdysample.scenes.annotations import segments
from mmdysample.scenes.metainfo import PALETTE
from mmdysample.scenes.render import Frame
from mmdysample.scenes.scenes import render_frame


def draw_instances(frame: Frame) -> np.ndarray:
    """Draw the picture with tinted masks and boxes; uint8 RGB (H, W, 3)."""
    picture, boxes = 0.75 * frame.image, []
    for number, part in enumerate(segments(frame)):
        if part.thing and not part.crowd:
            # The class's colour, shifted a little so that neighbours of a class differ.
            shift = np.random.default_rng(number).uniform(-35, 35, 3)
            tint = np.clip(np.array(PALETTE[part.label]) + shift, 0, 255)
            picture[part.mask] = 0.4 * picture[part.mask] + 0.6 * tint
            boxes.append((part.box, tuple(tint.astype(int).tolist())))
    image = Image.fromarray(picture.astype(np.uint8))
    for (x, y, width, height), tint in boxes:
        ImageDraw.Draw(image).rectangle((x, y, x + width - 1, y + height - 1), outline=tint)
    return np.asarray(image)


def draw_semantic(frame: Frame) -> np.ndarray:
    """Draw the semantic map in the classes' colours; uint8 RGB (H, W, 3)."""
    return np.array(PALETTE, np.uint8)[frame.semantic]


def draw_depth(frame: Frame) -> np.ndarray:
    """Draw depth from yellow (near) to violet (far), black where there's none; uint8 (H, W, 3)."""
    valid = frame.depth > 0
    low, high = frame.depth[valid].min(), frame.depth[valid].max()
    near = np.clip((high - frame.depth) / max(high - low, 1e-6), 0, 1)
    colours = cv2.applyColorMap((255 * near).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]
    return np.where(valid[..., None], colours, 0)


def contact_sheet(seed: int, split: str, count: int, size: tuple[int, int]) -> Image.Image:
    """Draw a row for each of the first ``count`` scenes: picture, instances, classes, depth."""
    rows = []
    for index in range(count):
        frame = render_frame(seed, split, index, size)
        cells = [frame.image, draw_instances(frame), draw_semantic(frame), draw_depth(frame)]
        rows.append(np.pad(cells, ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=255))
    return Image.fromarray(np.concatenate([np.concatenate(row, axis=1) for row in rows]))

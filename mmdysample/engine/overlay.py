"""Side by side pictures of the truth and of several detectors' boxes."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
from mmengine.visualization import Visualizer
from PIL import Image

SCORE_THRESHOLD = 0.5
_MIN_WIDTH = 480  # pixels of a panel, so that labels can be read
_TITLE_SIZE = 14


def save_overlays(dataset, predictions: dict[str, Path], folder: Path, count: int) -> list[Path]:
    """Save a picture for each of some images: the truth, then every detector's boxes.

    Args:
        dataset: A detection dataset of MMDetection.
        predictions (dict[str, Path]): Pickles that ``tools/test.py --out`` wrote on this dataset,
            by the title of their panels.
        folder (Path): Where to.
        count (int): How many images, spread evenly over the dataset.

    Returns:
        list[Path]: The pictures.
    """
    found = {
        title: {sample['img_id']: sample['pred_instances'] for sample in _load(path)}
        for title, path in predictions.items()
    }
    classes = dataset.metainfo['classes']
    palette = dataset.metainfo.get('palette') or [(255, 160, 0)] * len(classes)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for index in np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int).tolist():
        info = dataset.get_data_info(index)
        image = Image.open(info['img_path']).convert('RGB')
        scale = max(1.0, _MIN_WIDTH / image.width)
        pixels = np.asarray(image.resize([round(scale * side) for side in image.size]))
        truth = [(item['bbox'], item['bbox_label'], None) for item in info['instances']]
        panels = [_draw(pixels, 'truth', truth, scale, classes, palette)]
        for title, by_image in found.items():
            boxes = _confident(by_image[info['img_id']])
            panels.append(_draw(pixels, title, boxes, scale, classes, palette))
        pictures.append(folder / f'{Path(info["img_path"]).stem}.png')
        Image.fromarray(np.hstack(panels)).save(pictures[-1])
    return pictures


def _load(path: Path) -> list[dict]:
    with path.open('rb') as file:
        return pickle.load(file)


def _confident(instances: dict) -> list[tuple]:
    columns = (instances[key].tolist() for key in ('bboxes', 'labels', 'scores'))
    return [box for box in zip(*columns, strict=True) if box[2] >= SCORE_THRESHOLD]


def _draw(pixels, title: str, boxes: list[tuple], scale: float, classes, palette) -> np.ndarray:
    """Draw boxes (bounds in unscaled pixels, label, score or None) and a title on a copy."""
    visualizer = Visualizer(image=pixels)
    height, width = pixels.shape[:2]
    for bounds, label, score in boxes:
        corners = scale * np.asarray(bounds, dtype=float)
        corners = corners.clip(0, [width - 1, height - 1] * 2)
        colour = tuple(palette[label])
        visualizer.draw_bboxes(corners, edge_colors=colour, line_widths=2)
        text = classes[label] if score is None else f'{classes[label]} {score:.2f}'
        visualizer.draw_texts(
            text, corners[:2], font_sizes=8, colors='white', bboxes=_plate(colour)
        )
    visualizer.draw_texts(
        title,
        np.array([6.0, 6.0]),
        font_sizes=_TITLE_SIZE,
        colors='white',
        bboxes=_plate((0, 0, 0)),
    )
    return visualizer.get_image()


def _plate(colour: tuple) -> dict:
    """Give the background of a text."""
    rgb = tuple(channel / 255 for channel in colour)
    return dict(facecolor=rgb, edgecolor='none', alpha=0.7, pad=1)

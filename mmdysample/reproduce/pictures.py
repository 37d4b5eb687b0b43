"""Truth and predictions side by side, drawn by the frameworks' own visualizers."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import VISUALIZERS, DefaultScope

from mmdysample.engine.checkpoint import load_from_local, require_safe_loading
from mmdysample.engine.errors import UsageError
from mmdysample.engine.files import write_whole
from mmdysample.reproduce.cost import build
from mmdysample.reproduce.results import Run
from mmdysample.reproduce.tables import Table

_WIDTH, _GAP = 320, 8  # of a panel, and between panels, in pixels
_FEW_CLASSES = 20  # more colours than these make no legend


def draw_pictures(
    table: Table, runs: Sequence[Run], folder: Path, count: int
) -> tuple[list[dict[str, Any]], str]:
    """Draw image, truth, the baseline's prediction and DySample's for some pictures of a table.

    Pictures of earlier reports are deleted. What cannot be drawn stops no report.

    Returns:
        tuple: A description of each picture (``file`` in the folder, ``image``, ``seed``,
        ``titles``, ``classes`` with their colours, ``depth_range`` in metres or None), and why
        there is none.
    """
    for path in folder.glob(f'{table.scale}-{table.name}-*.png'):
        path.unlink()
    if count < 1:
        return [], ''
    pair = choose_pair(table, runs)
    if not pair:
        return [], f'they need runs of {table.baseline.name} and of a DySample row with one seed.'
    try:
        return _draw(table, pair, folder, count), ''
    except Exception as error:  # whatever a model, its data or its config may raise
        return [], str(error) if isinstance(error, UsageError) else repr(error)


def choose_pair(table: Table, runs: Sequence[Run]) -> list[Run]:
    """Choose the two runs to show: the baseline and a DySample row, of the lowest seed of both.

    The row is ``dysample`` if that has run, else ``dysample_plus``, else the first other one.
    """
    finished = {(run.row, run.seed): run for run in runs if run.record}
    members = [row for row in table.rows if row.startswith('dysample')]
    members.sort(key=lambda row: (row != 'dysample', not row.startswith('dysample_plus')))
    for member in members:
        for row, seed in sorted(finished):
            if row == member and (table.baseline.name, seed) in finished:
                return [finished[table.baseline.name, seed], finished[member, seed]]
    return []


def _draw(table: Table, pair: Sequence[Run], folder: Path, count: int) -> list[dict[str, Any]]:
    require_safe_loading()
    loaded = [_load(run) for run in pair]
    total, meta = len(loaded[0][2]), loaded[0][2].metainfo
    pairs = zip(meta.get('classes', ()), meta.get('palette', ()), strict=False)
    colours = {name: f'rgb({r} {g} {b})' for name, (r, g, b) in pairs}
    described = []
    for index in np.linspace(0, total - 1, min(count, total)).astype(int).tolist():
        strip, image, depth_range = _picture(table.task, loaded, index)
        file = f'{table.scale}-{table.name}-{index}.png'
        content = cv2.imencode('.png', cv2.cvtColor(strip, cv2.COLOR_RGB2BGR))
        write_whole(folder / file, content[1].tobytes())
        described.append(
            dict(
                file=file,
                image=image,
                seed=pair[0].seed,
                titles=['image', 'truth', *(run.row for run in pair)],
                classes={} if depth_range or len(colours) > _FEW_CLASSES else colours,
                depth_range=depth_range,
            )
        )
    return described


def _load(run: Run) -> tuple[Config, torch.nn.Module, Any]:
    weights = load_from_local(str(run.folder / run.record['checkpoint']), map_location='cpu')
    cfg = Config.fromfile(run.folder / run.record['config_dump'])
    model, dataset = build(cfg)
    model.load_state_dict(weights['state_dict'])
    return cfg, model, dataset


def _picture(
    task: str, loaded: Sequence[tuple[Config, torch.nn.Module, Any]], index: int
) -> tuple[np.ndarray, str, list[float] | None]:
    """Draw the image, the truth and each prediction: ``(H, W, 3)``, RGB, uint8."""
    cfg, _, dataset = loaded[0]
    samples = []
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        path = dataset.get_data_info(index)['img_path']
        for _, model, data in loaded:
            with torch.no_grad():
                samples += model.test_step(pseudo_collate([data[index]]))
        image = mmcv.imread(path, channel_order='rgb')
        if task == 'depth':
            panels, depth_range = _depth_panels(image, samples)
            return _strip(panels, panels[1]), Path(path).name, depth_range
        if task == 'superres':
            shown = [samples[0]['target'], *(sample['prediction'] for sample in samples)]
            shown = [(255 * p.clamp(0, 1)).round().permute(1, 2, 0) for p in shown]
            panels = [p.numpy().astype(np.uint8) for p in shown]
            height, width = panels[0].shape[:2]
            panels = [image[:height, :width], *panels]
            return _strip(panels, panels[1]), Path(path).name, None
        visualizer = VISUALIZERS.build(dict(cfg.visualizer, vis_backends=[], save_dir=None))
    visualizer.dataset_meta = dataset.metainfo
    visualizer.line_width = 1 + image.shape[1] // 400
    visualizer.draw_texts = lambda *_, **__: visualizer  # would cover a small picture; see legend
    options = dict(with_labels=False) if task == 'segmentation' else {}

    def draw(image: np.ndarray, sample: Any, truth: bool) -> np.ndarray:
        with tempfile.NamedTemporaryFile(suffix='.png') as file:
            shown = dict(draw_gt=truth, draw_pred=not truth, out_file=file.name)
            visualizer.add_datasample('', image, sample, **shown, **options)
            return mmcv.imread(file.name, channel_order='rgb')

    alone = draw(np.zeros_like(image), samples[0], truth=True)
    panels = [image, draw(image, samples[0], truth=True)]
    panels += [draw(image, sample, truth=False) for sample in samples]
    return _strip(panels, alone), Path(path).name, None


def _depth_panels(
    image: np.ndarray, samples: Sequence[Any]
) -> tuple[list[np.ndarray], list[float]]:
    """Colour all depth maps of a picture on one scale, which the visualizer of a sample has not."""
    from mmdysample.depth.visualizer import colour_depth

    box = samples[0].metainfo.get('crop_box')
    if box:
        image = image[box[0] : box[1], box[2] : box[3]]
    maps = [samples[0].gt_depth_map, *(sample.pred_depth_map for sample in samples)]
    arrays = [np.asarray(depth.data.cpu()).squeeze(0) for depth in maps]
    values = np.concatenate([array[np.isfinite(array) & (array > 0)] for array in arrays])
    depth_range = [float(values.min()), float(values.max())]
    return [image, *(colour_depth(array, depth_range) for array in arrays)], depth_range


def _strip(panels: Sequence[np.ndarray], truth: np.ndarray) -> np.ndarray:
    """Put panels side by side, and below each the same small window, pixel by pixel.

    The window is the one in which the truth, drawn without the image, has most edges.
    """
    height, width = panels[0].shape[:2]
    edges = cv2.Canny(truth, 40, 80) > 0
    w = min(max(width // 4, 32), 80, width)
    h = max(1, min(round(w * height / width), height))
    counts = cv2.boxFilter(edges.astype(np.float32), -1, (w, h), anchor=(0, 0), normalize=False)
    counts = counts[: height - h + 1, : width - w + 1]
    top, left = np.unravel_index(counts.argmax(), counts.shape)
    size = _WIDTH, round(_WIDTH * height / width)
    smooth = cv2.INTER_AREA if width > _WIDTH else cv2.INTER_CUBIC
    wholes = [cv2.resize(panel, size, interpolation=smooth) for panel in panels]
    scale = _WIDTH / width
    corners = [(round(x * scale), round(y * scale)) for x, y in ((left, top), (left + w, top + h))]
    cv2.rectangle(wholes[0], *corners, (20, 20, 20), 4)
    cv2.rectangle(wholes[0], *corners, (255, 255, 255), 2)
    windows = [np.ascontiguousarray(panel[top : top + h, left : left + w]) for panel in panels]
    zooms = [cv2.resize(window, size, interpolation=cv2.INTER_NEAREST) for window in windows]
    rows = [np.hstack(np.pad(row, ((0, 0), (0, _GAP), (0, _GAP), (0, 0)), constant_values=255))
            for row in (wholes, zooms)]  # fmt: skip
    return np.vstack(rows)[:-_GAP, :-_GAP]


def embedded(path: Path) -> str:
    """Put a picture into an address; as WebP, which keeps a page of many pictures small."""
    content = cv2.imencode('.webp', cv2.imread(str(path)), [cv2.IMWRITE_WEBP_QUALITY, 88])[1]
    return f'data:image/webp;base64,{base64.b64encode(content.tobytes()).decode()}'


def depth_gradient() -> str:
    """Write the colours of depth as CSS."""
    from mmdysample.depth.visualizer import colour_depth

    colours = colour_depth(np.linspace(1, 2, 12)[None], (1, 2))[0]
    stops = ', '.join(f'rgb({r} {g} {b})' for r, g, b in colours.tolist())
    return f'linear-gradient(to right, {stops})'

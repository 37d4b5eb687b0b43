"""Truth and predictions side by side, with tiny models of random weights."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

import mmdysample
from mmdysample.reproduce.report import strips, write_report
from mmdysample.reproduce.report.draw import Panels, join
from mmdysample.reproduce.report.predict import Predictor
from mmdysample.reproduce.report.strips import choose_pair, draw_strips
from mmdysample.reproduce.report.views import View, boundary, busiest_window, inner_edge
from mmdysample.reproduce.results import Result, read_result, run_folder
from mmdysample.reproduce.tables import load_tables
from mmdysample.scenes import render_scenes
from mmdysample.scenes.metainfo import PALETTE

ROOT = Path(mmdysample.__file__).parents[1]
SIZE = (64, 96)
TABLES = load_tables('demo')
NAMES = ('segformer', 'faster_rcnn', 'mask_rcnn', 'panoptic_fpn', 'depthformer')


@pytest.fixture(scope='module')
def data_root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'scenes'
    scenes = dict(num_train=1, num_val=3, size=SIZE, seed=0)
    render_scenes(root, **scenes, workers=1)
    return root


def put_run(work_dir: Path, table, row: str, seed: int, data_root: Path) -> Result:
    """A finished run of which the weights are random."""
    folder = run_folder(work_dir, table, row, seed)
    (folder / 'train').mkdir(parents=True)
    cfg = Config.fromfile(ROOT / table.rows[row].config)
    dataset = cfg.test_dataloader.dataset
    dataset.data_root = f'{data_root}/'
    dataset.scenes = dict(num_train=1, num_val=3, size=list(SIZE), seed=0)
    if 'size' in cfg.model.data_preprocessor:
        cfg.model.data_preprocessor.size = SIZE
    cfg.dump(folder / 'train/config.py')
    torch.manual_seed(len(row))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    with torch.no_grad():  # or it predicts the same everywhere
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    torch.save(dict(state_dict=model.state_dict(), meta={}), folder / 'train/last.pth')
    record = dict(row=row, seed=seed, metrics=dict.fromkeys(table.metrics, 0.5))
    record |= dict(config_dump='train/config.py', checkpoint='train/last.pth')
    (folder / 'result.json').write_text(json.dumps(record))
    return read_result(folder)


def put_pair(work_dir: Path, table, data_root: Path) -> None:
    for row in (table.baseline.name, 'dysample'):
        put_run(work_dir, table, row, 0, data_root)


@pytest.fixture
def every_score_counts(monkeypatch):
    monkeypatch.setattr('mmdysample.reproduce.report.views.SCORE_THRESHOLD', 0.0)


@pytest.mark.parametrize('name', NAMES)
def test_strips_of_every_task(tmp_path, data_root, every_score_counts, name):
    table = TABLES[name]
    put_pair(tmp_path, table, data_root)
    pictures, note = draw_strips(tmp_path, table, tmp_path / 'out', 1)
    assert note == ''
    (picture,) = pictures
    assert picture['titles'] == ['image', 'truth', table.baseline.name, 'dysample']
    strip = np.asarray(Image.open(tmp_path / 'out' / picture['file']))
    height = round(320 * SIZE[0] / SIZE[1])
    assert strip.shape == (2 * height + 8, 4 * 320 + 3 * 8, 4)
    columns = [strip[:, 328 * k : 328 * k + 320, :3].astype(int) for k in range(4)]
    zooms = [column[height + 8 :] for column in columns]
    for column in columns[1:]:
        assert np.abs(column[:height] - columns[0][:height]).mean() > 0.5
    assert np.abs(zooms[1] - zooms[0]).mean() > 0.5
    assert np.abs(columns[2] - columns[3]).max() > 10
    # Nearest neighbour: as coarse as the pixels that it enlarges.
    cells = np.arange(320) * picture['window'][3] // 320
    inside = np.flatnonzero(np.diff(cells) == 0)
    assert np.abs(zooms[0][:, inside] - zooms[0][:, inside + 1]).max() <= 2
    assert bool(picture['depth_range']) == (name == 'depthformer')
    assert bool(picture['classes']) == (name != 'depthformer')


@pytest.mark.parametrize('name', NAMES)
def test_truth_is_that_of_the_files(tmp_path, data_root, name):
    table = TABLES[name]
    result = put_run(tmp_path, table, table.baseline.name, 0, data_root)
    predictor = Predictor(result, table.task)
    _, pixels, truth, _ = predictor.picture(1)
    assert len(predictor) == 3
    assert predictor.palette[:8] == list(PALETTE[:8])
    semantic = np.asarray(Image.open(data_root / 'semantic/val/000001.png'))
    assert pixels.shape == (*SIZE, 3)
    assert (
        np.abs(pixels - np.asarray(Image.open(data_root / 'val/000001.jpg')).astype(int)).max() < 3
    )
    if name == 'depthformer':
        depth = np.asarray(Image.open(data_root / 'depth/val/000001.png')) / 1000
        assert np.allclose(truth.depth, depth)
        return
    assert truth.labels
    for label, mask in zip(truth.labels, truth.masks, strict=False):
        assert mask.any()
        assert (semantic[mask] == label).all()
    if name in ('segformer', 'panoptic_fpn'):
        assert (np.sum(truth.masks, axis=0) == 1).all()
    if name in ('faster_rcnn', 'mask_rcnn'):
        annotations = json.loads((data_root / 'annotations/instances_val.json').read_text())
        image = next(i['id'] for i in annotations['images'] if i['file_name'] == '000001.jpg')
        found = [a for a in annotations['annotations'] if a['image_id'] == image]
        boxes = [a['bbox'] for a in found if not a['iscrowd']]
        corners = [(x, y, x + w, y + h) for x, y, w, h in boxes]
        assert np.allclose(sorted(map(tuple, truth.boxes)), sorted(corners))
    for box, mask in zip(truth.boxes, truth.masks, strict=False):
        rows, columns = np.nonzero(mask)
        assert np.allclose(box, [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def test_predictions_are_those_of_the_frameworks_own_tool(tmp_path, data_root):
    from mmseg.apis import inference_model, init_model

    table = TABLES['segformer']
    result = put_run(tmp_path, table, 'dysample', 0, data_root)
    _, _, _, prediction = Predictor(result, table.task).picture(0)
    files = (str(result.folder / result.record[key]) for key in ('config_dump', 'checkpoint'))
    sample = inference_model(init_model(*files, device='cpu'), str(data_root / 'val/000000.jpg'))
    expected = sample.pred_sem_seg.data[0].numpy()
    shown = np.full(SIZE, -1)
    for label, mask in zip(prediction.labels, prediction.masks, strict=True):
        shown[mask] = label
    assert (shown == expected).all()
    assert len(prediction.labels) > 1


@pytest.fixture
def drawn(monkeypatch) -> list[int]:
    """Indices of the pictures that were drawn, by a stand-in for three pictures."""
    indices: list[int] = []

    def strip(table, pair, predictors, index):
        indices.append(index)
        note = dict(image=f'{index}.jpg', index=index, seed=pair[0].seed, classes={})
        return np.full((4, 4, 4), index, np.uint8), note

    monkeypatch.setattr(strips, 'Predictor', lambda result, task: range(3))
    monkeypatch.setattr(strips, '_strip', strip)
    return indices


def put_files(work_dir: Path, table) -> None:
    """Finished runs whose files are empty, for the stand-in."""
    for row in (table.baseline.name, 'dysample'):
        folder = run_folder(work_dir, table, row, 0)
        (folder / 'train').mkdir(parents=True)
        record = dict(row=row, seed=0, metrics=dict.fromkeys(table.metrics, 0.5))
        record |= dict(config_dump='train/config.py', checkpoint='train/last.pth')
        (folder / 'result.json').write_text(json.dumps(record))
        for key in ('config_dump', 'checkpoint'):
            (folder / record[key]).touch()


def test_pictures_are_kept_until_a_checkpoint_changes(tmp_path, drawn):
    table = TABLES['segformer']
    put_files(tmp_path, table)
    first, note = draw_strips(tmp_path, table, tmp_path / 'out', 2)
    assert note == ''
    assert drawn == [0, 2]
    assert draw_strips(tmp_path, table, tmp_path / 'out', 2) == (first, '')
    assert drawn == [0, 2]
    os.utime(run_folder(tmp_path, table, 'dysample', 0) / 'train/last.pth', (1, 1))
    again, _ = draw_strips(tmp_path, table, tmp_path / 'out', 2)
    assert drawn == [0, 2, 0, 2]
    assert not {picture['file'] for picture in again} & {picture['file'] for picture in first}


def test_a_lost_picture_is_drawn_again(tmp_path, drawn):
    table = TABLES['segformer']
    put_files(tmp_path, table)
    first, _ = draw_strips(tmp_path, table, tmp_path / 'out', 9)
    assert drawn == [0, 1, 2]  # there are no more
    path = tmp_path / 'out' / first[1]['file']
    content = path.read_bytes()
    path.unlink()
    assert draw_strips(tmp_path, table, tmp_path / 'out', 9) == (first, '')
    assert path.read_bytes() == content
    path.write_bytes(content[:50])
    assert draw_strips(tmp_path, table, tmp_path / 'out', 9) == (first, '')
    assert path.read_bytes() == content
    assert len(drawn) == 9


def test_the_page_embeds_its_pictures(tmp_path, data_root):
    table = TABLES['depthformer']
    put_pair(tmp_path, table, data_root)
    page = write_report(tmp_path, [table], tmp_path / 'out', pictures=1)
    source = page.read_text()
    assert source.count('<img src="data:image/webp;base64,') == source.count('<img') == 1
    report = json.loads(page.with_suffix('.json').read_text())
    (picture,) = report['tables'][0]['pictures']
    near, far = picture['depth_range']
    assert 0 < near < far
    at = '/tables/0/pictures/0/depth_range/1'
    assert f'<data value="{far!r}" data-at="{at}">{far:.2f}</data> m' in source
    assert picture['file'] in page.with_suffix('.md').read_text()
    assert len(source) < 1_000_000


def test_a_checkpoint_that_runs_code_is_refused(tmp_path, data_root):
    table = TABLES['segformer']
    put_pair(tmp_path, table, data_root)
    trace = tmp_path / 'trace'

    class Code:
        def __reduce__(self):
            return os.mkdir, (str(trace),)

    path = run_folder(tmp_path, table, 'dysample', 0) / 'train/last.pth'
    path.write_bytes(pickle.dumps(Code()))
    pictures, note = draw_strips(tmp_path, table, tmp_path / 'out', 1)
    assert pictures == []
    assert 'was not loaded' in note
    assert not trace.exists()


def test_what_keeps_pictures_from_being_drawn_is_said(tmp_path, data_root):
    table = TABLES['segformer']
    put_run(tmp_path, table, 'bilinear', 0, data_root)
    result = put_run(tmp_path, table, 'dysample', 1, data_root)
    out = tmp_path / 'out'
    assert 'with the same seed' in draw_strips(tmp_path, table, out, 1)[1]
    other = put_run(tmp_path, table, 'bilinear', 1, data_root)
    (result.folder / 'train/last.pth').rename(result.folder / 'train/kept.pth')
    pictures, note = draw_strips(tmp_path, table, out, 1)
    assert pictures == []
    assert note == 'demo/segformer/dysample/seed1/train/last.pth is not there any more'
    (result.folder / 'train/kept.pth').rename(result.folder / 'train/last.pth')
    (other.folder / 'train/config.py').write_text('model = dict(type="Nothing")\n')
    page = write_report(tmp_path, [table], out, pictures=1)
    assert 'No pictures: ' in page.read_text()
    assert draw_strips(tmp_path, table, out, 0) == ([], '')


def test_the_rows_to_show():
    table = TABLES['segformer']

    def chosen(**seeds):
        results = [
            Result(row, seed, {}, Path(), {}) for row, found in seeds.items() for seed in found
        ]
        pair = choose_pair(table, results)
        return pair and (pair[0].row, pair[1].row, pair[0].seed, pair[1].seed)

    assert chosen(bilinear=[0, 1], dysample=[1, 2], dysample_plus=[0]) == (
        ('bilinear', 'dysample', 1, 1)
    )
    assert chosen(bilinear=[0], dysample=[1], dysample_s=[0], dysample_plus=[0])[1] == (
        'dysample_plus'
    )
    assert chosen(bilinear=[0], dysample_s=[0])[1] == 'dysample_s'
    assert chosen(bilinear=[0], carafe=[0]) is None
    assert chosen(dysample=[0], carafe=[0]) is None


@pytest.mark.parametrize('size', [(3, 4), (1, 1), (8, 11)])
def test_the_window_holds_most_of_the_boundary(size):
    edges = np.random.RandomState(0).rand(8, 11) > 0.7
    top, left, height, width = busiest_window(edges, size)
    counts = {
        (y, x): edges[y : y + height, x : x + width].sum()
        for y in range(8 - height + 1)
        for x in range(11 - width + 1)
    }
    assert (height, width) == size
    assert counts[top, left] == max(counts.values())


def test_boundaries():
    mask = np.zeros((6, 8), bool)
    mask[:4, 2:6] = True
    inside = np.zeros_like(mask)
    inside[:3, 3:5] = True  # the picture's own border is no edge
    assert (inner_edge(mask) == (mask & ~inside)).all()
    from_box = boundary(View([0], boxes=[np.array([2.0, 0.0, 6.0, 4.0])]), mask.shape)
    assert (from_box == inner_edge(mask)).all()
    depth = np.full((4, 5), 2.0)
    depth[:, 3:] = 2.5
    depth[0, 0] = 0  # no depth: no edge
    edges = boundary(View(depth=depth), depth.shape)
    assert np.argwhere(edges).tolist() == [[row, 3] for row in range(4)]


def test_boxes_that_leave_the_window_leave_the_picture_as_it_is():
    pixels = np.random.RandomState(0).randint(0, 255, (80, 160, 3)).astype(np.uint8)
    box = np.array([70.0, 10.0, 155.0, 75.0])
    panels = Panels(pixels, View([0], boxes=[box]), [(255, 0, 0)], outlined=False)
    top, left, height, width = panels.window
    plain, drawn = (panels.draw(view)[168:] for view in (None, View([0], boxes=[box])))
    rows, columns = np.mgrid[:160, :320]
    x, y = left + columns * width / 320, top + rows * height / 160
    x1, y1, x2, y2 = box
    on_line = (np.minimum(abs(x - x1), abs(x - x2)) < 1) | (
        np.minimum(abs(y - y1), abs(y - y2)) < 1
    )
    assert (drawn[~on_line] == plain[~on_line]).all()
    assert (drawn[on_line] != plain[on_line]).any()


def test_tiny_and_tall_pictures_are_drawn():
    palette = [(255, 0, 0)]
    for height, width in ((5, 4), (90, 30), (20, 400)):
        mask = np.zeros((height, width), bool)
        mask[: height // 2] = True
        panels = Panels(np.full((height, width, 3), 90, np.uint8), View([0], [mask]), palette, True)
        drawn = panels.draw(View([0], [mask]))
        assert drawn.shape == (2 * round(320 * height / width) + 8, 320, 4)
        whole = cv2.resize(mask.astype(np.uint8), (320, round(320 * height / width)), None, 0, 0, 0)
        red = drawn[: len(whole), :, 0].astype(int) - drawn[: len(whole), :, 1]
        assert ((red > 50) <= (whole > 0)).all()
        assert (red > 50).any()
    assert join([drawn, drawn]).shape[1] == 648

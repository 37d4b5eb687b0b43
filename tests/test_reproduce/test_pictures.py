"""Truth and predictions side by side, with tiny models of random weights."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('pandas')

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

from mmdysample.engine.launch import project_root
from mmdysample.reproduce import pictures
from mmdysample.reproduce.pictures import choose_pair, draw_pictures
from mmdysample.reproduce.report import write_report
from mmdysample.reproduce.results import Run, find_runs, run_folder
from mmdysample.reproduce.tables import load_tables
from mmdysample.scenes import render_scenes

SIZE = (64, 96)
HEIGHT = round(320 * SIZE[0] / SIZE[1])
TABLES = load_tables('demo')


@pytest.fixture(scope='module')
def data_root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'scenes'
    render_scenes(root, num_train=1, num_val=3, size=SIZE, seed=0, workers=1)
    return root


def put_run(work_dir: Path, table, row: str, seed: int, data_root: Path) -> Path:
    """A finished run of which the weights are random."""
    folder = run_folder(work_dir, table, row, seed)
    (folder / 'train').mkdir(parents=True)
    cfg = Config.fromfile(project_root() / table.rows[row].config)
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
    return folder


@pytest.mark.parametrize('name', TABLES)
def test_strips_of_every_task(tmp_path, data_root, name):
    """Image, truth and two predictions: all unlike each other, and below each its window."""
    table = TABLES[name]
    for row in (table.baseline.name, 'dysample'):
        put_run(tmp_path, table, row, 0, data_root)
    drawn, note = draw_pictures(table, find_runs(tmp_path, table), tmp_path / 'out', 1)
    assert note == ''
    (picture,) = drawn
    assert picture['titles'] == ['image', 'truth', table.baseline.name, 'dysample']
    strip = np.asarray(Image.open(tmp_path / 'out' / picture['file'])).astype(int)
    assert strip.shape == (2 * HEIGHT + 8, 4 * 320 + 3 * 8, 3)
    wholes = [strip[:HEIGHT, 328 * k : 328 * k + 320] for k in range(4)]
    zooms = [strip[HEIGHT + 8 :, 328 * k : 328 * k + 320] for k in range(4)]
    image = cv2.resize(np.asarray(Image.open(data_root / 'val/000000.jpg')), (320, HEIGHT))
    assert np.median(np.abs(wholes[0] - image)) < 4
    assert np.abs(wholes[1] - wholes[0]).max() > 50 and np.abs(zooms[1] - zooms[0]).max() > 50
    if name in ('segformer', 'panoptic_fpn', 'depthformer'):  # weak detectors are sure of nothing
        assert np.abs(wholes[2] - wholes[3]).max() > 10
    # Nearest neighbour: as coarse as the pixels that it enlarges, 32 of them in a row.
    inside = np.flatnonzero(np.diff(np.arange(320) // 10) == 0)
    assert (zooms[0][:, inside] == zooms[0][:, inside + 1]).all()
    assert bool(picture['depth_range']) == (name == 'depthformer')
    assert bool(picture['classes']) == (name != 'depthformer')


def test_true_depth_is_that_of_the_file_on_the_scale_that_is_told(tmp_path, data_root):
    from mmdysample.depth.visualizer import colour_depth

    table = TABLES['depthformer']
    for row in ('bilinear', 'dysample'):
        put_run(tmp_path, table, row, 0, data_root)
    (picture, *_), _ = draw_pictures(table, find_runs(tmp_path, table), tmp_path / 'out', 3)
    near, far = picture['depth_range']
    depth = np.asarray(Image.open(data_root / 'depth/val/000000.png')) / 1000
    assert near <= depth[depth > 0].min() and far >= depth.max()
    strip = np.asarray(Image.open(tmp_path / 'out' / picture['file'])).astype(int)
    expected = cv2.resize(colour_depth(depth, (near, far)), (320, HEIGHT))
    assert np.median(np.abs(strip[:HEIGHT, 328:648] - expected)) <= 2


def test_pictures_of_earlier_reports_are_deleted_and_others_are_kept(tmp_path, data_root):
    table = TABLES['segformer']
    for row in ('bilinear', 'dysample'):
        put_run(tmp_path, table, row, 0, data_root)
    out = tmp_path / 'out'
    runs = find_runs(tmp_path, table)
    many, _ = draw_pictures(table, runs, out, 9)
    assert [picture['image'] for picture in many] == ['000000.jpg', '000001.jpg', '000002.jpg']
    other = out / 'demo-mask_rcnn-0.png'
    other.touch()
    few, _ = draw_pictures(table, runs, out, 2)
    assert {path.name for path in out.iterdir()} == {other.name, *(p['file'] for p in few)}
    assert draw_pictures(table, [], out, 2)[0] == []  # rows that are gone
    assert list(out.iterdir()) == [other]


def test_the_page_embeds_its_pictures(tmp_path, data_root):
    table = TABLES['depthformer']
    for row in ('bilinear', 'dysample'):
        put_run(tmp_path, table, row, 0, data_root)
    page = write_report(tmp_path, [table], tmp_path / 'out', pictures=1)
    source = page.read_text()
    assert source.count('<img src="data:image/webp;base64,') == 1
    assert source.count('<img src="data:image/') == source.count('<img')
    (picture,), _ = draw_pictures(table, find_runs(tmp_path, table), tmp_path / 'again', 1)
    near, far = picture['depth_range']
    assert f'<span>{near:.2f} m</span>' in source and f'<span>{far:.2f} m</span>' in source
    assert picture['file'] in page.with_suffix('.md').read_text()
    assert len(source) < 1_000_000


def test_what_keeps_pictures_from_being_drawn_is_said(tmp_path, data_root):
    """And keeps nothing else from being reported; least of all does it run code."""
    table, trace = TABLES['segformer'], tmp_path / 'trace'

    class Code:
        def __reduce__(self):
            return os.mkdir, (str(trace),)

    put_run(tmp_path, table, 'bilinear', 0, data_root)
    assert 'with one seed' in draw_pictures(table, find_runs(tmp_path, table), tmp_path, 1)[1]
    checkpoint = put_run(tmp_path, table, 'dysample', 0, data_root) / 'train/last.pth'
    checkpoint.write_bytes(pickle.dumps(Code()))
    page = write_report(tmp_path, [table], tmp_path / 'out', pictures=1)
    assert 'No pictures: ' in page.read_text() and 'was not loaded' in page.read_text()
    assert not trace.exists()
    checkpoint.unlink()
    found, reason = draw_pictures(table, find_runs(tmp_path, table), tmp_path / 'out', 1)
    assert found == [] and reason == f'checkpoint {checkpoint} does not exist'


def test_the_rows_to_show():
    table = load_tables('full')['segformer']

    def chosen(**seeds):
        runs = [
            Run(row, seed, 'finished', Path(), dict(row=row))
            for row, found in seeds.items()
            for seed in found
        ]
        return [(run.row, run.seed) for run in choose_pair(table, runs)]

    found = chosen(bilinear=[0, 1], dysample=[1, 2], dysample_plus=[0])
    assert found == [('bilinear', 1), ('dysample', 1)]
    found = chosen(bilinear=[0], dysample=[1], dysample_s=[0], dysample_plus=[0])
    assert found[1] == ('dysample_plus', 0)
    assert chosen(bilinear=[0], dysample_s=[0])[1] == ('dysample_s', 0)
    assert chosen(bilinear=[0], carafe=[0]) == chosen(dysample=[0], carafe=[0]) == []


def test_the_window_is_where_the_truth_has_most_edges():
    """And not where the image has most: it is a chessboard but for the truth's object."""
    image = np.kron(np.indices((45, 60)).sum(0) % 2, np.ones((2, 2)))[..., None].repeat(3, -1)
    image = (image * 100).astype(np.uint8)
    truth = np.zeros_like(image)
    truth[60:80:4, 80:110] = 255
    strip = pictures._strip([image, image], truth)
    frame = np.argwhere((strip[:240, :320] == 255).all(-1)) * 120 / 320
    (top, left), (bottom, right) = frame.min(0), frame.max(0)
    assert top >= 45 and left >= 70 and bottom - top < 30 and right - left < 40
    for shape in ((5, 4, 3), (90, 30, 3), (20, 400, 3)):
        small = np.zeros(shape, np.uint8)
        assert pictures._strip([small, small], small).shape[1] == 648


def test_the_window_of_a_picture_is_at_its_objects(tmp_path, data_root):
    """The frame that is drawn on the image holds edges of the true classes."""
    table = TABLES['segformer']
    for row in ('bilinear', 'dysample'):
        put_run(tmp_path, table, row, 0, data_root)
    (picture,), _ = draw_pictures(table, find_runs(tmp_path, table), tmp_path / 'out', 1)
    strip = np.asarray(Image.open(tmp_path / 'out' / picture['file'])).astype(int)
    labels = np.asarray(Image.open(data_root / 'semantic/val/000000.png'))
    frame = np.argwhere((strip[:HEIGHT, :320] == 255).all(-1)) * SIZE[1] / 320
    (top, left), (bottom, right) = frame.min(0).astype(int), frame.max(0).astype(int)
    inside = labels[top : bottom + 1, left : right + 1]
    edges = (np.diff(labels, axis=1) != 0).mean(), (np.diff(inside, axis=1) != 0).mean()
    assert edges[1] > 1.5 * edges[0]

"""Transforms, datasets, the check of their folders, and pictures."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('mmseg')
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.registry import DATASETS
from mmseg.structures import SegDataSample

import mmdysample
from mmdysample.depth import (
    DepthColorAug,
    DepthLocalVisualizer,
    KBCrop,
    KITTIDepthDataset,
    NYUCrop,
    check_data,
)
from mmdysample.depth.visualizer import colour_depth, draw_depth, scale_bar

BASES = Path(mmdysample.__file__).parents[1] / 'configs' / '_base_' / 'datasets'

pytestmark = [pytest.mark.smoke, pytest.mark.usefixtures('mmseg_scope')]


# ---- transforms --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('crop', 'size', 'box'),
    [
        (NYUCrop(), (480, 640), (45, 472, 43, 608)),
        (KBCrop(), (375, 1242), (23, 375, 13, 1229)),
        (KBCrop(), (376, 1241), (24, 376, 12, 1228)),
        (KBCrop(size=(2, 3)), (4, 6), (2, 4, 1, 4)),
    ],
)
def test_crops_cut_picture_and_depth_alike(crop, size, box):
    places = np.arange(size[0] * size[1], dtype=np.float32).reshape(size)
    results = dict(img=np.dstack([places] * 3), depth=places, seg_fields=['depth'])
    results = crop(results)
    top, bottom, left, right = box
    assert np.array_equal(results['depth'], places[top:bottom, left:right])
    assert np.array_equal(results['img'][..., 1], results['depth'])
    assert results['ori_shape'] == results['img_shape'] == results['depth'].shape
    assert results['crop_box'] == box


def test_crop_refuses_small_pictures():
    with pytest.raises(ValueError, match=r'NYUCrop cuts rows 45:472 .* img is 240 x 320'):
        NYUCrop()(dict(img=np.zeros((240, 320, 3))))


def test_colours_change_by_gamma_and_factors():
    constant = dict(gamma_range=(1.1, 1.1), brightness_range=(0.5, 0.5), color_range=(0.9, 0.9))
    results = DepthColorAug(prob=1.0, **constant)(
        dict(img=np.full((2, 2, 3), 100, np.uint8), gt_depth_map=np.ones((2, 2)))
    )
    assert np.allclose(results['img'], 100**1.1 * 0.45)
    assert results['img'].dtype == np.float32
    bright = DepthColorAug(prob=1.0, brightness_range=(9, 9))(dict(img=np.full((1, 1, 3), 200.0)))
    assert (bright['img'] == 255).all()
    unchanged = np.full((1, 1, 3), 7, np.uint8)
    assert DepthColorAug(prob=0.0)(dict(img=unchanged))['img'] is unchanged


# ---- the pipelines of the configs, on files as the datasets have them --------------------------


def write_pair(picture, depth_map, size, depth):
    for path in (picture, depth_map):
        path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(0, 255, size[1]).astype(np.uint8)
    cv2.imwrite(str(picture), np.broadcast_to(ramp[:, None], (*size, 3)))
    cv2.imwrite(str(depth_map), np.broadcast_to(depth, size).astype(np.uint16))


def nyu(root):
    depth = np.linspace(500, 9000, 640).round()
    depth[300:320] = 0
    for split in ('train', 'test'):
        folders = root / 'images' / split, root / 'annotations' / split
        write_pair(folders[0] / 'cafe_1.jpg', folders[1] / 'cafe_1.png', (480, 640), depth)
    return Config.fromfile(BASES / 'nyu_depth.py'), depth / 1000


def kitti(root):
    depth = np.linspace(256, 256 * 70, 1242).round()
    depth[::2] = 0
    lines = ['a/1.png b/1.png 721.5', 'a/0.png b/0.png 721.5', 'a/2.png None 721.5']
    for number in (0, 1):
        picture, depth_map = root / 'input' / f'a/{number}.png', root / f'gt_depth/b/{number}.png'
        write_pair(picture, depth_map, (375, 1242), depth)
    for split in ('train', 'test'):
        (root / f'kitti_eigen_{split}.txt').write_text('\n'.join(lines))
    return Config.fromfile(BASES / 'kitti_depth.py'), depth / 256


@pytest.mark.parametrize(('make', 'crop'), [(nyu, (416, 544)), (kitti, (352, 704))])
def test_training_pipeline(make, crop, tmp_path):
    """Depth stays metric and in step with the picture, whose grey values rise with it."""
    config, depth = make(tmp_path)
    dataset = DATASETS.build(dict(config.train_dataloader.dataset, data_root=str(tmp_path)))
    for seed in range(6):
        np.random.seed(seed)
        sample = dataset[0]
        truth = sample['data_samples'].gt_depth_map.data
        assert truth.shape == (1, *crop)
        assert sample['inputs'].shape == (3, *crop)
        valid = truth[0] > 0
        assert 0.3 < valid.float().mean() < 0.999
        assert truth.max() <= depth.max() + 1e-3
        assert set(np.unique(truth.numpy().round(4))) <= set(depth.astype('f').round(4))
        grey = sample['inputs'].float().mean(0)[valid]
        assert np.corrcoef(grey, truth[0][valid])[0, 1] > 0.9


@pytest.mark.parametrize(
    ('make', 'columns'), [(nyu, slice(0, 640)), (kitti, slice(13, 1229))], ids=['nyu', 'kitti']
)
def test_test_pipelines(make, columns, tmp_path):
    config, depth = make(tmp_path)
    options = dict(config.test_dataloader.dataset, data_root=str(tmp_path))
    sample = DATASETS.build(options)[0]
    truth = sample['data_samples'].gt_depth_map.data
    assert torch.allclose(truth[0, 0], torch.tensor(depth[columns]).float(), atol=1e-3)


def test_kitti_leaves_out_pictures_without_depth(tmp_path):
    kitti(tmp_path)
    dataset = KITTIDepthDataset(
        ann_file='kitti_eigen_test.txt', data_root=str(tmp_path), test_mode=True, pipeline=[]
    )
    assert [Path(item['img_path']).name for item in dataset] == ['0.png', '1.png']


# ---- the check of a folder ---------------------------------------------------------------------


@pytest.fixture
def complete(tmp_path, monkeypatch):
    monkeypatch.setattr(check_data, 'NYU_COUNTS', dict(train=1, test=1))
    monkeypatch.setattr(check_data, 'KITTI_COUNTS', dict(train=2, test=2))
    nyu(tmp_path / 'nyu')
    kitti(tmp_path / 'kitti')
    return tmp_path


@pytest.mark.parametrize('name', ['nyu', 'kitti'])
def test_complete_folders_pass(complete, name, capsys):
    assert check_data.main([name, str(complete / name)]) == 0
    assert 'is complete' in capsys.readouterr().out


def spoil(path, depth):
    cv2.imwrite(str(path), depth)


@pytest.mark.parametrize(
    ('name', 'damage', 'message'),
    [
        ('nyu', lambda root: (root / 'images/test/cafe_1.jpg').unlink(), 'test: no picture for'),
        (
            'nyu',
            lambda root: (root / 'annotations/train/cafe_1.png').unlink(),
            'train: no depth map for cafe_1',
        ),
        (
            'nyu',
            lambda root: (root / 'images').rename(root / 'jpg'),
            'images/train: folder missing',
        ),
        (
            'nyu',
            lambda root: spoil(root / 'annotations/train/cafe_1.png', np.ones((2, 2), np.uint8)),
            'uint8 of shape .2, 2., not 16 bit',
        ),
        (
            'nyu',
            lambda root: spoil(
                root / 'annotations/train/cafe_1.png', np.full((2, 2), 20000, np.uint16)
            ),
            'up to 20.0 m',
        ),
        (
            'nyu',
            lambda root: (root / 'annotations/test/cafe_1.png').write_bytes(b'GIF'),
            'cannot be read',
        ),
        ('kitti', lambda root: (root / 'gt_depth/b/0.png').unlink(), 'missing: gt_depth/b/0.png'),
        ('kitti', lambda root: (root / 'input/a/1.png').unlink(), 'missing: a/1.png'),
        ('kitti', lambda root: (root / 'kitti_eigen_train.txt').unlink(), 'list missing'),
        (
            'kitti',
            lambda root: (root / 'kitti_eigen_train.txt').write_text('a/1.png'),
            'line 1 must name a picture and a depth map',
        ),
        (
            'kitti',
            lambda root: (root / 'kitti_eigen_train.txt').write_text('a/1.png b/1.png 1'),
            'train: 1 pairs, the benchmark has 2',
        ),
    ],
)
def test_damage_is_named(complete, name, damage, message, capsys):
    damage(complete / name)
    assert check_data.main([name, str(complete / name)]) == 1
    problems = capsys.readouterr().err
    assert re.search(message, problems), problems


# ---- pictures ----------------------------------------------------------------------------------


def test_near_is_brighter_than_far_and_no_depth_is_grey():
    depth = np.array([[1.0, 2.0, 3.0, 0.0, np.nan]])
    luminance = colour_depth(depth, (1.0, 3.0))[0].astype(int).sum(1)
    assert luminance[0] > luminance[1] > luminance[2]
    assert (colour_depth(depth, (1.0, 3.0))[0, 3:] == 128).all()


@pytest.mark.parametrize('height', [40, 192, 480])
def test_scale_bar_has_the_colours_of_the_map(height):
    bar = scale_bar(height, (2.0, 8.0))
    assert len(bar) == height
    wanted = colour_depth(np.array([[2.0, 8.0]]), (2.0, 8.0))[0]
    inked = (bar != 255).any(2)
    left = np.flatnonzero(inked.any(0))[0]  # the bar; its labels stand to the right
    rows = np.flatnonzero(inked[:, left])
    assert np.array_equal(bar[rows[[0, -1]], left], wanted)
    assert (bar[:, left + height // 8 :] < 128).all(2).any()


def test_picture_truth_prediction_and_scale_side_by_side(tmp_path):
    image = np.random.RandomState(0).randint(0, 256, (60, 80, 3), dtype=np.uint8)
    truth, prediction = np.full((40, 50), 2.0), np.full((40, 50), 4.0)
    truth[:, :10] = 0
    sample = SegDataSample(
        metainfo=dict(crop_box=(20, 60, 15, 65)),
        gt_depth_map=PixelData(data=torch.tensor(truth)[None]),
        pred_depth_map=PixelData(data=torch.tensor(prediction)[None]),
    )
    file = tmp_path / 'depth.png'
    DepthLocalVisualizer().add_datasample('depth', image, sample, out_file=str(file))
    drawn = cv2.imread(str(file))[..., ::-1]
    wanted = draw_depth(image[20:60, 15:65], [truth, prediction], (2.0, 4.0))
    assert np.array_equal(drawn, wanted)
    near, far = colour_depth(np.array([[2.0, 4.0]]), (2.0, 4.0))[0]
    assert (drawn[:, 50:60] == 128).all()
    assert (drawn[:, 60:100] == near).all() and (drawn[:, 100:150] == far).all()


def test_other_samples_are_left_to_mmseg(tmp_path):
    image = np.zeros((8, 8, 3), np.uint8)
    sample = SegDataSample(pred_sem_seg=PixelData(data=torch.ones(1, 8, 8, dtype=torch.long)))
    visualizer = DepthLocalVisualizer()
    visualizer.dataset_meta = dict(classes=['a', 'b'], palette=[[0, 0, 0], [250, 0, 0]])
    file = tmp_path / 'seg.png'
    visualizer.add_datasample('seg', image, sample, out_file=str(file), with_labels=False)
    assert cv2.imread(str(file))[..., 2].min() == 200


def test_a_map_without_depth_is_drawn():
    assert draw_depth(np.zeros((40, 5, 3), np.uint8), [np.zeros((40, 5))]).shape[0] == 40

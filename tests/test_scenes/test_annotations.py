"""Boxes, masks, panoptic segments and crowds against the pixel maps that they come from."""

from __future__ import annotations

import numpy as np
import pytest

from mmdysample.scenes import CLASSES, THINGS, render_frame
from mmdysample.scenes.annotations import (
    MIN_PIXELS,
    depth_picture,
    instance_annotations,
    panoptic_annotation,
    run_lengths,
    segments,
)
from mmdysample.scenes.preview import contact_sheet, draw_depth
from mmdysample.scenes.render import Frame


def frame_of(instance, semantic):
    instance = np.asarray(instance, dtype=np.int32)
    semantic = np.asarray(semantic, dtype=np.uint8)
    image = np.zeros((*instance.shape, 3), np.uint8)
    return Frame(image, instance, semantic, np.ones(instance.shape, np.float32))


@pytest.mark.parametrize('index', range(3))
def test_segments_partition_the_picture(index):
    frame = render_frame(4, 'train', index, (96, 128))
    parts = segments(frame)
    assert (sum(part.mask.astype(int) for part in parts) == 1).all()
    for part in parts:
        assert (frame.semantic[part.mask] == part.label).all()
        x, y, width, height = part.box
        rows, columns = np.nonzero(part.mask)
        assert (x, y) == (columns.min(), rows.min())
        assert (x + width - 1, y + height - 1) == (columns.max(), rows.max())
        if part.thing and not part.crowd:
            assert len(np.unique(frame.instance[part.mask])) == 1
            assert part.area >= MIN_PIXELS
    assert len({part.label for part in parts if not part.thing}) == len(
        [part for part in parts if not part.thing]
    )


def test_tiny_objects_become_one_crowd_for_each_class():
    instance = np.zeros((20, 30), int)
    semantic = np.full((20, 30), CLASSES.index('wall'))
    ball, cone = THINGS.index('ball'), THINGS.index('cone')
    for number, (rows, columns, label) in enumerate(
        [
            (slice(0, 4), slice(0, 5), ball),  # 20 pixels: just an instance
            (slice(6, 8), slice(0, 5), ball),  # tiny
            (slice(6, 8), slice(20, 25), ball),  # tiny, same crowd
            (slice(10, 11), slice(3, 22), cone),
        ],
        1,
    ):  # 19 pixels: tiny
        instance[rows, columns], semantic[rows, columns] = number, label
    parts = segments(frame_of(instance, semantic))
    assert [(CLASSES[p.label], p.crowd, p.area) for p in parts] == [
        ('ball', False, 20),
        ('ball', True, 20),
        ('cone', True, 19),
        ('wall', False, 541),
    ]
    assert parts[1].box == (0, 6, 25, 2)
    assert [a['iscrowd'] for a in instance_annotations(parts)] == [0, 1, 1]


def test_panoptic_ids_are_unique_and_name_their_pixels():
    parts = segments(render_frame(4, 'val', 0, (96, 128)))
    picture, infos = panoptic_annotation(parts)
    ids = picture.astype(int) @ [1, 256, 65536]
    assert set(np.unique(ids)) == {info['id'] for info in infos}
    for part, info in zip(parts, infos, strict=True):
        assert ((ids == info['id']) == part.mask).all()
        assert info['category_id'] == part.label + 1
        assert info['area'] == part.area


@pytest.mark.parametrize('kind', ['empty', 'full', 'first', 'last', 'random'])
def test_run_lengths_are_read_back_by_pycocotools(kind):
    masks = pytest.importorskip('pycocotools.mask')
    mask = np.zeros((7, 9), bool)
    if kind == 'full':
        mask[:] = True
    elif kind in ('first', 'last'):
        mask.flat[0 if kind == 'first' else -1] = True
    elif kind == 'random':
        mask = np.random.default_rng(0).random((7, 9)) < 0.5
    code = run_lengths(mask)
    assert (masks.decode(masks.frPyObjects(code, *mask.shape)) == mask).all()


def test_depth_is_written_in_millimetres():
    frame = frame_of(np.zeros((1, 3)), np.zeros((1, 3)))
    frame.depth[0] = (0.0, 1.2344, 9.9996)
    picture = depth_picture(frame)
    assert picture.dtype == np.uint16
    assert picture.tolist() == [[0, 1234, 10000]]


def test_contact_sheet_shows_four_views_of_each_scene():
    sheet = np.asarray(contact_sheet(4, 'train', 2, (64, 96)))
    assert sheet.shape == (2 * 68, 4 * 100, 3)
    frame = render_frame(4, 'train', 1, (64, 96))
    assert (sheet[70:134, 2:98] == frame.image).all()
    assert (sheet[70:134, 302:398] == draw_depth(frame)).all()

"""Scenes are reproducible, and varied in size, occlusion and thinness."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from mmdysample.scenes import CLASSES, THINGS, compose, render_frame
from mmdysample.scenes.annotations import segments
from mmdysample.scenes.render import MAX_DEPTH, render


def digest(frame):
    parts = (frame.image, frame.instance, frame.semantic, frame.depth)
    return hashlib.sha256(b''.join(part.tobytes() for part in parts)).hexdigest()


def test_a_scene_depends_on_its_key_alone():
    keys = [(0, 'train', 0), (0, 'train', 1), (0, 'val', 0), (1, 'train', 0)]
    forward = {key: digest(render_frame(*key, (64, 96))) for key in keys}
    backward = {key: digest(render_frame(*key, (64, 96))) for key in reversed(keys)}
    assert forward == backward
    assert len(set(forward.values())) == len(keys)


@pytest.mark.smoke
def test_a_fresh_process_renders_the_same_bytes():
    code = (
        'import hashlib; from mmdysample.scenes import render_frame\n'
        "f = render_frame(5, 'val', 7, (64, 96))\n"
        'parts = (f.image, f.instance, f.semantic, f.depth)\n'
        "print(hashlib.sha256(b''.join(p.tobytes() for p in parts)).hexdigest())"
    )
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert run.stdout.split()[-1] == digest(render_frame(5, 'val', 7, (64, 96)))


@pytest.mark.parametrize(
    'key, words',
    [
        ((0, 'test', 0), "split.*'train', 'val'.*'test'"),
        ((-1, 'train', 0), 'seed.*-1'),
        ((0, 'train', -2), 'index.*-2'),
    ],
)
def test_bad_keys_are_refused(key, words):
    with pytest.raises(ValueError, match=words):
        compose(*key)


@pytest.mark.parametrize('size', [(192, 256), (32, 200), (200, 32)])
def test_everything_lies_before_the_camera_and_the_stuff_fills_the_picture(size):
    for index in (4, 76, 84, *range(12)):
        scene = compose(5, 'val', index, size)
        assert scene.camera.project(scene.triangles)[..., 2].min() > 0.1
        stuff = render(replace(scene, things=())).semantic
        names = [CLASSES.index(name) for name in ('sky', 'wall', 'ground')]
        # Downwards sky, wall and ground; a picture of usual shape shows wall from side to side.
        order = np.argmax(stuff[..., None] == names, axis=-1)
        assert (np.diff(order, axis=0) >= 0).all() and (order[-1] == 2).all()
        assert (order == 1).any(axis=0).all() or size[0] < 100


def solitary_masks(scene):
    """For each object, the pixels that it would cover were it alone."""
    for thing in scene.things:
        yield render(replace(scene, things=(thing,), stuff=())).instance > 0


def eroded(mask):
    """The pixels whose eight neighbours are all in the mask."""
    padded = np.pad(mask, 1)
    height, width = mask.shape
    return np.all(
        [padded[i : i + height, j : j + width] for i in range(3) for j in range(3)], axis=0
    )


def test_scenes_are_varied():
    extents, hidden, thin, classes, skies = [], [], [], set(), []
    for index in range(10):
        scene = compose(0, 'train', index, (192, 256))
        frame = render(scene)
        assert frame.depth.max() <= MAX_DEPTH
        things = [part for part in segments(frame) if part.thing and not part.crowd]
        assert len(things) >= 4
        classes |= {CLASSES[part.label] for part in things}
        extents += [max(part.box[2:]) for part in things]
        thin += [1 - eroded(part.mask).sum() / part.area for part in things if part.area > 100]
        for number, whole in enumerate(solitary_masks(scene), 1):
            if whole.sum() >= 50:
                visible = frame.instance == number
                assert not (visible & ~whole).any()
                hidden.append(1 - visible.sum() / whole.sum())
        skies.append((frame.semantic == CLASSES.index('sky')).any())
    extents, hidden, thin = map(np.array, (extents, hidden, thin))
    assert classes == set(THINGS)
    assert extents.min() <= 16 and extents.max() >= 100
    assert (extents < 32).mean() > 0.1 and (extents > 64).mean() > 0.1
    assert np.median(extents) > 35  # most are large enough for a small detector
    assert 0.1 < (hidden > 0.1).mean() < 0.8
    assert (thin > 0.8).mean() > 0.03
    assert 0 < np.mean(skies) < 1

"""The renderer against ray casting, and by hand where a scene is simple enough."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from oracles.scene_rays import nearest, pixel_ray

from mmdysample.scenes import CLASSES, compose
from mmdysample.scenes.objects import BUILDERS, assemble
from mmdysample.scenes.render import Camera, render
from mmdysample.scenes.shapes import BALL, BOX, BRANCH, CLUMP, CYLINDER, ROD, axis_rotation, lathe
from mmdysample.scenes.textures import PATTERNS, Material, albedo, noise, wave

GREY = Material((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def borders(labels):
    """Pixels of a map (H, W) that differ from one of their four neighbours."""
    padded = np.pad(labels, 1, mode='edge')
    centre = padded[1:-1, 1:-1]
    sides = padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]
    return np.any([centre != side for side in sides], axis=0)


@pytest.mark.parametrize('index', range(4))
def test_truth_equals_ray_casting_also_at_borders(index):
    scene = compose(11, 'train', index, (72, 96))
    frame, rng = render(scene), np.random.default_rng(index)
    kinds, names = set(), [item.name for item in scene.things + scene.stuff]
    for chosen in (borders(frame.instance), frame.instance > 0, frame.instance >= 0):
        pixels = np.argwhere(chosen)
        for y, x in pixels[rng.choice(len(pixels), 40)]:
            t, winner = nearest(scene.triangles, *pixel_ray(scene.camera, x, y))
            if winner is None:
                kinds.add('sky')
                assert frame.depth[y, x] == 0 and CLASSES[frame.semantic[y, x]] == 'sky'
                continue
            owner = scene.owners[winner]
            kinds.add(names[owner])
            assert frame.depth[y, x] == pytest.approx(t, rel=1e-6)
            assert frame.instance[y, x] == (owner + 1 if owner < len(scene.things) else 0)
            assert CLASSES[frame.semantic[y, x]] == names[owner]
    assert len(kinds) >= 5


@pytest.mark.parametrize('index', range(2))
def test_shadows_on_the_stuff_equal_ray_casting(index):
    # With the sun as the only light, what lies in shadow is black.
    scene = replace(
        compose(12, 'train', index, (120, 160)),
        skylight=np.zeros(3),
        sky=(np.zeros(3), np.zeros(3)),
        grain=0.0,
    )
    frame, rng = render(scene), np.random.default_rng(index)
    black = (frame.image == 0).all(axis=-1)
    blockers = scene.triangles[scene.owners < len(scene.things)]
    stuff = [CLASSES.index(name) for name in ('ground', 'wall')]
    clear = ~borders(black) & np.isin(frame.semantic, stuff)
    for dark in (True, False):
        pixels = np.argwhere(clear & (black == dark))
        assert len(pixels) >= 40
        for y, x in pixels[rng.choice(len(pixels), 40)]:
            origin, direction = pixel_ray(scene.camera, x, y)
            point = origin + nearest(scene.triangles, origin, direction)[0] * direction
            assert (nearest(blockers, point, scene.sun)[1] is not None) == dark


TURN = np.append(np.linspace(0, 2 * np.pi, 24, endpoint=False), 0)
TORUS = lathe(np.stack([0.5 + 0.15 * np.cos(TURN), 0.15 * np.sin(TURN)], axis=1), 48)
VOLUMES = dict(
    ball=(BALL, 4 / 3 * np.pi),
    clump=(CLUMP, 4 / 3 * np.pi),
    box=(BOX, 1.0),
    cylinder=(CYLINDER, np.pi),
    rod=(ROD, np.pi),
    branch=(BRANCH, np.pi / 3 * (1 + 0.6 + 0.36)),
    torus=(TORUS, 2 * np.pi**2 * 0.5 * 0.15**2),
)


@pytest.mark.parametrize('name', VOLUMES)
def test_solids_are_closed_and_their_normals_point_outwards(name):
    solid, volume = VOLUMES[name]
    turned = solid.put((0.1, -0.2, 3.0), (1.0, 2.0, 0.5), axis_rotation('x', 0.7))
    for triangles, normals in (solid, turned):
        corners = np.round(triangles, 9) + 0.0
        edges = [(tuple(t[i]), tuple(t[(i + 1) % 3])) for t in corners for i in range(3)]
        assert len(set(edges)) == len(edges)
        assert {(b, a) for a, b in edges} == set(edges)
        # The divergence theorem; a solid of few sides is somewhat smaller than the round one.
        enclosed = np.linalg.det(triangles).sum() / 6
        assert 0.75 * volume < enclosed < (1 + 1e-9) * volume
        a, b, c = np.moveaxis(triangles, 1, 0)
        outward = np.cross(b - a, c - a)[:, None]
        cosine = (outward * normals).sum(-1) / np.linalg.norm(outward, axis=-1)
        assert (cosine / np.linalg.norm(normals, axis=-1) > 0.6).all()


def two_balls(order):
    small = assemble(np.random.default_rng(0), 'ball', [(GREY, BALL.put((0, 1, 3), 0.3))])
    large = assemble(np.random.default_rng(0), 'drum', [(GREY, BALL.put((0.2, 1, 5), 0.8))])
    scene = compose(0, 'train', 0, (61, 81))
    things = tuple((small, large)[i] for i in order)
    return replace(scene, camera=Camera((61, 81), 80.0, 1.0, 0.0), things=things)


@pytest.mark.parametrize('order', [(0, 1), (1, 0)])
def test_nearer_objects_hide_farther_ones(order):
    frame = render(two_balls(order))
    assert CLASSES[frame.semantic[30, 40]] == 'ball'
    assert frame.depth[30, 40] == pytest.approx(2.7, abs=0.003)
    assert frame.instance[30, 40] == order.index(0) + 1
    assert (frame.instance == order.index(1) + 1).sum() > 100
    x = 12 / 80
    a, b, c = 1 + x * x, -2 * (0.2 * x + 5), 0.04 + 25 - 0.64
    expected = (-b - np.sqrt(b * b - 4 * a * c)) / (2 * a)
    assert frame.depth[30, 52] == pytest.approx(expected, abs=0.01)


def test_what_lies_beyond_ten_metres_has_no_depth():
    scene = two_balls((0, 1))
    frame = render(replace(scene, stuff=scene.stuff[:1]))
    ground = frame.semantic == CLASSES.index('ground')
    with np.errstate(divide='ignore'):
        expected = np.broadcast_to(80.0 / (np.arange(61)[:, None] - 30), ground.shape)
    near, far = ground & (expected < 9.99), ground & (expected > 10.01)
    assert near.any() and far.any()
    np.testing.assert_allclose(frame.depth[near], expected[near], rtol=1e-6)
    assert (frame.depth[far] == 0).all()


def test_pixels_at_edges_are_the_mean_of_their_samples():
    scene = replace(two_balls((0, 1)), grain=0.0, stuff=())
    image = render(scene).image
    large = render(replace(scene, camera=Camera((183, 243), 240.0, 1.0, 0.0)))
    edge = borders(render(scene).instance)
    blocks = (large.image / 255.0).reshape(61, 3, 81, 3, 3) ** 2.2
    expected = 255 * blocks.mean(axis=(1, 3)) ** (1 / 2.2)
    assert edge.sum() > 50
    error = np.abs(image - expected)[edge].mean()
    centre = 255 * blocks[:, 1, :, 1] ** (1 / 2.2)
    assert error < 3 and error < 0.5 * np.abs(centre - expected)[edge].mean()


@pytest.mark.parametrize('name', BUILDERS)
@pytest.mark.parametrize('seed', range(3))
def test_things_stand_on_the_ground_and_have_their_size(name, seed):
    thing = BUILDERS[name](np.random.default_rng(seed), 0.8)
    assert thing.name == name
    corners = thing.solid.triangles.reshape(-1, 3)
    assert corners[:, 1].min() == pytest.approx(0, abs=0.015)
    assert thing.height == corners[:, 1].max()
    assert 0.5 < np.ptp(corners, axis=0).max() < 1.2
    moved = thing.moved((1.0, 0.0, 4.0), 0.5)
    distance = np.hypot(*(moved.solid.triangles.reshape(-1, 3) - (1, 0, 4)).T[::2])
    np.testing.assert_allclose(distance, np.hypot(*corners.T[::2]), atol=1e-12)


@pytest.mark.parametrize('pattern', PATTERNS)
def test_patterns_vary_nearby_and_fade_to_a_mean_far_away(pattern):
    black_white = [Material((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), pattern)]
    points = np.random.default_rng(0).uniform(-6, 6, (3, 2000)).astype(np.float32)
    index = np.zeros(2000, int)
    near = albedo(black_white, index, points, np.full(2000, 1e-3, np.float32))
    assert near.shape == (3, 2000) and near.dtype == np.float32
    assert near.min() >= 0 and near.max() <= 1.1
    far = albedo(black_white, index, points, np.full(2000, 30.0, np.float32))
    if pattern != 'plain':
        assert near.std() > 0.05
        assert far.std() < 0.6 * near.std()


def test_noise_is_continuous_and_interpolates_its_lattice():
    x = np.linspace(0, 63.9, 8000)
    values = noise(x, np.full_like(x, 0.5))
    assert np.abs(np.diff(values)).max() < 0.05
    assert values.min() < -0.4 and values.max() > 0.4
    np.testing.assert_allclose(noise(x + 64, np.full_like(x, 0.5)), values, atol=1e-6)


def test_wave_by_hand():
    x = np.array([0.5, 1.5, 2.5, -0.5, 0.25])
    np.testing.assert_allclose(wave(x, np.array([0.1] * 4 + [1.0])), [1, -1, 1, -1, 0.5])

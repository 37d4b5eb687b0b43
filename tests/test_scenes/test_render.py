"""The renderer against scalar ray casting, and by hand where a scene is simple enough."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from oracles.scene_rays import nearest, pixel_ray

from mmdysample.scenes import CLASSES, compose
from mmdysample.scenes.objects import BUILDERS, Thing
from mmdysample.scenes.render import Camera, render, trace
from mmdysample.scenes.shapes import Box, Ellipsoid, Frustum, Torus, axis_rotation
from mmdysample.scenes.textures import PATTERNS, Material, noise, square_wave

GREY = Material(((0.5, 0.5, 0.5),) * 2)


def sample_pixels(frame, count, rng):
    """As many pixels of things as of anything."""
    height, width = frame.instance.shape
    on_things = np.argwhere(frame.instance > 0)
    on_things = on_things[rng.choice(len(on_things), count)]
    anywhere = np.stack([rng.integers(height, size=count), rng.integers(width, size=count)], axis=1)
    return np.concatenate([on_things, anywhere])


@pytest.mark.parametrize('index', range(4))
def test_truth_equals_scalar_ray_casting(index):
    scene = compose(11, 'train', index, (120, 160))
    frame = render(scene)
    solids, owners, labels = scene.solids, scene.owners, scene.labels
    kinds = set()
    for y, x in sample_pixels(frame, 40, np.random.default_rng(index)):
        t, winner = nearest(solids, *pixel_ray(scene.camera, x, y))
        if winner is None:
            assert frame.depth[y, x] == 0
            assert CLASSES[frame.semantic[y, x]] == 'sky'
            continue
        kinds.add(type(solids[winner]))
        assert frame.depth[y, x] == pytest.approx(t, abs=1e-4)
        assert frame.instance[y, x] == owners[winner]
        assert frame.semantic[y, x] == labels[winner]
    assert len(kinds) >= 2


@pytest.mark.parametrize('index', range(2))
def test_shadows_equal_scalar_ray_casting(index):
    scene = compose(12, 'train', index, (120, 160))
    rng = np.random.default_rng(index)
    pixels = sample_pixels(render(scene), 40, rng).T[::-1].astype(float)
    depth, winner, lit, _ = trace(scene, pixels)
    blockers = [solid for thing in scene.things for solid in thing.solids]
    seen = set()
    for i in np.nonzero(winner >= 0)[0]:
        origin, direction = pixel_ray(scene.camera, *pixels[:, i])
        point = origin + depth[i] * direction
        solid = scene.solids[winner[i]]
        normal = solid.normal(solid.to_local(point[:, None]))[:, 0]
        away = nearest(blockers, point + 1e-4 * normal, scene.sun)[1] is None
        assert lit[i] == (away and normal @ scene.sun > 0)
        seen.add(bool(lit[i]))
    assert seen == {True, False}


@pytest.mark.parametrize(
    'solid',
    [
        Ellipsoid(GREY, radii=(0.5, 0.3, 0.4)),
        Box(GREY, half=(0.5, 0.3, 0.4)),
        Frustum(GREY, bottom=0.5, top=0.2, height=0.7),
        Frustum(GREY, bottom=0.3, top=0.3),
        Torus(GREY, radius=0.5, tube=0.15),
    ],
    ids=lambda solid: type(solid).__name__,
)
def test_solids_are_hit_on_their_surface_with_an_outward_normal(solid):
    turn = axis_rotation('x', 0.7) @ axis_rotation('y', 0.4)
    solid = replace(solid, position=np.array([0.1, -0.2, 3.0]), rotation=turn)
    rng = np.random.default_rng(0)
    direction = np.stack([*rng.uniform(-0.3, 0.3, (2, 300)), np.ones(300)])
    t = solid.intersect(np.zeros((3, 1)), direction)
    hits = np.isfinite(t)
    assert 0.1 < hits.mean() < 0.95
    for ray, value in zip(direction.T, t, strict=True):
        assert value == pytest.approx(nearest([solid], np.zeros(3), ray)[0], abs=1e-4)
    points = direction[:, hits] * t[hits]
    normal = solid.normal(solid.to_local(points))
    np.testing.assert_allclose(np.linalg.norm(normal, axis=0), 1, atol=1e-9)
    assert ((normal * direction[:, hits]).sum(axis=0) < 1e-3).all()
    # A small step outwards along the normal leaves the solid: going back hits at once.
    back = solid.intersect(points + 0.01 * normal, -normal)
    np.testing.assert_allclose(back, 0.01, atol=1e-3)
    low, high = solid.corners.min(axis=1), solid.corners.max(axis=1)
    assert ((low - 1e-9 <= points.T) & (high + 1e-9 >= points.T)).all()


def two_balls(order):
    small = Ellipsoid(GREY, np.array([0.0, 1.0, 3.0]), radii=(0.3,) * 3)
    large = Ellipsoid(GREY, np.array([0.2, 1.0, 5.0]), radii=(0.8,) * 3)
    near, far = Thing('ball', (small,), ((0, 3, 0.3),)), Thing('drum', (large,), ((0, 5, 0.8),))
    scene = compose(0, 'train', 0, (61, 81))
    things = tuple((near, far)[i] for i in order)
    return replace(scene, camera=Camera((61, 81), 80.0, 1.0, 0.0), things=things)


@pytest.mark.parametrize('order', [(0, 1), (1, 0)])
def test_nearer_objects_hide_farther_ones(order):
    frame = render(two_balls(order))
    centre = frame.semantic.shape[0] // 2, frame.semantic.shape[1] // 2
    assert CLASSES[frame.semantic[centre]] == 'ball'
    assert frame.depth[centre] == pytest.approx(2.7, abs=1e-6)
    assert frame.instance[centre] == order.index(0) + 1
    assert (frame.instance == order.index(1) + 1).sum() > 100
    beside = centre[0], centre[1] + 12
    x = 12 / 80
    a, b, c = 1 + x * x, -2 * (0.2 * x + 5), 0.04 + 25 - 0.64
    assert frame.depth[beside] == pytest.approx((-b - np.sqrt(b * b - 4 * a * c)) / (2 * a))


def test_what_lies_beyond_ten_metres_has_no_depth():
    scene = two_balls((0, 1))
    frame = render(replace(scene, stuff={'ground': scene.stuff['ground']}))
    ground = frame.semantic == CLASSES.index('ground')
    rows = np.arange(61)[:, None] - 30
    with np.errstate(divide='ignore'):
        expected = np.broadcast_to(80.0 / rows, ground.shape)
    near, far = ground & (expected < 9.99), ground & (expected > 10.01)
    assert near.any() and far.any()
    np.testing.assert_allclose(frame.depth[near], expected[near], rtol=1e-6)
    assert (frame.depth[far] == 0).all()


def test_edges_are_smoothed_and_interiors_are_not_flat():
    scene = replace(two_balls((0, 1)), grain=0.0)
    frame = render(scene)
    _, _, _, colour = trace(scene, np.stack(np.mgrid[:61, :81][::-1]).reshape(2, -1).astype(float))
    centres = np.round(255 * np.clip(colour, 0, 1) ** (1 / 2.2)).T.reshape(61, 81, 3)
    changed = (frame.image != centres).any(axis=-1)
    edge = np.zeros_like(changed)
    across = frame.instance[:, 1:] != frame.instance[:, :-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    assert changed[edge].mean() > 0.5
    assert changed.mean() < 0.5
    assert frame.image[frame.instance == 1].std() > 5


@pytest.mark.parametrize('name', BUILDERS)
@pytest.mark.parametrize('seed', range(3))
def test_things_stand_on_the_ground_and_have_their_size(name, seed):
    thing = BUILDERS[name](np.random.default_rng(seed), 0.8)
    assert thing.name == name
    # Looked at straight from below and from above, on a grid of rays.
    x, z = np.stack(np.meshgrid(*[np.linspace(-1, 1, 161)] * 2)).reshape(2, -1)
    up = np.tile([[0.0], [1.0], [0.0]], x.size)
    below, above = np.stack([x, 0 * x - 2, z]), np.stack([x, 0 * x + 2, z])
    low = np.min([solid.intersect(below, up) - 2 for solid in thing.solids], axis=0)
    high = np.max([2 - solid.intersect(above, -up) for solid in thing.solids], axis=0)
    assert low.min() == pytest.approx(0, abs=0.015)
    covered = np.isfinite(low)
    extents = high[covered].max(), np.ptp(x[covered]), np.ptp(z[covered])
    assert 0.5 < max(extents) < 1.1
    shifted = thing.moved(np.array([1.0, 0.0, 4.0]), 0.5)
    x, z, radius = shifted.footprint[0]
    assert np.hypot(x - 1, z - 4) == pytest.approx(np.hypot(*thing.footprint[0][:2]))
    assert radius == thing.footprint[0][2]


@pytest.mark.parametrize('pattern', PATTERNS)
def test_patterns_mix_two_colours_and_fade_with_distance(pattern):
    points = np.random.default_rng(0).uniform(-3, 3, (3, 2000))
    material = Material(((0.0,) * 3, (1.0,) * 3), pattern, 4.0, mottle=0.0, seed=1)
    near = material.albedo(points, np.full(2000, 1e-3))
    assert near.shape == (3, 2000)
    assert near.min() >= 0 and near.max() <= 1
    if pattern != 'plain':
        assert near.std() > 0.05
    if pattern in ('stripes', 'checker', 'floor_checker'):
        far = material.albedo(points, np.full(2000, 10.0))
        assert far.std() < 0.1 * near.std()
        assert far.mean() == pytest.approx(0.5, abs=0.02)


def test_noise_is_continuous_and_interpolates_its_lattice():
    x = np.linspace(0, 31.9, 4000)
    values = noise((x, np.full_like(x, 0.5)), seed=2)
    assert np.abs(np.diff(values)).max() < 0.05
    assert values.min() < -0.4 and values.max() > 0.4
    np.testing.assert_allclose(noise((x + 32, np.full_like(x, 0.5)), seed=2), values, atol=1e-6)


def test_square_wave_by_hand():
    x = np.array([0.5, 1.5, 2.5, -0.5, 0.25])
    np.testing.assert_allclose(square_wave(x, np.array([0.1] * 4 + [1.0])), [1, -1, 1, -1, 0.5])

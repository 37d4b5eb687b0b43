"""Composition: which scene stands behind (seed, split, index)."""

from __future__ import annotations

import numpy as np

from mmdysample.scenes.metainfo import SPLITS, THINGS
from mmdysample.scenes.objects import BUILDERS, Thing, assemble, colour, darker
from mmdysample.scenes.render import Camera, Frame, Scene, render
from mmdysample.scenes.shapes import Solid, axis_rotation
from mmdysample.scenes.textures import Material

VERSION = 2
"""Raised whenever the same seed gives different pictures than before."""

GROUNDS = dict(
    tiles=(1.2, 2.5), gravel=(5.0, 14.0), grass=(8.0, 16.0), planks=(2.5, 5.0), marble=(1.0, 2.5)
)
"""Pattern of the ground -> range of its cells per metre."""

WALLS = dict(
    bricks=(2.0, 3.5), marble=(1.0, 2.0), planks=(1.5, 4.0), stripes=(1.0, 3.0), plain=(4.0, 4.0)
)
"""Pattern of the wall -> range of its cells per metre."""


def compose(seed: int, split: str, index: int, size: tuple[int, int] = (240, 320)) -> Scene:
    """Compose the scene numbered ``index`` of a split.

    Args:
        seed: Seed of the data set.
        split: 'train' or 'val'; their scenes are drawn independently.
        index: Number of the scene, from 0.
        size: Picture height and width in pixels.

    Returns:
        The scene, which depends on nothing but the arguments.

    Raises:
        ValueError: If ``split`` is unknown, or ``seed`` or ``index`` is negative.
    """
    if split not in SPLITS:
        raise ValueError(f'split must be one of {SPLITS}, got {split!r}')
    if seed < 0 or index < 0:
        raise ValueError(f'seed and index must not be negative, got {seed} and {index}')
    rng = np.random.default_rng((seed, SPLITS.index(split), index))
    focal, height = rng.uniform(0.9, 1.25) * max(size), rng.uniform(0.8, 1.6)
    # Looks down just so far that the ground begins at the picture's lower edge.
    lower_edge = np.arctan2(height, rng.uniform(1.5, 2.5))
    pitch = np.clip(lower_edge - np.arctan2(size[0] / 2, focal), 0.04, 0.4)
    camera = Camera(tuple(size), focal, height, pitch)
    distance = rng.uniform(5.5, 7.5)
    stuff = _ground(rng), _wall(rng, distance, height)
    things = _arrange(rng, camera, distance)

    # From behind the camera, so that all shadows fall away from it.
    azimuth, elevation = rng.uniform(-2.6, -0.5), rng.uniform(0.5, 1.1)
    x, z = np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation)
    warmth, power = rng.uniform(0, 0.25), rng.uniform(0.55, 1.15)
    horizon_hue = (0.02, 0.1) if rng.random() < 0.25 else (0.5, 0.6)
    horizon = colour(rng, horizon_hue, (0.1, 0.45), (0.8, 0.98))
    zenith = colour(rng, (0.5, 0.65), (0.3, 0.7), (0.5, 0.9))
    return Scene(
        camera,
        things,
        stuff,
        sun=np.array([x, np.sin(elevation), z]),
        sunlight=power * np.array([1.0, 1 - 0.4 * warmth, 1 - warmth]),
        skylight=rng.uniform(0.3, 0.55) * np.array([0.9, 0.95, 1.0]),
        sky=(np.array(horizon), np.array(zenith)),
        grain=rng.uniform(0.8, 3.0),
        seed=int(rng.integers(2**31)),
    )


def render_frame(seed: int, split: str, index: int, size: tuple[int, int] = (240, 320)) -> Frame:
    """Render picture and truth of a scene; arguments as for :func:`compose`."""
    return render(compose(seed, split, index, size))


def _calm(rng) -> tuple[float, ...]:
    """Draw a colour to stand behind others: greyish, mostly of stone, sand or earth."""
    hue = (0.05, 0.15) if rng.random() < 0.6 else (0.3, 1.0)
    return colour(rng, hue, (0.02, 0.28), (0.4, 0.85))


def _plane(rng, name: str, material: Material, corners, yaw: float, position, spin: float = 0.0):
    """Make a rectangle whose corners are seen counter-clockwise; ``spin`` turns the pattern."""
    triangles = np.array(corners, float)[[[0, 1, 2], [0, 2, 3]]]
    a, b, c = triangles[0]
    normals = np.broadcast_to(np.cross(b - a, c - a), triangles.shape)
    plane = Solid(triangles, normals).put(rotation=axis_rotation('y', spin))
    thing = assemble(rng, name, [(material, plane)])
    return thing.moved(position, yaw - spin)


def _ground(rng) -> Thing:
    pattern = str(rng.choice(list(GROUNDS)))
    hue = dict(grass=(0.18, 0.32), planks=(0.05, 0.11)).get(pattern)
    first = colour(rng, hue, (0.25, 0.6), (0.4, 0.75)) if hue else _calm(rng)
    second = darker(first, rng.uniform(0.25, 0.7))
    material = Material(first, second, pattern, rng.uniform(*GROUNDS[pattern]))
    corners = [(-40, 0, 0.3), (-40, 0, 40), (40, 0, 40), (40, 0, 0.3)]
    return _plane(rng, 'ground', material, corners, 0.0, (0, 0, 0), rng.uniform(0, np.pi / 2))


def _wall(rng, distance: float, eye: float) -> Thing:
    pattern = str(rng.choice(list(WALLS)))
    brick = pattern == 'bricks'
    first = colour(rng, (0.0, 0.08), (0.25, 0.6), (0.4, 0.75)) if brick else _calm(rng)
    second = darker(first, rng.uniform(0.35, 0.8))
    if brick:  # light mortar
        first, second = second, first
    material = Material(first, second, pattern, rng.uniform(*WALLS[pattern]))
    # Always above the eye, so that it hides the ground's far end. It ends beside the picture, for
    # a wider one would reach behind the camera.
    height = eye + rng.uniform(0.1, 0.9) if rng.random() < 0.7 else 6.0
    corners = [(-10, 0, 0), (-10, height, 0), (10, height, 0), (10, 0, 0)]
    return _plane(rng, 'wall', material, corners, rng.uniform(-0.25, 0.25), (0, 0, distance))


def _arrange(rng, camera: Camera, distance: float) -> tuple[Thing, ...]:
    """Stand 6 to 12 objects apart from each other in the field of view, some on others."""
    slope = 0.5 * camera.size[1] / camera.focal  # of the outermost rays
    nearest = camera.height / np.tan(camera.pitch + np.arctan2(camera.size[0] / 2, camera.focal))
    things, circles, supports = [], [], []
    wanted = int(rng.integers(6, 13))
    for _ in range(15 * wanted):
        if len(things) == wanted:
            break
        name = str(rng.choice(THINGS))
        if supports and rng.random() < 0.2:
            position, room = supports.pop(int(rng.integers(len(supports))))
            if name not in ('table', 'fence', 'tree'):
                thing = BUILDERS[name](rng, room * rng.uniform(0.8, 1.4))
                things.append(thing.moved(position, rng.uniform(0, 6.28)))
            continue
        z = np.exp(rng.uniform(np.log(nearest), np.log(0.88 * distance)))
        x = rng.uniform(-1.0, 1.0) * slope * z
        if circles and rng.random() < 0.4:
            # In front of or behind another object, so that one hides a part of the other.
            u, v, _ = circles[int(rng.integers(len(circles)))]
            x = u * z / v + rng.normal(0, 0.15)
        scale = dict(tree=1.8, fence=1.6, table=1.25).get(name, 0.95)
        size = min(scale * np.exp(rng.uniform(np.log(0.35), 0.0)), 1.2 * z * slope)
        yaw = rng.uniform(-0.7, 0.7) if name in ('fence', 'ring') else rng.uniform(0, 6.28)
        # Where it will stand is tried before the mesh is made; long things leave room beside.
        radius = size * dict(fence=0.5, crate=0.62, tree=0.3, cone=0.45).get(name, 0.55)
        clear = all((x - u) ** 2 + (z - v) ** 2 > (radius + r) ** 2 for u, v, r in circles)
        if clear and z - radius > 0.9 and z + radius + 0.26 * abs(x) < 0.95 * distance:
            thing = BUILDERS[name](rng, size)
            things.append(thing.moved((x, 0, z), yaw))
            circles.append((x, z, radius))
            if thing.room:
                supports.append(((x, thing.height, z), thing.room))
    return tuple(things)

"""Composition: which scene stands behind (seed, split, index)."""

from __future__ import annotations

import numpy as np

from mmdysample.scenes.metainfo import SPLITS, THINGS
from mmdysample.scenes.objects import BUILDERS, Thing, colour
from mmdysample.scenes.render import Camera, Frame, Scene, render
from mmdysample.scenes.shapes import Box, axis_rotation
from mmdysample.scenes.textures import Material

VERSION = 1
"""Raised whenever the same seed gives different pictures than before."""

GROUNDS = dict(
    floor_checker=(1.0, 2.5),
    tiles=(1.2, 2.5),
    gravel=(5.0, 14.0),
    grass=(8.0, 16.0),
    planks=(2.5, 5.0),
    marble=(0.6, 1.5),
)
"""Pattern of the ground -> range of its cells per metre."""

WALLS = dict(
    bricks=(2.0, 3.5), plaster=(2.0, 4.0), planks=(1.5, 4.0), stripes=(1.0, 3.0), checker=(0.8, 2.0)
)
"""Pattern of the wall -> range of its cells per metre."""


def compose(seed: int, split: str, index: int, size: tuple[int, int] = (240, 320)) -> Scene:
    """The scene numbered ``index`` of a split.

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
    camera = _camera(rng, size)
    distance = rng.uniform(5.5, 7.5)
    stuff = dict(ground=_ground(rng), wall=_wall(rng, distance, camera.height))
    things = _arrange(rng, camera, distance)

    azimuth, elevation = rng.uniform(-2.6, -0.5), rng.uniform(0.5, 1.1)
    sun = np.array(
        [
            np.cos(azimuth) * np.cos(elevation),
            np.sin(elevation),
            np.sin(azimuth) * np.cos(elevation),
        ]
    )
    warmth, power = rng.uniform(0, 0.25), rng.uniform(0.55, 1.15)
    dusk = rng.random() < 0.25
    horizon = colour(rng, (0.02, 0.1) if dusk else (0.5, 0.6), (0.1, 0.45), (0.8, 0.98))
    zenith = colour(rng, (0.5, 0.65), (0.3, 0.7), (0.5, 0.9))
    return Scene(
        camera,
        things,
        stuff,
        sun,
        sunlight=power * np.array([1.0, 1 - 0.4 * warmth, 1 - warmth]),
        skylight=rng.uniform(0.3, 0.55) * np.array([0.9, 0.95, 1.0]),
        sky=(np.array(horizon), np.array(zenith)),
        grain=rng.uniform(0.8, 3.0),
        seed=int(rng.integers(2**31)),
    )


def render_frame(seed: int, split: str, index: int, size: tuple[int, int] = (240, 320)) -> Frame:
    """Picture and truth of a scene; arguments as for :func:`compose`."""
    return render(compose(seed, split, index, size))


def _camera(rng, size: tuple[int, int]) -> Camera:
    """Looks down just so far that the ground begins at the picture's lower edge."""
    focal, height = rng.uniform(0.9, 1.25) * max(size), rng.uniform(0.8, 1.6)
    lower_edge = np.arctan2(height, rng.uniform(1.5, 2.5))
    pitch = np.clip(lower_edge - np.arctan2(size[0] / 2, focal), 0.04, 0.4)
    return Camera(tuple(size), focal, height, pitch)


def _calm(rng, hue=None) -> tuple[float, ...]:
    """A colour to stand behind others: greyish, mostly of stone, sand or earth."""
    if hue is None:
        hue = (0.05, 0.15) if rng.random() < 0.6 else (0.3, 1.0)
        return colour(rng, hue, (0.02, 0.28), (0.4, 0.85))
    return colour(rng, hue, (0.25, 0.6), (0.4, 0.75))


def _ground(rng) -> Box:
    pattern = str(rng.choice(list(GROUNDS)))
    first = _calm(rng, dict(grass=(0.18, 0.32), planks=(0.05, 0.11)).get(pattern))
    darker = rng.uniform(0.25, 0.7)
    material = Material(
        (first, tuple(darker * c for c in first)),
        pattern,
        rng.uniform(*GROUNDS[pattern]),
        mottle=0.1,
        seed=int(rng.integers(16)),
    )
    turn = axis_rotation('y', rng.uniform(0, np.pi / 2))
    return Box(material, np.array([0.0, -0.1, 0.0]), turn, half=(40.0, 0.1, 40.0))


def _wall(rng, distance: float, eye: float) -> Box:
    pattern = str(rng.choice(list(WALLS)))
    first = _calm(rng, (0.0, 0.08) if pattern == 'bricks' else None)
    contrast = rng.uniform(0.35, 0.8) if pattern != 'bricks' else rng.uniform(1.3, 2.2)
    second = tuple(min(contrast * c + (0.1 if contrast > 1 else 0.0), 1.0) for c in first)
    material = Material(
        (first, second),
        pattern,
        rng.uniform(*WALLS[pattern]),
        mottle=0.1,
        seed=int(rng.integers(16)),
    )
    # Always above the eye: it hides the ground's far end.
    height = eye + rng.uniform(0.1, 0.9) if rng.random() < 0.7 else 8.0
    turn = axis_rotation('y', rng.uniform(-0.25, 0.25))
    position = np.array([0.0, height / 2 - 0.5, distance + 0.1])
    return Box(material, position, turn, half=(20.0, height / 2 + 0.5, 0.1))


def _arrange(rng, camera: Camera, distance: float) -> tuple[Thing, ...]:
    """Stands 10 to 20 objects apart from each other in the field of view, some on others."""
    spread = 0.5 * camera.size[1] / camera.focal
    nearest = camera.height / np.tan(camera.pitch + np.arctan2(camera.size[0] / 2, camera.focal))
    things, supports = [], []
    wanted = int(rng.integers(10, 21))
    for _ in range(15 * wanted):
        if len(things) == wanted:
            break
        name = str(rng.choice(THINGS))
        if supports and rng.random() < 0.2:
            position, room = supports.pop(int(rng.integers(len(supports))))
            if name not in ('table', 'fence', 'tree'):
                extent = room * rng.uniform(0.6, 1.3)
                things.append(BUILDERS[name](rng, extent).moved(position, rng.uniform(0, 6.28)))
            continue
        z = np.exp(rng.uniform(np.log(nearest), np.log(0.88 * distance)))
        x = rng.uniform(-1.05, 1.05) * spread * z
        if things and rng.random() < 0.45:
            # In front of or behind another object, so that one hides a part of the other.
            near = things[int(rng.integers(len(things)))].footprint[0]
            x = near[0] * z / near[1] + rng.normal(0, 0.12)
        scale = dict(tree=1.7, fence=1.5, table=1.15).get(name, 0.75)
        extent = min(scale * np.exp(rng.uniform(np.log(0.2), 0.0)), 0.62 * z * spread / 0.5)
        thing = BUILDERS[name](rng, extent).moved(
            np.array([x, 0.0, z]),
            rng.uniform(-0.7, 0.7) if name in ('fence', 'ring') else rng.uniform(0, 2 * np.pi),
        )
        if _fits(thing, things, 0.93 * distance):
            things.append(thing)
            if thing.top:
                height, room = thing.top
                supports.append((np.array([x, height, z]), room))
    return tuple(things)


def _fits(thing: Thing, others: list[Thing], wall: float) -> bool:
    """Whether an object stands clear of the others, the camera and the wall."""
    for x, z, radius in thing.footprint:
        if z - radius < 0.9 or z + radius + 0.26 * abs(x) > wall:
            return False
        for other in others:
            for u, v, reach in other.footprint:
                if (x - u) ** 2 + (z - v) ** 2 < (radius + reach) ** 2:
                    return False
    return True

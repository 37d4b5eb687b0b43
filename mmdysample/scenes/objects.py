"""The thing classes: each builder makes one object standing at the world origin.

A builder takes a random generator and a size in metres (the object's largest extent, nearly) and
returns a :class:`Thing`. Colours are mostly free, so that the shape tells the class.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, replace

import numpy as np

from mmdysample.scenes.shapes import (
    Box,
    Ellipsoid,
    Frustum,
    Solid,
    Torus,
    axis_rotation,
    rotation_onto,
)
from mmdysample.scenes.textures import Material


@dataclass(frozen=True)
class Thing:
    """One object of a scene.

    Attributes:
        name: Its class.
        solids: What it is made of.
        footprint: Circles (x, z, radius) on the ground that no other object may enter.
        top: Height and radius of a flat top on which something can stand, or None.
        shade: How much it darkens the ground about it, from 0 to 1.
    """

    name: str
    solids: tuple[Solid, ...]
    footprint: tuple[tuple[float, float, float], ...]
    top: tuple[float, float] | None = None
    shade: float = 0.5

    def moved(self, position: np.ndarray, yaw: float) -> Thing:
        """A copy turned by ``yaw`` radians about the y axis and then shifted."""
        rotation = axis_rotation('y', yaw)
        circles = []
        for x, z, radius in self.footprint:
            centre = rotation @ np.array([x, 0.0, z]) + position
            circles.append((centre[0], centre[2], radius))
        solids = tuple(solid.moved(position, rotation) for solid in self.solids)
        return replace(self, solids=solids, footprint=tuple(circles))


def colour(rng, hue=None, saturation=(0.35, 0.9), value=(0.35, 0.95)) -> tuple[float, ...]:
    """A random linear RGB colour; ``hue`` is a range in turns, any hue by default."""
    h = rng.uniform(*(hue or (0.0, 1.0))) % 1.0
    rgb = colorsys.hsv_to_rgb(h, rng.uniform(*saturation), rng.uniform(*value))
    return tuple(channel**2.2 for channel in rgb)


def white(rng) -> tuple[float, ...]:
    """A nearly white linear RGB colour."""
    return colour(rng, saturation=(0.0, 0.08), value=(0.88, 0.98))


def brown(rng) -> tuple[float, ...]:
    """A linear RGB colour of wood or bark."""
    return colour(rng, hue=(0.05, 0.1), saturation=(0.35, 0.7), value=(0.28, 0.75))


def wooden(rng, cells=4.0, pattern='wood') -> Material:
    """Wood of one tone with a darker grain."""
    base = brown(rng)
    return Material(
        (base, tuple(0.4 * c for c in base)), pattern, cells, 0.08, seed=int(rng.integers(16))
    )


def painted(rng, patterns: str, size: float, gloss=0.0) -> Material:
    """A free colour with white or a second colour, in one of the named patterns."""
    second = white(rng) if rng.random() < 0.5 else colour(rng)
    return Material(
        (colour(rng), second),
        str(rng.choice(patterns.split())),
        rng.uniform(3, 6) / size,
        rng.uniform(0.02, 0.15),
        gloss,
        int(rng.integers(16)),
    )


def _bar(material: Material, start, end, bottom: float, top: float) -> Frustum:
    """A round bar from ``start`` to ``end``."""
    start, end = np.asarray(start, float), np.asarray(end, float)
    return Frustum(
        material,
        start,
        rotation_onto(end - start),
        bottom,
        top,
        float(np.sqrt(((end - start) ** 2).sum())),
    )


def ball(rng: np.random.Generator, size: float) -> Thing:
    """A ball, tilted so that its pattern shows."""
    radius = size / 2
    material = painted(rng, 'plain sectors sectors dots stripes marble', size, gloss=0.5)
    tilt = axis_rotation('x', rng.uniform(-1, 1)) @ axis_rotation('z', rng.uniform(-1, 1))
    solid = Ellipsoid(material, np.array([0.0, radius, 0.0]), tilt, (radius,) * 3)
    return Thing('ball', (solid,), ((0, 0, radius),), shade=0.6)


def crate(rng: np.random.Generator, size: float) -> Thing:
    """A box of planks within a frame, or a painted one."""
    half = np.array([1.0, rng.uniform(0.55, 1.0), rng.uniform(0.6, 1.0)]) * size / 2.3
    centre = np.array([0.0, half[1], 0.0])
    if rng.random() < 0.55:
        body, frame = wooden(rng, rng.uniform(6, 9) / size, 'planks'), wooden(rng, 3 / size)
        width = 0.07 * size
        solids = [Box(body, centre, half=tuple(half - 0.25 * width))]
        for axis in range(3):
            bar = np.full(3, width / 2)
            # Only the upright bars reach into the corners: no two surfaces coincide.
            bar[axis] = half[axis] if axis == 1 else half[axis] - width
            others = [i for i in range(3) if i != axis]
            for a in (-1, 1):
                for b in (-1, 1):
                    shift = np.zeros(3)
                    shift[others] = (half - width / 2)[others] * (a, b)
                    solids.append(Box(frame, centre + shift, half=tuple(bar)))
    else:
        material = painted(rng, 'plain checker dots stripes marble', size)
        solids = [Box(material, centre, half=tuple(half))]
    reach = float(np.hypot(half[0], half[2]))
    return Thing('crate', tuple(solids), ((0, 0, reach),), (2 * half[1], min(half[0], half[2])))


def drum(rng: np.random.Generator, size: float) -> Thing:
    """A standing or lying barrel with hoops."""
    radius, height = size * rng.uniform(0.24, 0.36), size * rng.uniform(0.75, 1.0)
    body = painted(rng, 'plain plain stripes sectors', size, gloss=0.35)
    hoop = Material((colour(rng, saturation=(0.0, 0.3)),) * 2, gloss=0.5)
    solids = [Frustum(body, bottom=radius, top=radius, height=height)]
    for level in (0.01, 0.31, 0.63, 0.94):
        solids.append(
            Frustum(
                hoop,
                np.array([0.0, level * height, 0.0]),
                np.eye(3),
                1.05 * radius,
                1.05 * radius,
                0.04 * height,
            )
        )
    if rng.random() < 0.75:
        return Thing('drum', tuple(solids), ((0, 0, 1.05 * radius),), (height, radius), 0.6)
    lying = axis_rotation('z', np.pi / 2)
    shift = np.array([height / 2, 1.05 * radius, 0.0])
    circles = tuple((x * height / 3, 0, 1.1 * radius) for x in (-1, 0, 1))
    return Thing('drum', tuple(s.moved(shift, lying) for s in solids), circles, shade=0.6)


def cone(rng: np.random.Generator, size: float) -> Thing:
    """A traffic cone on a square foot, or a plain cone."""
    radius = size * rng.uniform(0.22, 0.36)
    if rng.random() < 0.6:
        orange = colour(rng, hue=(0.02, 0.08), saturation=(0.8, 0.95), value=(0.85, 1.0))
        material = Material((orange, white(rng)), 'stripes', rng.uniform(3, 5) / size, 0.05, 0.2)
        foot = Box(
            Material((orange, orange)),
            np.array([0, 0.02 * size, 0]),
            half=(1.15 * radius, 0.02 * size, 1.15 * radius),
        )
        solids = (
            foot,
            Frustum(
                material,
                np.array([0, 0.04 * size, 0]),
                bottom=radius,
                top=0.15 * radius,
                height=0.96 * size,
            ),
        )
    else:
        material = painted(rng, 'plain stripes sectors marble', size, gloss=0.2)
        solids = (Frustum(material, bottom=1.2 * radius, top=0.002, height=size),)
    return Thing('cone', solids, ((0, 0, 1.5 * radius),))


def ring(rng: np.random.Generator, size: float) -> Thing:
    """A torus that lies on the ground or stands on its edge."""
    tube = size * rng.uniform(0.04, 0.14)
    radius = size / 2 - tube
    material = painted(rng, 'plain sectors sectors marble', size, gloss=0.4)
    if rng.random() < 0.25:
        solid = Torus(material, np.array([0, tube, 0]), radius=radius, tube=tube)
        return Thing('ring', (solid,), ((0, 0, size / 2),), shade=0.2)
    upright = axis_rotation('x', np.pi / 2)
    solid = Torus(material, np.array([0, size / 2, 0]), upright, radius, tube)
    circles = tuple((x * size / 3, 0, 2 * tube) for x in (-1, 0, 1))
    return Thing('ring', (solid,), circles, shade=0.3)


def table(rng: np.random.Generator, size: float) -> Thing:
    """A round or square top on three or four thin legs."""
    half, height = size / 2, size * rng.uniform(0.6, 0.95)
    material = wooden(rng, 4 / size) if rng.random() < 0.6 else painted(rng, 'plain marble', size)
    leg = wooden(rng) if rng.random() < 0.5 else Material((colour(rng, value=(0.1, 0.5)),) * 2)
    thick = 0.045 * size
    round_top = rng.random() < 0.5
    if round_top:
        solids = [
            Frustum(material, np.array([0, height - thick, 0]), bottom=half, top=half, height=thick)
        ]
    else:
        solids = [
            Box(
                material,
                np.array([0, height - thick / 2, 0]),
                half=(half, thick / 2, half * rng.uniform(0.6, 1.0)),
            )
        ]
    depth = half if round_top else solids[0].half[2]
    count = 3 if round_top and rng.random() < 0.5 else 4
    radius = size * rng.uniform(0.014, 0.03)
    for angle in np.pi * (2 * np.arange(count) + 1) / count:
        x, z = (
            np.cos(angle) * half * (0.75 if round_top else 1.2),
            np.sin(angle) * depth * (0.75 if round_top else 1.2),
        )
        solids.append(
            _bar(
                leg,
                (1.1 * x, 0, 1.1 * z),
                (0.95 * x, height - thick, 0.95 * z),
                0.7 * radius,
                radius,
            )
        )
    reach = half * (1.0 if round_top else 1.35)
    return Thing('table', tuple(solids), ((0, 0, reach),), (height, 0.75 * depth), 0.15)


def fence(rng: np.random.Generator, size: float) -> Thing:
    """Pickets on rails, or a lattice of thin bars between posts."""
    height = size * rng.uniform(0.4, 0.6)
    base = white(rng) if rng.random() < 0.4 else brown(rng)
    wood = Material((base, tuple(0.55 * c for c in base)), 'wood', 5 / size, 0.08)
    half, thin = size / 2, size * rng.uniform(0.007, 0.014)
    solids = []
    if rng.random() < 0.5:
        count = int(rng.integers(7, 13))
        for x in np.linspace(-half, half, count):
            tall = height / 2 * rng.uniform(0.93, 1.0)
            solids.append(Box(wood, np.array([x, tall, 0]), half=(0.28 * size / count, tall, thin)))
        for level in (0.3, 0.75):
            solids.append(
                Box(wood, np.array([0, level * height, 2 * thin]), half=(half, 0.04 * height, thin))
            )
    else:
        for x in (-half, 0, half):
            solids.append(_bar(wood, (x, 0, 0), (x, 1.05 * height, 0), 2 * thin, 2 * thin))
        step = rng.uniform(0.22, 0.3) * height
        low, high = 0.12 * height, 0.95 * height
        for x in np.arange(-half - (high - low), half, step):
            for lean in (1, -1):
                # Diagonals, cut where they leave the frame.
                start, end = max(x, -half), min(x + high - low, half)
                ends = [(lean * u, low + u - x, 0.7 * lean * thin) for u in (start, end)]
                if end - start > 0.1 * step:
                    solids.append(_bar(wood, *ends, 0.7 * thin, 0.7 * thin))
        for level in (low, high):
            solids.append(_bar(wood, (-half, level, 0), (half, level, 0), 1.3 * thin, 1.3 * thin))
    circles = tuple((x * half, 0, 0.12 * size) for x in np.linspace(-1, 1, 7))
    return Thing('fence', tuple(solids), circles, shade=0.15)


def tree(rng: np.random.Generator, size: float) -> Thing:
    """A trunk that forks into thin branches, with or without clumps of leaves."""
    bark = wooden(rng, 6 / size)
    green = colour(rng, hue=(0.17, 0.4), saturation=(0.4, 0.8), value=(0.3, 0.7))
    leaves = Material((green, tuple(0.35 * c for c in green)), 'gravel', 12 / size, 0.2)
    trunk = 0.03 * size * rng.uniform(0.7, 1.3)
    crown = 0.45 * size
    solids = [_bar(bark, (0, 0, 0), (0, crown, 0), 1.3 * trunk, trunk)]
    leafy = rng.random() < 0.6
    turn = rng.uniform(0, 2 * np.pi)
    limbs = int(rng.integers(4, 7))
    for limb in range(limbs):
        angle = turn + 2.4 * limb
        start = np.array([0, crown * rng.uniform(0.6, 1.0), 0])
        reach, rise = size * rng.uniform(0.16, 0.28), size * rng.uniform(0.2, 0.45)
        end = start + np.array([reach * np.cos(angle), rise, reach * np.sin(angle)])
        end[1] = min(end[1], 0.92 * size)
        solids.append(_bar(bark, start, end, 0.6 * trunk, 0.3 * trunk))
        for _ in range(3):
            root = start + (end - start) * rng.uniform(0.45, 0.95)
            tip = root + size * rng.uniform(0.08, 0.15) * _upward(rng)
            solids.append(_bar(bark, root, tip, 0.3 * trunk, 0.15 * trunk))
            if leafy:
                radii = tuple(size * rng.uniform(0.05, 0.1, 3))
                solids.append(Ellipsoid(leaves, tip, radii=radii))
    return Thing('tree', tuple(solids), ((0, 0, 0.16 * size),), shade=0.3)


def _upward(rng) -> np.ndarray:
    direction = rng.normal(size=3)
    direction[1] = abs(direction[1]) + 0.2
    return direction / np.sqrt((direction**2).sum())


BUILDERS = dict(
    ball=ball, crate=crate, drum=drum, cone=cone, ring=ring, table=table, fence=fence, tree=tree
)
"""Class name -> builder."""

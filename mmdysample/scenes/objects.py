"""The thing classes: each builder makes one object standing at the world origin.

A builder takes a random generator and a size in metres (the object's largest extent, nearly).
Colours are mostly free, so that the shape tells the class.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, replace

import numpy as np

from mmdysample.scenes.shapes import (
    BALL,
    BOX,
    BRANCH,
    CLUMP,
    CYLINDER,
    ROD,
    Solid,
    arc,
    axis_rotation,
    lathe,
)
from mmdysample.scenes.textures import Material


@dataclass(frozen=True)
class Thing:
    """One object of a scene, or the ground or the wall, as a mesh of F triangles.

    Attributes:
        name: Its class.
        materials: What it is made of.
        index: Which of the materials each triangle shows, (F,).
        solid: Triangles and normals, (F, 3, 3) each.
        texture: The corners' coordinates on the pattern, in cells, (F, 3, 3).
        room: Radius in metres of a flat top on which something can stand, 0 if there is none.
    """

    name: str
    materials: tuple[Material, ...]
    index: np.ndarray
    solid: Solid
    texture: np.ndarray
    room: float = 0.0

    @property
    def reach(self) -> float:
        """Horizontal distance of the outermost corner from the origin."""
        return float(np.sqrt((self.solid.triangles[..., ::2] ** 2).sum(axis=-1)).max())

    @property
    def height(self) -> float:
        """The highest corner's y."""
        return float(self.solid.triangles[..., 1].max())

    def moved(self, position, yaw: float = 0.0) -> Thing:
        """Copy, turned by ``yaw`` radians about the y axis and then shifted."""
        return replace(self, solid=self.solid.put(position, 1.0, axis_rotation('y', yaw)))


def assemble(rng, name: str, parts: list[tuple[Material, Solid]], room: float = 0.0) -> Thing:
    """Make an object of several solids; the patterns start at a random point."""
    materials, solids = zip(*parts, strict=True)
    texture = [
        material.cells * solid.triangles + rng.uniform(0, 64, 3) for material, solid in parts
    ]
    return Thing(
        name,
        materials,
        np.repeat(np.arange(len(parts)), [len(solid.triangles) for solid in solids]),
        Solid(*(np.concatenate(arrays) for arrays in zip(*solids, strict=True))),
        np.concatenate(texture),
        room,
    )


def colour(rng, hue=(0.0, 1.0), saturation=(0.35, 0.9), value=(0.35, 0.95)) -> tuple[float, ...]:
    """Draw a linear RGB colour; the ranges are those of HSV, the hue in turns."""
    rgb = colorsys.hsv_to_rgb(*(rng.uniform(*limits) for limits in (hue, saturation, value)))
    return tuple(channel**2.2 for channel in rgb)


def darker(rgb: tuple[float, ...], factor: float) -> tuple[float, ...]:
    """Multiply a colour by a factor."""
    return tuple(factor * channel for channel in rgb)


def _white(rng):
    return colour(rng, saturation=(0.0, 0.08), value=(0.88, 0.98))


def _wooden(rng, cells: float, pattern: str = 'wood') -> Material:
    base = colour(rng, (0.05, 0.1), (0.35, 0.7), (0.28, 0.75))
    return Material(base, darker(base, 0.4), pattern, cells)


def _painted(rng, size: float, patterns: str, gloss: float = 0.0) -> Material:
    second = _white(rng) if rng.random() < 0.5 else colour(rng)
    pattern = str(rng.choice(patterns.split()))
    return Material(colour(rng), second, pattern, rng.uniform(3, 6) / size, gloss)


def ball(rng: np.random.Generator, size: float) -> Thing:
    """Make a ball, tilted so that its pattern shows."""
    material = _painted(rng, size, 'plain stripes stripes dots checker marble', gloss=0.5)
    thing = assemble(rng, 'ball', [(material, BALL.put(scale=size / 2))])
    tilted = thing.solid.put(rotation=axis_rotation('x', rng.uniform(-1, 1)))
    tilted = tilted.put((0, size / 2, 0), 1.0, axis_rotation('z', rng.uniform(-1, 1)))
    return replace(thing, solid=tilted)


def crate(rng: np.random.Generator, size: float) -> Thing:
    """Make a box of planks within a frame, or a painted one."""
    a, b, c = whole = np.array([1.0, rng.uniform(0.55, 1.0), rng.uniform(0.6, 1.0)]) * size / 1.15
    if rng.random() < 0.55:
        body, frame, width = _wooden(rng, 7 / size, 'planks'), _wooden(rng, 3 / size), 0.08 * size
        parts = [(body, BOX.put((0, 0.2 * width, 0), whole - 0.4 * width))]
        for i in (-0.5, 0.5):
            for j in (-0.5, 0.5):
                # The upright bars take the corners: no two surfaces coincide.
                x, y, z = i * (a - width), (j + 0.5) * (b - width), c - width
                parts += [
                    (frame, BOX.put((x, 0, j * z), (width, b, width))),
                    (frame, BOX.put((0, y, i * z), (a - 2 * width, width, width))),
                    (frame, BOX.put((x, y, 0), (width, width, c - 2 * width))),
                ]
    else:
        parts = [(_painted(rng, size, 'plain checker dots stripes marble'), BOX.put(scale=whole))]
    return assemble(rng, 'crate', parts, min(a, c) / 2)


def drum(rng: np.random.Generator, size: float) -> Thing:
    """Make a standing or lying barrel with hoops."""
    radius, height = size * rng.uniform(0.26, 0.36), size * rng.uniform(0.75, 1.0)
    metal = colour(rng, saturation=(0.0, 0.3))
    body = _painted(rng, size, 'plain plain stripes', gloss=0.35)
    hoop = Material(metal, metal, gloss=0.5)
    parts = [(body, CYLINDER.put(scale=(radius, height, radius)))]
    for level in (0.0, 0.31, 0.63, 0.95):
        scale = (1.06 * radius, 0.05 * height, 1.06 * radius)
        parts.append((hoop, CYLINDER.put((0, (level + 0.001) * height, 0), scale)))
    if rng.random() < 0.75:
        return assemble(rng, 'drum', parts, radius)
    turn, shift = axis_rotation('z', np.pi / 2), (height / 2, 1.06 * radius, 0)
    return assemble(rng, 'drum', [(m, s.put(shift, 1.0, turn)) for m, s in parts])


def cone(rng: np.random.Generator, size: float) -> Thing:
    """Make a traffic cone on a square foot, or a plain cone."""
    radius = size * rng.uniform(0.24, 0.36)
    shape = lathe([(0, 0), (radius, 0), (0.12 * radius, size), (0, size)], sides=32)
    if rng.random() < 0.6:
        orange = colour(rng, (0.02, 0.08), (0.8, 0.95), (0.85, 1.0))
        body = Material(orange, _white(rng), 'stripes', rng.uniform(3, 5) / size, 0.2)
        foot = BOX.put((0, 0, 0), (2.3 * radius, 0.04 * size, 2.3 * radius))
        return assemble(rng, 'cone', [(body, shape), (Material(orange, orange), foot)])
    return assemble(rng, 'cone', [(_painted(rng, size, 'plain stripes marble', 0.2), shape)])


def ring(rng: np.random.Generator, size: float) -> Thing:
    """Make a torus that lies on the ground or stands on its edge."""
    tube = size * rng.uniform(0.06, 0.14)
    profile = tube * arc(12, 0, 2 * np.pi) + (size / 2 - tube, 0)
    profile[-1] = profile[0]
    material = _painted(rng, size, 'plain checker dots marble', gloss=0.4)
    lies = rng.random() < 0.25
    turn = axis_rotation('x', 0.0 if lies else np.pi / 2)
    solid = lathe(profile, sides=40).put((0, tube if lies else size / 2, 0), 1.0, turn)
    return assemble(rng, 'ring', [(material, solid)])


def table(rng: np.random.Generator, size: float) -> Thing:
    """Put a round or square top on three or four thin legs."""
    height, thick, half = size * rng.uniform(0.6, 0.95), 0.05 * size, size / 2
    dark = colour(rng, value=(0.1, 0.5))
    top = _wooden(rng, 4 / size) if rng.random() < 0.6 else _painted(rng, size, 'plain marble')
    leg = _wooden(rng, 4.0) if rng.random() < 0.5 else Material(dark, dark)
    if rng.random() < 0.5:
        depth, corner, count = half, 0.75, int(rng.integers(3, 5))
        board = CYLINDER.put((0, height - thick, 0), (half, thick, half))
    else:
        depth, corner, count = half * rng.uniform(0.6, 1.0), 1.2, 4
        board = BOX.put((0, height - thick, 0), (2 * half, thick, 2 * depth))
    parts, radius = [(top, board)], size * rng.uniform(0.02, 0.035)
    for angle in np.pi * (2 * np.arange(count) + 1) / count:
        foot = np.array([corner * half * np.cos(angle), 0, corner * depth * np.sin(angle)])
        parts.append((leg, ROD.between(1.1 * foot, 0.95 * foot + (0, height - thick, 0), radius)))
    return assemble(rng, 'table', parts, 0.75 * depth)


def fence(rng: np.random.Generator, size: float) -> Thing:
    """Make pickets on rails, or a lattice of thin bars between posts."""
    height, half, thin = size * rng.uniform(0.4, 0.6), size / 2, size * rng.uniform(0.01, 0.016)
    base = _white(rng) if rng.random() < 0.4 else colour(rng, (0.05, 0.1), value=(0.28, 0.75))
    wood, solids = Material(base, darker(base, 0.55), 'wood', 5 / size), []
    if rng.random() < 0.5:
        count = int(rng.integers(6, 11))
        for x in np.linspace(-half, half, count):
            tall = height * rng.uniform(0.93, 1.0)
            solids.append(BOX.put((x, 0, 0), (0.6 * size / count, tall, 2 * thin)))
        for level in (0.25, 0.7):
            rail = (2 * half, 0.09 * height, 2 * thin)
            solids.append(BOX.put((0, level * height, 2.1 * thin), rail))
    else:
        low, high = 0.12 * height, 0.95 * height
        step = rng.uniform(0.26, 0.36) * height
        for x in (-half, 0, half):
            solids.append(ROD.between((x, 0, 0), (x, 1.05 * height, 0), 2 * thin))
        for level in (low, high):
            solids.append(ROD.between((-half, level, 0), (half, level, 0), 1.3 * thin))
        for x in np.arange(-half - (high - low), half, step):
            start, end = max(x, -half), min(x + high - low, half)  # cut where they leave the frame
            for lean in (1, -1) if end - start > 0.1 * step else ():
                ends = [(lean * u, low + u - x, 0.7 * lean * thin) for u in (start, end)]
                solids.append(BOX.between(*ends, 1.2 * thin))
    return assemble(rng, 'fence', [(wood, solid) for solid in solids])


def tree(rng: np.random.Generator, size: float) -> Thing:
    """Make a trunk that forks into thin branches, with or without clumps of leaves."""
    bark, green = _wooden(rng, 6 / size), colour(rng, (0.17, 0.4), (0.4, 0.8), (0.3, 0.7))
    leaves = Material(green, darker(green, 0.35), 'gravel', 12 / size)
    trunk, leafy, turn = 0.045 * size * rng.uniform(0.7, 1.3), rng.random() < 0.6, rng.uniform(0, 6)
    parts = [(bark, BRANCH.between((0, 0, 0), (0, 0.6 * size, 0), trunk))]
    for limb in range(int(rng.integers(4, 7))):
        start = np.array([0, size * rng.uniform(0.3, 0.5), 0])
        angle, reach = turn + 2.4 * limb, size * rng.uniform(0.16, 0.28)
        rise = min(start[1] + size * rng.uniform(0.2, 0.45), 0.92 * size)
        end = np.array([reach * np.cos(angle), rise, reach * np.sin(angle)])
        parts.append((bark, BRANCH.between(start, end, 0.5 * trunk)))
        for _ in range(3):
            root = start + (end - start) * rng.uniform(0.45, 0.95)
            tip = root + size * rng.uniform((-0.1, 0.03, -0.1), (0.1, 0.13, 0.1))
            parts.append((bark, BRANCH.between(root, tip, 0.25 * trunk)))
            if leafy:
                parts.append((leaves, CLUMP.put(tip, size * rng.uniform(0.06, 0.12, 3))))
    return assemble(rng, 'tree', parts)


BUILDERS = dict(
    ball=ball, crate=crate, drum=drum, cone=cone, ring=ring, table=table, fence=fence, tree=tree
)
"""Class name -> builder."""

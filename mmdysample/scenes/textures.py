"""Surface colours: patterns over an object's own coordinates.

Patterns never go below the width of a pixel: each wave is softened over the footprint of a sample
and fades to its mean, so that far textures don't alias.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

_LATTICE = 64


@cache
def _lattice() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, _LATTICE**2).astype(np.float32)


def noise(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Compute smooth value noise (N,) in [-1, 1] with unit cells, periodic over 64 of them."""
    values, parts = _lattice(), []
    for p in (u, v):
        cell = np.floor(p)
        fade = p - cell
        low = cell.astype(np.int32) & (_LATTICE - 1)
        parts.append((low, (low + 1) & (_LATTICE - 1), fade * fade * (3 - 2 * fade)))
    (left, right, across), (top, bottom, down) = parts
    top, bottom = top * _LATTICE, bottom * _LATTICE
    upper, lower = values[top + left], values[bottom + left]
    upper = upper + across * (values[top + right] - upper)
    lower = lower + across * (values[bottom + right] - lower)
    return upper + down * (lower - upper)


def fractal(u: np.ndarray, v: np.ndarray, footprint: np.ndarray, octaves: int) -> np.ndarray:
    """Add octaves of ``noise``, each left out where a sample is wider than its cells."""
    total = 0.0
    for octave in range(octaves):
        frequency = 2.03**octave
        seen = 0.55**octave * np.clip(1.5 - 2 * frequency * footprint, 0, 1)
        total = total + seen * noise(u * frequency, v * frequency)
    return total


def wave(x: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    """Compute a square wave of period 2, positive on [0, 1], between -1 and 1, softened."""
    to_edge = 0.5 - np.abs(x % 1.0 - 0.5)
    sign = np.where(x % 2.0 < 1.0, np.float32(1), np.float32(-1))
    return sign * np.minimum(1, to_edge / np.maximum(0.5 * footprint, 1e-4))


def seams(x: np.ndarray, width: float, footprint: np.ndarray) -> np.ndarray:
    """Compute the coverage in [0, 1] of lines of ``width`` at the integers, softened."""
    soft = np.maximum(footprint, 1e-4)
    gap = np.abs(x - np.round(x))
    return np.clip((width / 2 - gap) / soft + 0.5, 0, 1) * np.minimum(1, width / soft)


def _dots(x, y, z, footprint):
    distance = np.sqrt(sum((p - np.round(p)) ** 2 for p in (x, y, z)))
    return np.clip((0.4 - distance) / np.maximum(footprint, 1e-3) + 0.5, 0, 1)


def _planks(x, y, z, footprint):
    across = y + z  # boards along x, on the ground and on a crate's sides
    tone = fractal(7.31 * np.floor(across), 0 * across, footprint, 1)
    grain = fractal(0.8 * x, 5 * across, 5 * footprint, 2)
    return 0.4 + 0.3 * tone + 0.25 * grain + seams(across, 0.08, footprint)


def _laid(u, v, width, height, footprint):
    """Lay stones of one cell (u, v), each of its own tone, in light joints."""
    tone = fractal(3.7 * np.floor(u), 5.3 * np.floor(v), footprint, 1)
    joint = np.maximum(seams(u, width, footprint), seams(v, height, footprint))
    return 0.22 + 0.22 * tone * (1 - joint) + joint


def _bricks(x, y, z, footprint):
    row = 2.4 * y
    return _laid(x + 0.5 * (np.floor(row) % 2), row, 0.07, 0.16, 2 * footprint)


def _cloudy(stretch: float, octaves: int, gain: float):
    def pattern(x, y, z, footprint):
        # Slanted, so that no face of an object lies along a single row of the noise.
        u, v = stretch * (x + 0.31 * y), z + 0.83 * y
        return 0.5 + gain * fractal(u, v, stretch * footprint, octaves)

    return pattern


PATTERNS = dict(
    plain=lambda x, y, z, footprint: 0 * x,
    stripes=lambda x, y, z, footprint: 0.5 + 0.5 * wave(y, footprint),
    checker=lambda x, y, z, footprint: (
        0.5 + 0.5 * wave(x, footprint) * wave(y, footprint) * wave(z, footprint)
    ),
    dots=_dots,
    planks=_planks,
    bricks=_bricks,
    tiles=lambda x, y, z, footprint: _laid(x, z, 0.06, 0.06, footprint),
    wood=lambda x, y, z, footprint: 0.45 + 0.5 * fractal(6 * (x + z), y, 6 * footprint, 2),
    grass=_cloudy(4.0, 3, 0.5),
    gravel=_cloudy(1.0, 4, 0.7),
    marble=_cloudy(0.4, 4, 0.5),
)
"""Name -> how much of a material's second colour shows, in [0, 1] after clipping; a function of
coordinates and of the footprint of a sample, all (N,) and in cells of the pattern."""


class Material(NamedTuple):
    """A surface: two linear RGB colours in [0, 1], and the pattern that mixes them.

    ``cells`` counts the pattern's cells in a metre, ``gloss`` is the strength of the highlight.
    """

    first: tuple[float, float, float]
    second: tuple[float, float, float]
    pattern: str = 'plain'
    cells: float = 4.0
    gloss: float = 0.0


def albedo(materials: list[Material], index: np.ndarray, points: np.ndarray, footprint: np.ndarray):
    """Colour the surfaces.

    Args:
        materials: All materials of a scene.
        index: Which of them each sample shows, (N,).
        points: float32 coordinates (3, N) in cells.
        footprint: float32 widths (N,) of the samples, in cells.

    Returns:
        Linear RGB, float32 (3, N).
    """
    names = list(PATTERNS)
    pattern = np.array([names.index(material.pattern) for material in materials])[index]
    weight = np.zeros_like(footprint)
    for number, function in enumerate(PATTERNS.values()):
        here = np.nonzero(pattern == number)[0]
        if here.size:
            weight[here] = function(*points.take(here, axis=1), footprint[here])
    weight = np.clip(weight, 0, 1)
    first, second = (
        np.array([material[i] for material in materials], np.float32).T.take(index, axis=1)
        for i in (0, 1)
    )
    x, y, z = points
    spots = fractal(2.7 * x + y, 2.7 * z + y, 2.7 * footprint, 1)
    return (first + (second - first) * weight) * (1 + 0.1 * spots)

"""Procedural surface colours: patterns over local coordinates, filtered by the pixel's footprint.

Patterns never go below the width of a pixel: each wave is softened over ``footprint`` metres and
fades to its mean, so that far textures don't alias.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

_LATTICE = 32


def noise(points: tuple[np.ndarray, ...], seed: int) -> np.ndarray:
    """Smooth value noise in [-1, 1] with unit cells, periodic over 32 of them.

    Args:
        points: Two or three coordinate arrays of shape (N,).
        seed: Chooses the lattice of random values.

    Returns:
        Array of shape (N,), of the coordinates' dtype.
    """
    lattice = _lattice(len(points), seed % 16)
    index, weights = [0], [1]
    for p in points:
        cell = np.floor(p)
        fade = p - cell
        fade = fade * fade * (3 - 2 * fade)
        low = cell.astype(np.int32) & (_LATTICE - 1)
        high = (low + 1) & (_LATTICE - 1)
        index = [i * _LATTICE + a for i in index for a in (low, high)]
        weights = [w * f for w in weights for f in (1 - fade, fade)]
    return sum(w * lattice[i] for w, i in zip(weights, index, strict=True))


@cache
def _lattice(dimensions: int, seed: int) -> np.ndarray:
    values = np.random.default_rng((dimensions, seed)).uniform(-1, 1, _LATTICE**dimensions)
    return values.astype(np.float32)


def fractal(points, seed: int, footprint: np.ndarray, octaves: int = 3) -> np.ndarray:
    """Sum of octaves of ``noise``, each left out where a pixel is wider than its cells."""
    total = 0.0
    for octave in range(octaves):
        frequency = 2.03**octave
        seen = np.clip(1.5 - 2 * frequency * footprint, 0, 1)
        total = total + 0.55**octave * seen * noise(
            tuple(p * frequency for p in points), seed + octave
        )
    return total


def square_wave(x: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    """A wave of period 2 between -1 and 1, positive on [0, 1], softened over ``footprint``."""
    to_edge = 0.5 - np.abs(x % 1.0 - 0.5)
    sign = np.where(x % 2.0 < 1.0, 1.0, -1.0)
    return sign * np.minimum(1.0, to_edge / np.maximum(0.5 * footprint, 1e-4))


def lines(x: np.ndarray, width: float, footprint: np.ndarray) -> np.ndarray:
    """Coverage in [0, 1] of lines ``width`` wide at the integers, softened over ``footprint``."""
    gap = np.abs(x - np.round(x))
    soft = np.maximum(footprint, 1e-4)
    return np.clip((width / 2 - gap) / soft + 0.5, 0, 1) * np.minimum(1, width / soft)


def _plain(points, footprint, seed):
    return np.zeros_like(footprint)


def _stripes(points, footprint, seed):
    return 0.5 + 0.5 * square_wave(points[1] + 0.3, footprint)


def _checker(points, footprint, seed):
    # Shifted off the origin, so that no edge of the pattern falls onto a face.
    return 0.5 + 0.5 * np.prod([square_wave(p + 0.37, footprint) for p in points], axis=0)


def _floor_checker(points, footprint, seed):
    return 0.5 + 0.5 * square_wave(points[0], footprint) * square_wave(points[2], footprint)


def _sectors(points, footprint, seed):
    count = 2 * (2 + seed % 4)
    side = np.sqrt(points[0] ** 2 + points[2] ** 2)
    angle = np.arctan2(points[2], points[0]) * (count / (2 * np.pi))
    width = footprint * count / (2 * np.pi * np.maximum(side, 1e-3))
    return 0.5 + 0.5 * square_wave(angle, width)


def _dots(points, footprint, seed):
    squares = sum((p - np.round(p)) ** 2 for p in points + 0.5)
    return np.clip((0.36 - np.sqrt(squares)) / np.maximum(footprint, 1e-3) + 0.5, 0, 1)


def _marble(points, footprint, seed):
    warp = fractal(tuple(points), seed, footprint, octaves=4)
    return 0.5 + 0.5 * np.sin(3 * (points[0] + points[1]) + 5 * warp)


def _wood(points, footprint, seed):
    grain = fractal((points[0] * 6, points[1], points[2] * 6), seed, footprint * 6, octaves=2)
    return np.clip(0.45 + 0.5 * grain, 0, 1)


def _planks(points, footprint, seed):
    # Boards run along x on the ground and on a crate's sides; each has a tone of its own.
    across = points[1] + points[2]
    board = np.floor(across)
    tone = noise((board * 7.31 + 0.5, 0 * board + 0.5), seed)
    grain = fractal((points[0] * 0.8, across * 5), seed, footprint * 5, octaves=2)
    return np.clip(0.4 + 0.3 * tone + 0.25 * grain + lines(across, 0.08, footprint), 0, 1)


def _bricks(points, footprint, seed):
    row = np.floor(points[1] * 2.4)
    along = points[0] + 0.5 * (row % 2)
    tone = noise((np.floor(along) * 3.7 + 0.5, row * 5.3 + 0.5), seed)
    mortar = np.maximum(
        lines(along, 0.07, footprint), lines(points[1] * 2.4, 0.16, footprint * 2.4)
    )
    return np.clip(0.22 + 0.22 * tone * (1 - mortar) + mortar, 0, 1)


def _tiles(points, footprint, seed):
    tone = noise((np.floor(points[0]) * 3.7 + 0.5, np.floor(points[2]) * 5.3 + 0.5), seed)
    seams = np.maximum(lines(points[0], 0.06, footprint), lines(points[2], 0.06, footprint))
    return np.clip(0.2 + 0.2 * tone * (1 - seams) + seams, 0, 1)


def _gravel(points, footprint, seed):
    rough = fractal((points[0], points[2] + points[1]), seed, footprint, octaves=4)
    return np.clip(0.5 + 0.75 * rough, 0, 1)


def _grass(points, footprint, seed):
    patches = fractal((points[0] * 0.25, points[2] * 0.25), seed, footprint * 0.25, octaves=2)
    blades = fractal((points[0] * 4, points[2]), seed + 3, footprint * 4, octaves=2)
    return np.clip(0.5 + 0.35 * patches + 0.45 * blades, 0, 1)


def _plaster(points, footprint, seed):
    stains = fractal((points[0] * 0.3, points[1] * 0.3), seed, footprint * 0.3, octaves=4)
    return np.clip(0.4 + 0.4 * stains, 0, 1)


Pattern = Callable[[np.ndarray, np.ndarray, int], np.ndarray]

PATTERNS: dict[str, Pattern] = dict(
    plain=_plain,
    stripes=_stripes,
    checker=_checker,
    sectors=_sectors,
    dots=_dots,
    marble=_marble,
    wood=_wood,
    planks=_planks,
    bricks=_bricks,
    tiles=_tiles,
    gravel=_gravel,
    grass=_grass,
    plaster=_plaster,
    floor_checker=_floor_checker,
)
"""Pattern name -> function of points (3, N) and footprint (N,), in cells, and a seed, that
returns in [0, 1] how much of the second colour shows."""


@dataclass(frozen=True)
class Material:
    """A surface: two linear RGB colours, and the pattern that mixes them.

    Attributes:
        colours: Two linear RGB colours in [0, 1].
        pattern: A key of ``PATTERNS``.
        cells: Cells of the pattern per metre.
        mottle: Amplitude of the brightness noise laid over the pattern.
        gloss: Strength of the highlight.
        seed: Seed of the pattern's noise.
    """

    colours: tuple[tuple[float, float, float], tuple[float, float, float]]
    pattern: str = 'plain'
    cells: float = 4.0
    mottle: float = 0.12
    gloss: float = 0.0
    seed: int = 0

    def albedo(self, points: np.ndarray, footprint: np.ndarray) -> np.ndarray:
        """Linear RGB (3, N) at local ``points`` (3, N) seen by pixels ``footprint`` (N,) wide."""
        points, footprint = points.astype(np.float32), footprint.astype(np.float32)
        weight = PATTERNS[self.pattern](points * self.cells, footprint * self.cells, self.seed)
        first, second = (np.array(colour, np.float32)[:, None] for colour in self.colours)
        colour = first + (second - first) * weight
        if self.mottle:
            spots = fractal(tuple(points * 14), self.seed + 5, footprint * 14, octaves=1)
            colour = colour * np.clip(1 + self.mottle * spots, 0.2, 1.8)
        return colour

"""Triangle meshes: every solid is a profile turned on a lathe, then stretched and turned.

Points are float64 arrays of shape (..., 3) in metres: x to the right, y up, z away from the
camera. Products are written out by component, because a matrix product may differ in its last
bits from one BLAS to another, and so would the pictures.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


def rotate(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply a 3x3 ``matrix`` to points of shape (..., 3)."""
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    return np.stack([row[0] * x + row[1] * y + row[2] * z for row in matrix], axis=-1)


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Take cross products (..., 3); exchanging ``a`` and ``b`` changes nothing but the signs."""
    (ax, ay, az), (bx, by, bz) = np.moveaxis(a, -1, 0), np.moveaxis(b, -1, 0)
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)


def axis_rotation(axis: str, angle: float) -> np.ndarray:
    """Give the 3x3 rotation by ``angle`` radians about the axis 'x', 'y' or 'z'."""
    i = 'xyz'.index(axis)
    j, k = (i + 1) % 3, (i + 2) % 3
    matrix = np.eye(3)
    matrix[j, j] = matrix[k, k] = np.cos(angle)
    matrix[k, j], matrix[j, k] = np.sin(angle), -np.sin(angle)
    return matrix


class Solid(NamedTuple):
    """Triangles (F, 3, 3) seen counter-clockwise from outside, and normals at their corners."""

    triangles: np.ndarray
    normals: np.ndarray

    def put(self, position=(0, 0, 0), scale=1.0, rotation=None) -> Solid:
        """Copy, first stretched by ``scale``, then turned, then shifted."""
        scale = np.broadcast_to(np.asarray(scale, float), 3)
        triangles, normals = self.triangles * scale, self.normals / scale
        if rotation is not None:
            triangles, normals = rotate(rotation, triangles), rotate(rotation, normals)
        return Solid(triangles + np.asarray(position, float), normals)

    def between(self, start, end, radius: float) -> Solid:
        """Make a solid of unit height a bar of ``radius`` from ``start`` to ``end``."""
        start, end = np.asarray(start, float), np.asarray(end, float)
        length = np.sqrt(((end - start) ** 2).sum())
        y = (end - start) / length
        helper = np.array([1.0, 0.0, 0.0]) if abs(y[0]) < 0.9 else np.array([0.0, 0.0, 1.0])
        x = cross(y, helper)
        x = x / np.sqrt((x**2).sum())
        turn = np.stack([x, y, cross(x, y)], axis=1)
        return self.put(start, (radius, length, radius), turn)


def lathe(profile, sides: int = 24) -> Solid:
    """Turn a profile about the y axis.

    Args:
        profile: Points (radius, height) from the bottom to the top of the outside. It starts and
            ends on the axis, or ends where it starts.
        sides: Number of flat sides. The normals hide them if there are more than 6, as they hide
            the profile's joints of less than 50 degrees.

    Returns:
        The closed solid.
    """
    radius, height = np.array(profile, float).T
    step = np.stack([np.diff(height), -np.diff(radius)], axis=1)
    own = step / np.sqrt((step**2).sum(axis=1, keepdims=True))
    before = np.roll(own, 1, axis=0)
    smooth = (own * before).sum(axis=1, keepdims=True) > 0.64
    low, high = np.where(smooth, own + before, own), np.where(smooth, own + before, before)
    slopes = np.stack([low, np.roll(high, -1, axis=0)])  # (lower or upper end, segment, 2)

    angle = 2 * np.pi * (np.arange(sides) + 0.5) / sides
    here, there = np.arange(sides), (np.arange(sides) + 1) % sides
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points = _turned(np.stack([radius, height], axis=1)[:, None], ring)  # (point, side, 3)
    middle = ring[here] + ring[there] if sides <= 6 else None
    corners, normals = [], []
    for end, side in ((0, here), (1, here), (1, there), (0, there)):
        corners.append(points[end : len(points) - 1 + end, side])
        normals.append(_turned(slopes[end][:, None], ring[side] if middle is None else middle))
    order = [[0, 1, 2], [0, 2, 3]]
    triangles = np.stack(corners, axis=2)[:, :, order]  # (segment, side, half, corner, 3)
    normals = np.stack(normals, axis=2)[:, :, order]
    # At the axis one half of each quadrangle has no area.
    real = np.stack([radius[1:] > 0, radius[:-1] > 0], axis=1)[:, None].repeat(sides, axis=1)
    return Solid(triangles[real], normals[real])


def _turned(profile: np.ndarray, ring: np.ndarray) -> np.ndarray:
    x, z = profile[..., :1] * ring[..., :1], profile[..., :1] * ring[..., 1:]
    return np.concatenate([x, np.broadcast_to(profile[..., 1:], x.shape), z], axis=-1)


def arc(count: int, start: float, end: float) -> np.ndarray:
    """Give ``count`` + 1 points (radius, height) of the unit circle, angles from straight down."""
    angle = np.linspace(start, end, count + 1)
    return np.stack([np.sin(angle), -np.cos(angle)], axis=1)


def _half_circle(count: int) -> np.ndarray:
    points = arc(count, 0, np.pi)
    points[[0, -1], 0] = 0.0  # exactly on the axis
    return points


BOX = lathe([(0, 0), (0.5**0.5, 0), (0.5**0.5, 1), (0, 1)], sides=4)
CYLINDER = lathe([(0, 0), (1, 0), (1, 1), (0, 1)], sides=32)
ROD = lathe([(0, 0), (1, 0), (1, 1), (0, 1)], sides=8)
BRANCH = lathe([(0, 0), (1, 0), (0.6, 1), (0, 1)], sides=8)
BALL = lathe(_half_circle(18), sides=36)
CLUMP = lathe(_half_circle(6), sides=10)
"""Solids of unit radius (the box: unit width) that stand on y = 0, but for the last two, which
have their centre there."""

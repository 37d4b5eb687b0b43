"""Scalar float64 ray casting of a scene: every solid, every ray, by textbook formulas."""

from __future__ import annotations

import math

import numpy as np

from mmdysample.scenes.shapes import Box, Ellipsoid, Frustum, Torus


def pixel_ray(camera, x, y):
    """Origin and direction of a pixel's ray; one unit of the parameter is one metre of depth."""
    across = (x + 0.5 - camera.size[1] / 2) / camera.focal
    up = (camera.size[0] / 2 - 0.5 - y) / camera.focal
    c, s = math.cos(camera.pitch), math.sin(camera.pitch)
    direction = [across, up * c - s, up * s + c]
    return np.array([0.0, camera.height, 0.0]), np.array(direction)


def nearest(solids, origin, direction, least=0.0):
    """The least ray parameter above ``least`` and the index of its solid; (inf, None) if none."""
    best, index = math.inf, None
    for i, solid in enumerate(solids):
        inverse = np.linalg.inv(solid.rotation)
        for t in crossings(solid, inverse @ (origin - solid.position), inverse @ direction):
            if least < t < best:
                best, index = t, i
    return best, index


def crossings(solid, o, d):
    """All ray parameters at which a local ray crosses the surface."""
    if isinstance(solid, Ellipsoid):
        a = sum((d[i] / solid.radii[i]) ** 2 for i in range(3))
        b = sum(2 * o[i] * d[i] / solid.radii[i] ** 2 for i in range(3))
        c = sum((o[i] / solid.radii[i]) ** 2 for i in range(3)) - 1
        return real_roots([a, b, c])
    if isinstance(solid, Box):
        return [t for axis in range(3) for t in face_crossings(solid.half, axis, o, d)]
    if isinstance(solid, Frustum):
        return frustum_crossings(solid, o, d)
    assert isinstance(solid, Torus)
    # (|p|² + R² - r²)² = 4 R² (x² + z²) along p = o + t d.
    square = np.array([d @ d, 2 * o @ d, o @ o + solid.radius**2 - solid.tube**2])
    flat = np.array([d[0] ** 2 + d[2] ** 2, 2 * (o[0] * d[0] + o[2] * d[2]), o[0] ** 2 + o[2] ** 2])
    quartic = np.polysub(np.polymul(square, square), 4 * solid.radius**2 * flat)
    return real_roots(quartic)


def real_roots(polynomial):
    return [root.real for root in np.roots(polynomial) if abs(root.imag) < 1e-7]


def face_crossings(half, axis, o, d):
    for side in (-half[axis], half[axis]):
        if d[axis] != 0:
            t = (side - o[axis]) / d[axis]
            if all(abs(o[i] + t * d[i]) <= half[i] for i in range(3) if i != axis):
                yield t


def frustum_crossings(solid, o, d):
    k = (solid.top - solid.bottom) / solid.height
    r = np.array([k * d[1], solid.bottom + k * o[1]])
    mantle = np.polysub(
        np.polyadd(np.polymul([d[0], o[0]], [d[0], o[0]]), np.polymul([d[2], o[2]], [d[2], o[2]])),
        np.polymul(r, r),
    )
    found = [t for t in real_roots(mantle) if 0 <= o[1] + t * d[1] <= solid.height]
    for level, radius in ((0.0, solid.bottom), (solid.height, solid.top)):
        t = (level - o[1]) / d[1]
        if math.hypot(o[0] + t * d[0], o[2] + t * d[2]) <= radius:
            found.append(t)
    return found

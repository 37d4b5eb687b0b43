"""Float64 ray casting of a scene by Cramer's rule: every triangle, from either side."""

from __future__ import annotations

import math

import numpy as np


def pixel_ray(camera, x, y):
    """Origin and direction of a pixel's ray; one unit of the parameter is one metre of depth."""
    across = (x + 0.5 - camera.size[1] / 2) / camera.focal
    up = (camera.size[0] / 2 - 0.5 - y) / camera.focal
    c, s = math.cos(camera.pitch), math.sin(camera.pitch)
    direction = [across, up * c - s, up * s + c]
    return np.array([0.0, camera.height, 0.0]), np.array(direction)


def nearest(triangles, origin, direction):
    """The least positive ray parameter and the triangle's index; (inf, None) if none is hit."""
    # origin + t * direction = a + u * (b - a) + v * (c - a)
    a, b, c = np.moveaxis(triangles, 1, 0)
    columns = [b - a, c - a, np.broadcast_to(-direction, a.shape)]
    whole = np.linalg.det(np.stack(columns, axis=-1))
    solved = []
    for i in range(3):
        replaced = [*columns[:i], origin - a, *columns[i + 1 :]]
        with np.errstate(divide='ignore', invalid='ignore'):
            solved.append(np.linalg.det(np.stack(replaced, axis=-1)) / whole)
    u, v, t = solved
    t = np.where((u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0), t, np.inf)
    index = int(t.argmin())
    return (t[index], index) if np.isfinite(t[index]) else (np.inf, None)

"""Solids that a ray can hit: ellipsoid, box, frustum (cylinder, cone) and torus.

Points and directions are float64 arrays of shape (3, N), lengths are metres. Every product is
written out by component: matrix products would make the pictures depend on the BLAS in use.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from mmdysample.scenes.textures import Material


def rotate(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Applies a 3x3 ``matrix`` to points of shape (3, N)."""
    x, y, z = points
    return np.stack([row[0] * x + row[1] * y + row[2] * z for row in matrix])


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Inner products of two (3, N) arrays along their first axis."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def axis_rotation(axis: str, angle: float) -> np.ndarray:
    """The 3x3 rotation by ``angle`` radians about the axis 'x', 'y' or 'z'."""
    i = 'xyz'.index(axis)
    j, k = (i + 1) % 3, (i + 2) % 3
    matrix = np.eye(3)
    matrix[j, j] = matrix[k, k] = np.cos(angle)
    matrix[k, j], matrix[j, k] = np.sin(angle), -np.sin(angle)
    return matrix


def rotation_onto(direction: np.ndarray) -> np.ndarray:
    """A 3x3 rotation that carries the y axis onto ``direction``."""
    y = direction / np.linalg.norm(direction)
    helper = np.array([1.0, 0.0, 0.0]) if abs(y[0]) < 0.9 else np.array([0.0, 0.0, 1.0])
    x = np.cross(y, helper)
    x /= np.linalg.norm(x)
    return np.stack([x, y, np.cross(x, y)], axis=1)


@dataclass(frozen=True)
class Solid:
    """A solid at ``position``, turned by ``rotation``; subclasses add the geometry.

    Attributes:
        material: What the surface looks like.
        position: World position (3,) of the local origin.
        rotation: 3x3 rotation from the local to the world axes.
    """

    material: Material
    position: np.ndarray = field(default_factory=lambda: np.zeros(3))
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and highest corner, (3,) each, of the local bounding box."""
        raise NotImplementedError

    def hit(self, origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Local rays (3, N) -> the least positive ray parameter, (N,), inf for a miss."""
        raise NotImplementedError

    def outward(self, points: np.ndarray) -> np.ndarray:
        """Normals (3, N), of any length, at local surface points (3, N)."""
        raise NotImplementedError

    @cached_property
    def corners(self) -> np.ndarray:
        """World corners (3, 8) of the bounding box."""
        low, high = self.bounds()
        grid = np.stack(np.meshgrid(*zip(low, high, strict=True), indexing='ij')).reshape(3, 8)
        return rotate(self.rotation, grid) + self.position[:, None]

    def to_local(self, points: np.ndarray) -> np.ndarray:
        """World points (3, N) in the solid's own frame."""
        return rotate(self.rotation.T, points - self.position[:, None])

    def intersect(self, origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """The ray parameter (N,) at which world rays enter the solid, inf for a miss."""
        with np.errstate(divide='ignore', invalid='ignore'):
            return self.hit(self.to_local(origin), rotate(self.rotation.T, direction))

    def normal(self, local: np.ndarray) -> np.ndarray:
        """Unit world normals (3, N) at local surface points (3, N)."""
        normal = self.outward(local)
        length = np.sqrt(dot(normal, normal))
        return rotate(self.rotation, normal / np.maximum(length, 1e-12))

    def moved(self, position: np.ndarray, rotation: np.ndarray) -> Solid:
        """A copy, first turned about the world origin and then shifted."""
        return replace(
            self, position=rotation @ self.position + position, rotation=rotation @ self.rotation
        )


@dataclass(frozen=True)
class Ellipsoid(Solid):
    """``radii`` (3,) about the local origin."""

    radii: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def bounds(self):
        """Plus and minus the radii."""
        return -np.array(self.radii), np.array(self.radii)

    def hit(self, origin, direction):
        """The nearer root, in the frame where the ellipsoid is the unit ball."""
        scale = np.array(self.radii)[:, None]
        origin, direction = origin / scale, direction / scale
        a, b = dot(direction, direction), dot(origin, direction)
        # The ray's point nearest to the centre: no cancellation for small, far solids.
        nearest = origin - direction * (b / a)
        t = (-b - np.sqrt(a * (1.0 - dot(nearest, nearest)))) / a
        return np.where(t > 0, t, np.inf)

    def outward(self, points):
        """The gradient of the sum of squares (x / radius)²."""
        return points / (np.array(self.radii) ** 2)[:, None]


@dataclass(frozen=True)
class Box(Solid):
    """``half`` (3,) extents about the local origin."""

    half: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def bounds(self):
        """Plus and minus the half extents."""
        return -np.array(self.half), np.array(self.half)

    def hit(self, origin, direction):
        """Slabs: the last entry, if it comes before the first exit."""
        half = np.array(self.half)[:, None]
        a, b = (-half - origin) / direction, (half - origin) / direction
        enter = np.minimum(a, b).max(axis=0)
        leave = np.maximum(a, b).min(axis=0)
        return np.where((enter > 0) & (enter <= leave), enter, np.inf)

    def outward(self, points):
        """The axis along which the point is the farthest out."""
        scaled = points / np.array(self.half)[:, None]
        face = np.arange(3)[:, None] == np.abs(scaled).argmax(axis=0)
        return np.where(face, np.sign(scaled), 0.0)


@dataclass(frozen=True)
class Frustum(Solid):
    """From radius ``bottom`` at y = 0 to radius ``top`` at y = ``height``, with both caps."""

    bottom: float = 1.0
    top: float = 1.0
    height: float = 1.0

    def bounds(self):
        """The box about both caps."""
        radius = max(self.bottom, self.top)
        return np.array([-radius, 0.0, -radius]), np.array([radius, self.height, radius])

    def hit(self, origin, direction):
        """The least of the roots of the mantle and the hits of the caps."""
        slope = (self.top - self.bottom) / self.height
        radius = self.bottom + slope * origin[1]
        a = direction[0] ** 2 + direction[2] ** 2 - (slope * direction[1]) ** 2
        b = origin[0] * direction[0] + origin[2] * direction[2] - slope * direction[1] * radius
        c = origin[0] ** 2 + origin[2] ** 2 - radius**2
        root = np.sqrt(b * b - a * c)
        best = np.full(np.broadcast(a, c).shape, np.inf)
        for t in ((-b - root) / a, (-b + root) / a):
            y = origin[1] + t * direction[1]
            best = np.where((t > 0) & (t < best) & (y >= 0) & (y <= self.height), t, best)
        for level, cap in ((0.0, self.bottom), (self.height, self.top)):
            t = (level - origin[1]) / direction[1]
            x, z = origin[0] + t * direction[0], origin[2] + t * direction[2]
            best = np.where((t > 0) & (t < best) & (x * x + z * z <= cap * cap), t, best)
        return best

    def outward(self, points):
        """The gradient of the surface, mantle or cap, on which the point lies."""
        x, y, z = points
        slope = (self.top - self.bottom) / self.height
        side = np.sqrt(x * x + z * z)
        # Distances to the mantle and to the caps: the nearest one is where the point lies.
        mantle = np.abs(side - (self.bottom + slope * y))
        low, high = np.abs(y), np.abs(self.height - y)
        cap = np.minimum(low, high) < mantle
        normal = np.stack([x, -slope * side, z])
        up = np.where(high < low, 1.0, -1.0)
        return np.where(cap, np.stack([0 * x, up, 0 * x]), normal)


@dataclass(frozen=True)
class Torus(Solid):
    """A ring about the y axis: the tube of radius ``tube`` follows a circle of ``radius``."""

    radius: float = 1.0
    tube: float = 0.25

    steps = 96
    tolerance = 1e-6

    def bounds(self):
        """The box about the ring."""
        reach = self.radius + self.tube
        return np.array([-reach, -self.tube, -reach]), np.array([reach, self.tube, reach])

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Signed distances (N,) of local points (3, N) to the surface."""
        side = np.sqrt(points[0] ** 2 + points[2] ** 2) - self.radius
        return np.sqrt(side * side + points[1] ** 2) - self.tube

    def hit(self, origin, direction):
        """Sphere tracing, from where the ray enters the bounding ball to where it leaves."""
        a, b = dot(direction, direction), dot(origin, direction)
        nearest = origin - direction * (b / a)
        reach = np.sqrt(((self.radius + self.tube) ** 2 - dot(nearest, nearest)) / a)
        origin = np.broadcast_to(origin, direction.shape)
        result = np.full(a.shape, np.inf)
        alive = np.nonzero(np.isfinite(reach) & (reach - b / a > 0))[0]
        t = np.maximum(-b / a - reach, 0.0)
        last = -b / a + reach
        for _ in range(self.steps):
            gap = self.distance(origin[:, alive] + t[alive] * direction[:, alive])
            found = gap < self.tolerance
            result[alive[found]] = t[alive[found]]
            t[alive] += gap / np.sqrt(a[alive])
            alive = alive[~found & (t[alive] <= last[alive])]
            if not alive.size:
                break
        return np.where(result > 0, result, np.inf)

    def outward(self, points):
        """From the nearest point of the circle within the tube."""
        x, y, z = points
        side = np.sqrt(x * x + z * z)
        pull = (side - self.radius) / np.maximum(side, 1e-12)
        return np.stack([x * pull, y, z * pull])

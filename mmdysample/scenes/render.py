"""Ray casting of a scene: the picture, and the exact truth at every pixel's centre.

Each solid is tested only against the rays whose image-plane coordinates fall into the rectangle
about its corners. The same holds for shadows, where the plane is the one that faces the sun.
Pixels next to an edge are traced again at four points each, which smooths the picture; the truth
stays that of the centre.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmdysample.scenes.metainfo import CLASSES
from mmdysample.scenes.objects import Thing
from mmdysample.scenes.shapes import Solid, dot
from mmdysample.scenes.textures import fractal

MAX_DEPTH = 10.0
"""Metres. What lies beyond, and the sky, has no depth (0)."""

SUBPIXELS = ((-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25))


@dataclass(frozen=True)
class Camera:
    """A pinhole ``height`` metres above the world origin that looks along z, ``pitch`` down.

    Attributes:
        size: Picture height and width in pixels.
        focal: Focal length in pixels.
        height: Metres above the ground.
        pitch: Radians below the horizon.
    """

    size: tuple[int, int]
    focal: float
    height: float
    pitch: float

    @property
    def axes(self) -> np.ndarray:
        """Rows: the world directions of the picture's x and y (down) and of the optical axis."""
        c, s = np.cos(self.pitch), np.sin(self.pitch)
        return np.array([[1.0, 0.0, 0.0], [0.0, -c, -s], [0.0, -s, c]])

    @property
    def position(self) -> np.ndarray:
        """Where it stands, (3,)."""
        return np.array([0.0, self.height, 0.0])

    def rays(self, pixels: np.ndarray) -> np.ndarray:
        """World directions (3, N) through ``pixels`` (2, N), x before y, centres at integers.

        They advance one metre along the optical axis: the ray parameter is the depth.
        """
        x = (pixels[0] + 0.5 - self.size[1] / 2) / self.focal
        y = (pixels[1] + 0.5 - self.size[0] / 2) / self.focal
        right, down, forward = self.axes
        return right[:, None] * x + down[:, None] * y + forward[:, None]

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels (2, N) of world points (3, N); nan for those that aren't before the camera."""
        right, down, forward = (
            dot(axis[:, None], points - self.position[:, None]) for axis in self.axes
        )
        depth = np.where(forward > 0.05, forward, np.nan)
        return np.stack(
            [
                right / depth * self.focal + self.size[1] / 2 - 0.5,
                down / depth * self.focal + self.size[0] / 2 - 0.5,
            ]
        )


@dataclass(frozen=True)
class Scene:
    """Everything that a picture shows.

    Attributes:
        camera: Where it is seen from.
        things: The objects; the i-th is instance i + 1.
        stuff: Ground and wall, by class name; what no ray hits is sky.
        sun: Unit vector (3,) towards the light.
        sunlight: Linear RGB (3,) of the direct light.
        skylight: Linear RGB (3,) of the light from above.
        sky: Two linear RGB colours, at the horizon and overhead.
        grain: Standard deviation of the sensor noise, in 8-bit steps.
        seed: Seed of that noise and of the clouds.
    """

    camera: Camera
    things: tuple[Thing, ...]
    stuff: dict[str, Solid]
    sun: np.ndarray
    sunlight: np.ndarray
    skylight: np.ndarray
    sky: tuple[np.ndarray, np.ndarray]
    grain: float
    seed: int

    @property
    def solids(self) -> list[Solid]:
        """All solids, the stuff last."""
        return [s for thing in self.things for s in thing.solids] + list(self.stuff.values())

    @property
    def owners(self) -> np.ndarray:
        """For each of ``solids`` the instance it belongs to, 0 for stuff."""
        counts = [len(thing.solids) for thing in self.things] + [len(self.stuff)]
        return np.repeat([*range(1, len(counts)), 0], counts)

    @property
    def labels(self) -> np.ndarray:
        """For each of ``solids`` the index of its class."""
        names = [thing.name for thing in self.things for _ in thing.solids] + list(self.stuff)
        return np.array([CLASSES.index(name) for name in names])


@dataclass(frozen=True)
class Frame:
    """A picture and its truth, all of the same height and width.

    Attributes:
        image: uint8 RGB (H, W, 3).
        instance: int32 (H, W), the visible object from 1, 0 for stuff.
        semantic: uint8 (H, W), indices into ``CLASSES``.
        depth: float32 (H, W), metres along the optical axis, 0 where there is none.
    """

    image: np.ndarray
    instance: np.ndarray
    semantic: np.ndarray
    depth: np.ndarray


def cast(solids, origin, direction, plane, project) -> tuple[np.ndarray, np.ndarray]:
    """Finds the nearest solid on each ray.

    Args:
        solids: Groups of solids, each culled as a whole before its members are tried.
        origin: Ray origins (3, N), or (3, 1) for all.
        direction: Ray directions (3, N).
        plane: Coordinates (2, N) of the rays on the plane that ``project`` projects to.
        project: Maps world points (3, M) to that plane, (2, M); nan where it can't.

    Returns:
        The ray parameters (N,), inf where nothing is hit, and the indices (N,) of the solids in
        the flattened groups, -1 where nothing is hit.
    """
    depth = np.full(direction.shape[1], np.inf)
    winner = np.full(direction.shape[1], -1, dtype=np.int32)
    index = 0
    for group in solids:
        corners = project(np.concatenate([solid.corners for solid in group], axis=1))
        near = _inside(plane, corners)
        here = plane.take(near, axis=1)
        for solid, span in zip(group, np.split(corners, len(group), axis=1), strict=True):
            rays = near[_inside(here, span)]
            if rays.size:
                start = origin if origin.shape[1] == 1 else origin.take(rays, axis=1)
                t = solid.intersect(start, direction.take(rays, axis=1))
                closer = t < depth[rays]
                depth[rays[closer]] = t[closer]
                winner[rays[closer]] = index
            index += 1
    return depth, winner


def _inside(plane: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Indices of the points (2, N) in the rectangle about ``corners`` (2, M); all if it's nan."""
    (left, top), (right, bottom) = corners.min(axis=1), corners.max(axis=1)
    if np.isnan(left):
        return np.arange(plane.shape[1])
    x, y = plane
    return np.nonzero((x >= left) & (x <= right) & (y >= top) & (y <= bottom))[0]


def trace(scene: Scene, pixels: np.ndarray):
    """Depth (N,), solid (N,), lit (N,) and linear RGB (3, N) at ``pixels`` (2, N)."""
    camera, solids = scene.camera, scene.solids
    origin, direction = camera.position[:, None], camera.rays(pixels)
    groups = [thing.solids for thing in scene.things] + [list(scene.stuff.values())]
    depth, winner = cast(groups, origin, direction, pixels, camera.project)
    distance = np.sqrt(dot(direction, direction))

    colour = np.empty_like(direction)
    sky = winner < 0
    colour[:, sky] = _sky(scene, direction[:, sky] / distance[sky])
    points = origin + direction * np.where(sky, 0.0, depth)
    normals, albedo = np.zeros_like(points), np.zeros_like(points)
    order = np.argsort(winner, kind='stable')
    starts = np.searchsorted(winner[order], range(len(solids) + 1))
    for solid, start, stop in zip(solids, starts[:-1], starts[1:], strict=True):
        mine = order[start:stop]
        if mine.size:
            local = solid.to_local(points.take(mine, axis=1))
            normal = solid.normal(local)
            normals[:, mine] = normal
            slant = -dot(normal, direction.take(mine, axis=1)) / distance[mine]
            width = depth[mine] / camera.focal / np.sqrt(np.clip(slant, 0.05, 1))
            albedo[:, mine] = solid.material.albedo(local, width)

    seen = np.nonzero(~sky)[0]
    lit = np.zeros(sky.shape, dtype=bool)
    points, normals, albedo, direction = (
        array.take(seen, axis=1) for array in (points, normals, albedo, direction)
    )
    lit[seen] = _lit(scene, points, normals)
    gloss = np.array([solid.material.gloss for solid in solids])[winner[seen]]
    colour[:, seen] = _shade(
        scene, points, normals, albedo, gloss, -direction / distance[seen], lit[seen]
    )
    return depth, winner, lit, colour


def _lit(scene: Scene, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Which surface points (3, N) the sun reaches."""
    lit = dot(normals, scene.sun[:, None]) > 0
    facing = np.nonzero(lit)[0]
    start = points.take(facing, axis=1) + 1e-4 * normals.take(facing, axis=1)
    helper = np.array([0.0, 0.0, 1.0]) if abs(scene.sun[2]) < 0.9 else np.array([1.0, 0.0, 0.0])
    across = np.cross(scene.sun, helper)
    along = np.cross(scene.sun, across)

    def project(world):
        return np.stack([dot(across[:, None], world), dot(along[:, None], world)])

    direction = np.broadcast_to(scene.sun[:, None], start.shape)
    _, blocker = cast(
        [thing.solids for thing in scene.things], start, direction, project(start), project
    )
    lit[facing] = blocker < 0
    return lit


def _shade(scene, points, normals, albedo, gloss, view, lit) -> np.ndarray:
    """Linear RGB (3, N): light from sky and ground, sun, highlight, and a little haze."""
    sun = scene.sun[:, None]
    above = 0.5 + 0.5 * normals[1]
    ambient = scene.skylight[:, None] * (0.35 + 0.65 * above) * _openness(scene, points)
    direct = np.where(lit, dot(normals, sun), 0.0)
    colour = albedo * (ambient + scene.sunlight[:, None] * direct)
    glossy = np.nonzero(lit & (gloss > 0))[0]
    half = sun + view.take(glossy, axis=1)
    half = half / np.sqrt(dot(half, half))
    highlight = 0.6 * gloss[glossy] * np.clip(dot(normals.take(glossy, axis=1), half), 0, 1) ** 40
    colour[:, glossy] += scene.sunlight[:, None] * highlight
    haze = np.clip(0.012 * points[2], 0, 0.15)
    return colour * (1 - haze) + scene.sky[0][:, None] * haze


def _openness(scene: Scene, points: np.ndarray) -> np.ndarray:
    """How much (N,) of the sky's light gets to points (3, N) beside the things' feet."""
    openness = np.ones(points.shape[1])
    low = np.nonzero(points[1] < 0.3)[0]
    x, y, z = points[:, low]
    for thing in scene.things:
        strength = thing.shade / np.sqrt(len(thing.footprint))
        for u, v, radius in thing.footprint:
            near = np.nonzero((np.abs(x - u) < 2.5 * radius) & (np.abs(z - v) < 2.5 * radius))[0]
            squares = (x[near] - u) ** 2 + (z[near] - v) ** 2
            fall = squares / (1.1 * radius) ** 2 + y[near] / (0.5 * radius)
            openness[low[near]] *= 1 - strength * np.exp(-fall)
    return openness


def _sky(scene: Scene, view: np.ndarray) -> np.ndarray:
    """Linear RGB (3, N) of the sky in unit directions (3, N): a gradient and clouds."""
    rise = np.clip(view[1] * 2.5, 0, 1)
    horizon, zenith = scene.sky[0][:, None], scene.sky[1][:, None]
    flat = 3.0 / (np.abs(view[1]) + 0.25)
    clouds = fractal((view[0] * flat, view[2] * flat), scene.seed, np.full(rise.shape, 0.02), 4)
    cover = np.clip(0.8 * clouds - 0.1, 0, 0.8)
    return (horizon + (zenith - horizon) * rise) * (1 - cover) + 0.95 * cover


def render(scene: Scene) -> Frame:
    """Renders a scene; the same scene gives the same bytes."""
    height, width = scene.camera.size
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x.ravel(), y.ravel()]).astype(np.float64)
    depth, winner, lit, colour = trace(scene, pixels)

    edge = np.nonzero(_edges((winner * 2 + lit).reshape(height, width)).ravel())[0]
    if edge.size:
        fine = pixels[:, None, edge] + np.array(SUBPIXELS).T[:, :, None]
        *_, samples = trace(scene, fine.reshape(2, -1))
        colour[:, edge] = np.clip(samples, 0, 1).reshape(3, len(SUBPIXELS), -1).mean(axis=1)

    rng = np.random.default_rng(scene.seed)
    noise = scene.grain * rng.standard_normal((height, width, 3), dtype=np.float32)
    display = 255 * np.clip(colour, 0, 1).astype(np.float32) ** np.float32(1 / 2.2)
    image = display.T.reshape(height, width, 3) + noise
    owners, labels = np.append(scene.owners, 0), np.append(scene.labels, CLASSES.index('sky'))
    depth = np.where(depth <= MAX_DEPTH, depth, 0.0)
    return Frame(
        np.clip(np.round(image), 0, 255).astype(np.uint8),
        owners[winner].reshape(height, width).astype(np.int32),
        labels[winner].reshape(height, width).astype(np.uint8),
        depth.reshape(height, width).astype(np.float32),
    )


def _edges(labels: np.ndarray) -> np.ndarray:
    """Pixels of a map (H, W) that differ from a neighbour above, below, left or right."""
    edges = np.zeros(labels.shape, dtype=bool)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    edges[1:] |= down
    edges[:-1] |= down
    edges[:, 1:] |= right
    edges[:, :-1] |= right
    return edges

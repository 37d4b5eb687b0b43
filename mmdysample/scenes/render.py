"""The picture of a scene, and the exact truth at every pixel's centre.

All objects are triangles, and one scan finds the nearest of them at 3 x 3 samples for each pixel.
The sample in the middle is the pixel's truth. Pixels in which all samples show the same part are
coloured once, the others at each sample, which smooths the edges. Shadows are the same triangles,
laid along the sun's rays onto the ground and the wall; objects cast none on each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mmdysample.scenes.metainfo import CLASSES
from mmdysample.scenes.objects import Thing
from mmdysample.scenes.shapes import cross, rotate
from mmdysample.scenes.textures import albedo, fractal

MAX_DEPTH = 10.0
"""Metres. What lies beyond, and the sky, has no depth (0)."""

SAMPLES = 3
"""Samples along each side of a pixel; an odd number, so that one lies in the middle."""


@dataclass(frozen=True)
class Camera:
    """A pinhole ``height`` metres above the world's origin that looks along z, ``pitch`` down.

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

    def project(self, points: np.ndarray) -> np.ndarray:
        """Map world points (..., 3) to (x * depth, y * depth, depth), x and y in samples."""
        x, y, depth = np.moveaxis(rotate(self.axes, points - (0.0, self.height, 0.0)), -1, 0)
        height, width = self.size
        return np.stack(
            [
                SAMPLES * self.focal * x + (SAMPLES * width - 1) / 2 * depth,
                SAMPLES * self.focal * y + (SAMPLES * height - 1) / 2 * depth,
                depth,
            ],
            axis=-1,
        )

    def rays(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Give world directions (N, 3) through samples; each is one metre long along the axis."""
        height, width = self.size
        x = (x - (SAMPLES * width - 1) / 2) / (SAMPLES * self.focal)
        y = (y - (SAMPLES * height - 1) / 2) / (SAMPLES * self.focal)
        return rotate(self.axes.T, np.stack([x, y, np.ones_like(x)], axis=-1))


@dataclass(frozen=True)
class Scene:
    """Everything that a picture shows.

    Attributes:
        camera: Where it is seen from; everything lies in front of it.
        things: The objects; the i-th is instance i + 1.
        stuff: Ground and wall, if any; what no triangle covers is sky.
        sun: Unit vector (3,) towards the light.
        sunlight: Linear RGB (3,) of the direct light.
        skylight: Linear RGB (3,) of the light from above.
        sky: Two linear RGB colours, at the horizon and overhead.
        grain: Standard deviation of the sensor noise, in 8-bit steps.
        seed: Seed of that noise and of the clouds.
    """

    camera: Camera
    things: tuple[Thing, ...]
    stuff: tuple[Thing, ...]
    sun: np.ndarray
    sunlight: np.ndarray
    skylight: np.ndarray
    sky: tuple[np.ndarray, np.ndarray]
    grain: float
    seed: int

    @cached_property
    def triangles(self) -> np.ndarray:
        """World corners (F, 3, 3) of all triangles, the stuff's last."""
        return np.concatenate([item.solid.triangles for item in self.things + self.stuff])

    @cached_property
    def owners(self) -> np.ndarray:
        """Which of things and stuff, counted together, each triangle is a part of, (F,)."""
        items = self.things + self.stuff
        return np.repeat(np.arange(len(items)), [len(item.index) for item in items])


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


class Scan:
    """The triangles that face the camera, and the samples that each covers, row by row.

    A point of a triangle is a sum of its corners with weights; for the point behind a sample
    (x, y) these are depth * ``weights`` @ (x, y, 1).

    Args:
        triangles: What ``Camera.project`` gives, (F, 3, 3). Those that don't lie wholly in front
            of the camera are left out: of a scene only shadows go so far aside.
        shape: Number of rows and columns of samples.
    """

    def __init__(self, triangles: np.ndarray, shape: tuple[int, int]):
        # Neighbours compute their common edge from the same numbers, so no sample is lost there.
        edges = cross(np.roll(triangles, -1, axis=1), np.roll(triangles, -2, axis=1))
        volume = (triangles[:, 0] * edges[:, 0]).sum(axis=-1)
        self.faces = np.nonzero((volume > 0) & (triangles[..., 2] > 0.05).all(axis=1))[0]
        self.weights = edges[self.faces] / volume[self.faces, None, None]
        y = triangles[self.faces, :, 1] / triangles[self.faces, :, 2]
        first = np.maximum(np.ceil(y.min(axis=1)), 0).astype(int)
        last = np.minimum(np.floor(y.max(axis=1)), shape[0] - 1).astype(int)
        count = np.maximum(last - first + 1, 0)
        face = np.repeat(np.arange(len(count)), count)
        row = np.arange(len(face)) - np.repeat(np.cumsum(count) - count - first, count)
        left, right = np.zeros(len(face)), np.full(len(face), shape[1] - 1.0)
        with np.errstate(divide='ignore', invalid='ignore'):
            for a, b, c in np.moveaxis(edges[self.faces], 0, -1):
                bound = -(b[face] * row + c[face]) / a[face]
                np.maximum(left, bound, out=left, where=(a > 0)[face])
                np.minimum(right, bound, out=right, where=(a < 0)[face])
        left, right = np.ceil(left).astype(int), np.floor(right).astype(int)
        some = np.nonzero(left <= right)[0]
        self.face, self.row, self.left, self.right = (
            array[some] for array in (face, row, left, right)
        )
        self.shape = shape

    def nearest(self) -> np.ndarray:
        """Find the nearest triangle at each sample, (rows * columns,); -1 where there is none."""
        slope, down, constant = self.weights.sum(axis=1).T[:, self.face]
        length = self.right - self.left + 1
        x = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length - self.left, length)
        # The reciprocal of the depth is linear. The bits of positive floats are in their order.
        nearness = np.repeat(slope, length) * x + np.repeat(down * self.row + constant, length)
        key = nearness.astype(np.float32).view(np.uint32).astype(np.int64) << 32
        key |= np.repeat(self.faces[self.face], length)
        best = np.full(self.shape[0] * self.shape[1], -1)
        np.maximum.at(best, np.repeat(self.row * self.shape[1], length) + x, key)
        return np.where(best < 0, -1, best & 0xFFFFFFFF)

    def covered(self) -> np.ndarray:
        """Tell whether each sample lies on any triangle, (rows * columns,)."""
        size = self.shape[0] * self.shape[1]
        start = self.row * self.shape[1] + self.left
        ends = np.bincount(start + self.right - self.left + 1, minlength=size + 1)
        return np.cumsum(np.bincount(start, minlength=size + 1) - ends)[:size] > 0


def render(scene: Scene) -> Frame:
    """Render a scene; the same scene gives the same bytes."""
    height, width = scene.camera.size
    shape = SAMPLES * height, SAMPLES * width
    scan = Scan(scene.camera.project(scene.triangles), shape)
    winner = scan.nearest()
    shadow = _shadows(scene, shape, winner)

    def by_pixel(samples):
        blocks = samples.reshape(height, SAMPLES, width, SAMPLES)
        return blocks.transpose(0, 2, 1, 3).reshape(height * width, SAMPLES**2)

    materials = [len(item.materials) for item in scene.things + scene.stuff]
    parts = np.concatenate([item.index for item in scene.things + scene.stuff])
    parts = parts + (np.cumsum(materials) - materials)[scene.owners]
    look = by_pixel(np.append(2 * parts, -2)[winner] + shadow)
    mixed = np.nonzero((look != look[:, :1]).any(axis=1))[0]
    every = by_pixel(np.arange(winner.size))
    middle = every[:, SAMPLES**2 // 2]
    samples = np.concatenate([middle, every[mixed].ravel()])
    depth, colour = _shade(scene, scan, parts, samples, winner[samples], shadow[samples])
    depth, several = depth[: len(middle)], colour[len(middle) :]
    colour = colour[: len(middle)]
    colour[mixed] = several.reshape(-1, SAMPLES**2, 3).mean(axis=1)

    rng = np.random.default_rng(scene.seed)
    noise = scene.grain * rng.standard_normal((height, width, 3), dtype=np.float32)
    image = 255 * colour.reshape(height, width, 3) ** np.float32(1 / 2.2) + noise
    owner = np.append(scene.owners, len(materials))[winner[middle]].reshape(height, width)
    labels = [CLASSES.index(item.name) for item in scene.things + scene.stuff]
    return Frame(
        np.clip(np.round(image), 0, 255).astype(np.uint8),
        np.where(owner < len(scene.things), owner + 1, 0).astype(np.int32),
        np.array([*labels, CLASSES.index('sky')], np.uint8)[owner],
        np.where(depth <= MAX_DEPTH, depth, 0).reshape(height, width).astype(np.float32),
    )


def _shadows(scene: Scene, shape: tuple[int, int], winner: np.ndarray) -> np.ndarray:
    """Find the samples, of ground or wall, that lie in the shadow of a thing."""
    triangles = scene.triangles[scene.owners < len(scene.things)]
    owner = np.append(scene.owners, -1)[winner]
    shadow = np.zeros(winner.shape, bool)
    for number, plane in enumerate(scene.stuff, len(scene.things)):
        a, b, c = plane.solid.triangles[0]
        normal = cross(b - a, c - a)
        along = ((triangles - a) * normal).sum(-1, keepdims=True) / (scene.sun * normal).sum()
        scan = Scan(scene.camera.project(triangles - along * scene.sun), shape)
        shadow |= scan.covered() & (owner == number)
    return shadow


def _shade(scene, scan, parts, samples, winner, shadow) -> tuple[np.ndarray, np.ndarray]:
    """Compute depth (N,), infinite for the sky, and linear RGB (N, 3) in [0, 1] at samples."""
    row, column = np.divmod(samples, scan.shape[1])
    rays = scene.camera.rays(column.astype(float), row.astype(float))
    colour = np.empty(rays.shape, np.float32)
    depth = np.full(len(samples), np.inf)
    sky = winner < 0
    colour[sky] = _sky(scene, rays[sky])
    seen = np.nonzero(~sky)[0]
    winner, rays, row, column = winner[seen], rays[seen], row[seen], column[seen]

    items = scene.things + scene.stuff
    corners = np.concatenate(  # of the triangles that are scanned: normal and texture, (f, 3, 6)
        [
            np.concatenate([item.solid.normals for item in items])[scan.faces],
            np.concatenate([item.texture for item in items])[scan.faces],
        ],
        axis=2,
    )
    number = np.searchsorted(scan.faces, winner)
    across, down, constant = scan.weights.sum(axis=1).T[:, number]
    z = 1 / (across * column + down * row + constant)
    depth[seen] = z
    # (f, 6, 3): what gives normal and texture at a sample, divided by the depth.
    planes = sum(corners[:, i, :, None] * scan.weights[:, i, None, :] for i in range(3))
    across, down, constant = planes.transpose(2, 1, 0).take(number, axis=2)
    values = (across * column + down * row + constant) * z
    normals, texture = values[:3].astype(np.float32), values[3:].astype(np.float32)
    normals /= np.sqrt((normals**2).sum(axis=0))
    view = (-rays.T / np.sqrt((rays**2).sum(axis=1))).astype(np.float32)
    materials = [material for item in items for material in item.materials]
    index = parts[winner]
    cells, gloss = np.array([(m.cells, m.gloss) for m in materials], np.float32).T[:, index]
    slant = np.clip((normals * view).sum(axis=0), 0.05, 1)
    footprint = z.astype(np.float32) / scene.camera.focal * cells / np.sqrt(slant)
    surface = albedo(materials, index, texture, footprint)

    sun, sunlight, skylight, horizon = (
        np.array(vector, np.float32)[:, None]
        for vector in (scene.sun, scene.sunlight, scene.skylight, scene.sky[0])
    )
    direct = np.where(shadow[seen], 0, np.clip((normals * sun).sum(axis=0), 0, 1))
    half = sun + view
    half /= np.sqrt((half**2).sum(axis=0))
    shine = 0.6 * gloss * (direct > 0) * np.clip((normals * half).sum(axis=0), 0, 1) ** 40
    ambient = 0.675 + 0.325 * normals[1]  # more light from above than from the ground
    haze = np.clip(0.012 * z, 0, 0.15).astype(np.float32)
    light = surface * (skylight * ambient + sunlight * direct) + sunlight * shine
    colour[seen] = (light * (1 - haze) + horizon * haze).T
    return depth, np.clip(colour, 0, 1)


def _sky(scene: Scene, rays: np.ndarray) -> np.ndarray:
    """Compute linear RGB (N, 3) of the sky in directions (N, 3): a gradient and clouds."""
    x, y, z = (rays.T / np.sqrt((rays**2).sum(axis=1))).astype(np.float32)
    flat = 3 / (np.abs(y) + np.float32(0.25))
    start = scene.seed % 64
    clouds = fractal(x * flat + start, z * flat, np.full_like(y, 0.02), 4)
    rise, cover = np.clip(2.5 * y, 0, 1)[:, None], np.clip(0.8 * clouds - 0.1, 0, 0.8)[:, None]
    horizon, zenith = scene.sky
    return (horizon + (zenith - horizon) * rise) * (1 - cover) + 0.95 * cover

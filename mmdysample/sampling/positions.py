"""Where the DySample layers of a model sample, as numbers and as points of a picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mmdysample.upsamplers import DySample

STATISTICS = ('offset_length', 'beyond_half_pixel', 'outside_map')
"""What :meth:`Sampling.statistics` gives, in its order."""

AUTO_POINTS = 24
GRID_POINTS = 8
"""Points along the longer side of a picture."""

_APART = 0.7  # least distance of two chosen points, in units of sqrt(area / points)
_MARGIN = 1.0  # input pixels beside a map that still belong to its outer pixels


@dataclass(frozen=True)
class Sampling:
    """Where one call of a DySample layer sampled its input.

    Attributes:
        position (Tensor): ``(N, G, 2, h', w')`` in input pixels, x before y; 0 is the centre of
            the first input pixel. Not yet moved into the map.
        offset (Tensor): Of the same shape: position minus initial position.
        in_size (tuple[int, int]): Height and width of the map that is sampled.
        scale_factor (int): Output pixels per input pixel.
    """

    position: Tensor
    offset: Tensor
    in_size: tuple[int, int]
    scale_factor: int

    @property
    def length(self) -> Tensor:
        """Offset lengths ``(N, G, h', w')`` in input pixels."""
        return self.offset.norm(dim=2)

    @property
    def initial(self) -> Tensor:
        """Initial positions, of the shape of :attr:`position`."""
        return self.position - self.offset

    @property
    def sampled(self) -> Tensor:
        """Positions moved onto the outer pixel centres, as sampling does."""
        return torch.stack(
            [
                self.position[:, :, axis].clamp(0, length - 1)
                for axis, length in enumerate(self.in_size[::-1])
            ],
            dim=2,
        )

    def statistics(self) -> Tensor:
        """Summarise all output pixels and groups.

        Returns:
            Tensor: ``(3,)`` on the device of the positions, named by :data:`STATISTICS`: mean
            offset length in input pixels; share of offsets longer than half an input pixel; share
            of positions outside the map, that is beyond the outer edge of its outer pixels.
        """
        height, width = self.in_size
        x, y = self.position.unbind(dim=2)
        outside = (x < -0.5) | (x > width - 0.5) | (y < -0.5) | (y > height - 0.5)
        length = self.length
        shares = [length, (length > 0.5).to(length.dtype), outside.to(length.dtype)]
        return torch.stack([share.mean() for share in shares])


def find_dysample(model: nn.Module) -> dict[str, DySample]:
    """Find the DySample layers of a model, by their qualified names."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, DySample)}


def watch_sampling(
    layers: Mapping[str, DySample], report: Callable[[str, Sampling], None]
) -> list[RemovableHandle]:
    """Report where layers sample, each time that one of them runs.

    The layer computes its positions a second time for this, without gradients; its own result
    stays as it is. Empty batches are left out.

    Args:
        layers (Mapping[str, DySample]): By name.
        report (Callable): Called with the name and the :class:`Sampling` before the layer runs.

    Returns:
        list[RemovableHandle]: One per layer; removing them ends the reports.
    """

    def before(name: str, layer: DySample, args: tuple, kwargs: dict[str, Any]) -> None:
        x, guide, size = _arguments(*args, **kwargs)
        if len(x) == 0:
            return
        with torch.no_grad():
            position, offset = layer.sampling_positions(x, size, guide)
            report(name, Sampling(position, offset, tuple(x.shape[-2:]), layer.scale_factor))

    return [
        layer.register_forward_pre_hook(partial(before, name), with_kwargs=True)
        for name, layer in layers.items()
    ]


def _arguments(
    x: Tensor, guide: Tensor | None = None, size: tuple[int, int] | None = None, *_: Any, **__: Any
):
    """Sort the arguments of ``Upsampler.forward``, however they were passed."""
    return x, guide, size


@dataclass(frozen=True)
class AxisMap:
    """``point -> scale * point + shift`` in x and in y, between two grids of pixels.

    Attributes:
        scale (tuple[float, float]): For x and y; negative where a picture is mirrored.
        shift (tuple[float, float]): For x and y.
    """

    scale: tuple[float, float]
    shift: tuple[float, float]

    def __call__(self, points: Any) -> np.ndarray:
        """Map points ``(..., 2)``, x before y."""
        return np.asarray(points, dtype=float) * self.scale + self.shift

    def inverse(self) -> AxisMap:
        """Invert the map."""
        scale = 1 / np.asarray(self.scale)
        return AxisMap(tuple(scale), tuple(-scale * self.shift))

    def after(self, first: AxisMap) -> AxisMap:
        """Apply ``first``, then this one."""
        scale = np.asarray(self.scale) * first.scale
        return AxisMap(tuple(scale), tuple(self(first.shift)))


def find_stride(in_size: tuple[int, int], network_size: tuple[int, int]) -> int | None:
    """Tell how many pixels of a network's input a pixel of a feature map stands for.

    Args:
        in_size (tuple[int, int]): Height and width of the map.
        network_size (tuple[int, int]): Those of the network's input, padding included.

    Returns:
        int: The stride, or None where the map isn't one of the whole input.
    """
    ratio = max(network_size) / max(in_size)
    for stride in (2 ** round(math.log2(ratio)), round(ratio)) if ratio >= 1 else ():
        # Strided convolutions round sides up, patch embeddings down.
        if all(
            abs(side - whole / stride) < 1
            for side, whole in zip(in_size, network_size, strict=True)
        ):
            return stride
    return None


def layer_to_input(stride: int) -> AxisMap:
    """Map a layer's input pixels to the network's, each the middle of ``stride`` of them."""
    shift = (stride - 1) / 2
    return AxisMap((stride, stride), (shift, shift))


@dataclass(frozen=True)
class PlacedSampling:
    """The sampling of one picture by one layer, and where it lies in the picture.

    Attributes:
        name (str): Of the layer.
        sampling (Sampling): Of a single picture, ``N = 1``.
        stride (int): Network input pixels per input pixel of the layer.
        to_picture (AxisMap): From input pixels of the layer to pixels of the picture.
        picture_size (tuple[int, int]): Height and width of the picture.
    """

    name: str
    sampling: Sampling
    stride: int
    to_picture: AxisMap
    picture_size: tuple[int, int]

    @property
    def out_size(self) -> tuple[int, int]:
        """Height and width of the layer's result."""
        return tuple(self.sampling.position.shape[-2:])

    @property
    def out_to_picture(self) -> AxisMap:
        """From output pixels of the layer, at their centres, to pixels of the picture."""
        factor = self.sampling.scale_factor
        shift = (1 / factor - 1) / 2
        return self.to_picture.after(AxisMap((1 / factor, 1 / factor), (shift, shift)))

    def arrows(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find where arrows start and end in the picture.

        Args:
            pixels (np.ndarray): Output pixels ``(P, 2)``, row before column.

        Returns:
            tuple[np.ndarray, np.ndarray]: Initial positions and sampled positions,
            ``(P, G, 2)`` in picture pixels, x before y.
        """
        rows, columns = torch.as_tensor(pixels, dtype=torch.long).unbind(dim=1)
        return tuple(
            self.to_picture(positions[0, :, :, rows, columns].permute(2, 0, 1).cpu().numpy())
            for positions in (self.sampling.initial, self.sampling.sampled)
        )

    def nearest_pixels(self, points: np.ndarray) -> np.ndarray:
        """Find the output pixels that lie nearest to points of the picture.

        Args:
            points (np.ndarray): ``(P, 2)`` in picture pixels, x before y.

        Returns:
            np.ndarray: ``(P, 2)``, row before column.

        Raises:
            ValueError: If the network does not see a point, because the picture is cropped.
        """
        height, width = self.sampling.in_size
        positions = self.to_picture.inverse()(points)
        limits = np.array([width, height]) - 0.5 + _MARGIN
        unseen = ((positions < -0.5 - _MARGIN) | (positions > limits)).any(axis=1)
        if unseen.any():
            raise ValueError(
                f'the network does not see {_as_text(points[unseen])}: its picture is cropped'
            )
        columns_rows = np.rint(self.out_to_picture.inverse()(points)).astype(int)
        return columns_rows[:, ::-1].clip(0, np.array(self.out_size) - 1)

    def grid_pixels(self, count: int = GRID_POINTS) -> np.ndarray:
        """Choose output pixels evenly over what the network sees of the picture.

        Args:
            count (int): Points along the longer side. Defaults to :data:`GRID_POINTS`.

        Returns:
            np.ndarray: ``(P, 2)``, row before column; empty if it sees nothing of the picture.
        """
        inside = self._inside()
        rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
        longer = max(len(rows), len(columns), 1)
        count = min(count, longer)
        numbers = [math.ceil(count * len(seen) / longer) for seen in (rows, columns)]
        chosen = [
            seen[((np.arange(number) + 0.5) * len(seen) / number).astype(int)]
            for seen, number in zip((rows, columns), numbers, strict=True)
        ]
        return np.stack(np.meshgrid(*chosen, indexing='ij'), axis=-1).reshape(-1, 2)

    def strongest_pixels(self, count: int = AUTO_POINTS) -> np.ndarray:
        """Choose output pixels with long offsets that do not crowd each other.

        Args:
            count (int): The most to choose. Defaults to :data:`AUTO_POINTS`.

        Returns:
            np.ndarray: ``(P, 2)``, row before column; the longest mean offset first.
        """
        length = self.sampling.length[0].mean(dim=0).cpu().numpy()
        score = np.where(self._inside() & np.isfinite(length), length, -1.0)
        centres = self._centres()
        radius = _APART * math.sqrt(math.prod(self.picture_size) / count)
        chosen = []
        while len(chosen) < count and score.max() >= 0:
            pixel = np.unravel_index(score.argmax(), score.shape)
            chosen.append(pixel)
            score[np.linalg.norm(centres - centres[pixel], axis=-1) < radius] = -1.0
            score[pixel] = -1.0
        return np.array(chosen, dtype=int).reshape(-1, 2)

    def _centres(self) -> np.ndarray:
        """Find the centres of the output pixels in the picture, ``(h', w', 2)``."""
        return self.out_to_picture(np.stack(np.indices(self.out_size)[::-1], axis=-1))

    def _inside(self) -> np.ndarray:
        """Tell which output pixels lie in the picture, not in padding, ``(h', w')``."""
        return _inside(self._centres(), self.picture_size)


def check_points(points: np.ndarray, picture_size: tuple[int, int]) -> None:
    """Raise ValueError if points ``(P, 2)``, x before y, are not all in a picture."""
    height, width = picture_size
    outside = ~_inside(points, picture_size)
    if outside.any():
        raise ValueError(
            f'{_as_text(points[outside])} is outside the picture: x may be 0 to {width - 1}, y 0 '
            f'to {height - 1}'
        )


def _inside(points: np.ndarray, picture_size: tuple[int, int]) -> np.ndarray:
    """Tell which points ``(..., 2)``, x before y, lie in a picture of that height and width."""
    return ((points >= -0.5) & (points <= np.array(picture_size[::-1]) - 0.5)).all(axis=-1)


def _as_text(points: np.ndarray) -> str:
    return ' '.join(f'{x:g},{y:g}' for x, y in points)

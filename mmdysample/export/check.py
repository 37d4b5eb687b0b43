"""Comparison of an exported graph with PyTorch, on inputs that the export has not seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmdysample.costs.stopwatch import measure, median_and_quartiles
from mmdysample.export.errors import DifferingOutputsError
from mmdysample.export.parts import NETWORK, Part
from mmdysample.export.runtimes import Graph

TOLERANCES = {'float32': 1e-4, 'float16': 3e-2, 'int8': 0.5}
"""Largest allowed difference, as a fraction of an output's largest value, by precision."""

#: Height and width of images that no export is made with; the last is odd.
_SIZES = ((96, 160), (160, 128), (97, 131))
#: The same for networks whose pyramids take multiples of the largest stride only: odd multiples.
_ALIGNED_SIZES = ((96, 160), (160, 224), (224, 96))
_REGIONS = (1, 5, 12)


@dataclass
class Difference:
    """How far an output of a graph is from PyTorch's.

    Args:
        part (str): The graph.
        output (str): Name of the output.
        worst (dict[str, float]): Largest difference as a fraction of the largest value of
            PyTorch's output, by shape of the input; infinite where shapes differ or values are
            not finite in one of the two only.
    """

    part: str
    output: str
    worst: dict[str, float]

    @property
    def shape(self) -> str:
        """The input at which the difference is largest."""
        return max(self.worst, key=self.worst.get)

    @property
    def largest(self) -> float:
        """The largest over all inputs."""
        return self.worst[self.shape]


def unseen_inputs(
    part: Part, free: bool, size: tuple[int, int], pictures: Sequence[np.ndarray] = ()
) -> list[Tensor]:
    """Make three inputs that an export has not seen.

    Args:
        part (Part): The graph, as :func:`mmdysample.export.parts.name_outputs` left it.
        free (bool): Whether sizes may differ from those of the export.
        size (tuple[int, int]): Height and width of the image of the export.
        pictures (Sequence[np.ndarray]): Normalised pictures ``(1, 3, H, W)``. Int8 knows the
            ranges of such, and noise would leave them. Defaults to none: noise.

    Returns:
        list[Tensor]: Three sizes, one odd, in batches of 1, 2 and 1 where sizes are free; odd
        multiples of 32 where PyTorch's own network refuses odd pixels. Else three images of the
        size of the export. Regions come in three numbers in either case.
    """
    if part.name != NETWORK:
        return [torch.randn(regions, part.channels, *part.size) for regions in _REGIONS]
    sizes = [size] * 3
    if free:
        sizes = _ALIGNED_SIZES if part.aligned else _SIZES
    if not len(pictures):
        batches = (1, 2, 1) if free else (1, 1, 1)
        return [torch.randn(n, part.channels, *s) for n, s in zip(batches, sizes, strict=True)]
    return [
        F.interpolate(torch.from_numpy(pictures[-1 - i % len(pictures)]), s, mode='bilinear')
        for i, s in enumerate(sizes)
    ]


def compare(part: Part, graph: Graph, inputs: Sequence[Tensor]) -> list[Difference]:
    """Run a part in PyTorch and in a runtime.

    Args:
        part (Part): The graph's origin.
        graph (Callable): The graph.
        inputs (Sequence[Tensor]): What to run both on.

    Returns:
        list[Difference]: One for each output.
    """
    differences = [Difference(part.name, output, {}) for output in part.outputs]
    for x in inputs:
        shape = 'x'.join(map(str, x.shape))
        with torch.no_grad():
            wanted = part.module(x)
        try:
            got = graph(x.numpy())
        except Exception as error:  # each runtime has its own
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise DifferingOutputsError(
                f'the exported {part.name} fails on an input of {shape}: {lines[0][:300]}'
            ) from error
        for difference, want, have in zip(differences, wanted, got, strict=True):
            difference.worst[shape] = relative_difference(have, want.numpy())
    return differences


def relative_difference(got: np.ndarray, wanted: np.ndarray) -> float:
    """Divide the largest difference by the largest wanted value; infinite where shapes differ."""
    if got.shape != wanted.shape or not np.isfinite(got).all():
        return math.inf
    largest = float(np.abs(wanted).max(initial=0))
    return float(np.abs(got - wanted).max(initial=0)) / (largest or 1.0)


def require_equal(differences: Sequence[Difference], tolerance: float) -> None:
    """Raise where an output is further from PyTorch's than a tolerance.

    Raises:
        DifferingOutputsError: With the worst output.
    """
    worst = max(differences, key=lambda difference: difference.largest)
    if not worst.largest <= tolerance:
        raise DifferingOutputsError(
            f'the exported {worst.part} does not compute what PyTorch does: {worst.output} differs '
            f'by {worst.largest:.1e} of its largest value on an input of {worst.shape}, allowed '
            f'are {tolerance:.0e}; no file was left behind'
        )


def latency(part: Part, graph: Graph, x: Tensor, rounds: int) -> dict[str, float]:
    """Time a part in PyTorch and in a runtime, in turn.

    Returns:
        dict[str, float]: Median milliseconds, ``pytorch_ms`` and ``runtime_ms``.
    """

    def pytorch() -> None:
        with torch.inference_mode():
            part.module(x)

    array = x.numpy()
    times, _ = measure((pytorch, lambda: graph(array)), rounds, torch.device('cpu'))
    medians = [median_and_quartiles(seconds)['median_ms'] for seconds in times]
    return dict(zip(('pytorch_ms', 'runtime_ms'), medians, strict=True))

"""Statistics of DySample's offsets during training."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from mmdysample.sampling.positions import STATISTICS, Sampling, find_dysample, watch_sampling
from mmdysample.upsamplers.base import check_flags


class SamplingStatsHook(Hook):
    """Log every few iterations how far the DySample layers move their sampling positions.

    For each layer the visualizer, and so TensorBoard and ``scalars.json``, gets
    ``sampling/LAYER/offset_length``, the mean offset length in input pixels;
    ``sampling/LAYER/beyond_half_pixel``, the share of offsets longer than half an input pixel; and
    ``sampling/LAYER/outside_map``, the share of positions beyond the outer edge of the map. They
    are taken from what the layers see in that training iteration, over the batches of all
    processes.

    Iterations that log nothing run as without this hook: the layers are watched in the others
    only. There the positions are computed once more, without gradients and without random
    numbers, so training takes the same course.

    Args:
        interval (int): Iterations from one log to the next. Defaults to 50.
        layers (Sequence[str], optional): Names of layers. Defaults to None, all.
        draw_maps (bool): Also write the mean offset length of the groups, for the first image of
            the batch, as a picture. Defaults to False.
        map_limit (float): Offset length in input pixels that gets the brightest colour, the same
            at all iterations. Defaults to 1.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument is out of range; when training starts, if the model has no
            DySample layer or none of a name in ``layers``.
    """

    def __init__(
        self,
        interval: int = 50,
        layers: Sequence[str] | None = None,
        draw_maps: bool = False,
        map_limit: float = 1.0,
    ) -> None:
        if not isinstance(interval, int) or isinstance(interval, bool):
            raise TypeError(f'interval must be an integer, got {interval!r}')
        if interval < 1:
            raise ValueError(f'interval must be at least 1, got {interval}')
        if layers is not None and (
            isinstance(layers, str)
            or not isinstance(layers, Sequence)
            or not all(isinstance(name, str) for name in layers)
        ):
            raise TypeError(f'layers must be a list of names or None, got {layers!r}')
        if layers is not None and not layers:
            raise ValueError('layers must name a layer, or be None for all; got an empty list')
        check_flags(draw_maps=draw_maps)
        if not isinstance(map_limit, (int, float)) or isinstance(map_limit, bool):
            raise TypeError(f'map_limit must be a number, got {map_limit!r}')
        if not 0 < map_limit < math.inf:
            raise ValueError(f'map_limit must be positive and finite, got {map_limit}')
        self.interval = interval
        self.layers = None if layers is None else list(layers)
        self.draw_maps = draw_maps
        self.map_limit = float(map_limit)
        self._watched: dict = {}
        self._handles: list[RemovableHandle] = []
        self._sums: dict[str, Tensor] = {}
        self._maps: dict[str, Tensor] = {}
        self._warned = False

    def before_train(self, runner) -> None:
        """Find the layers.

        Raises:
            ValueError: If the model has no DySample layer, or none of a wanted name.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        found = find_dysample(model)
        if not found:
            raise ValueError(
                f'SamplingStatsHook needs a DySample layer, {type(model).__name__} has none'
            )
        unknown = [name for name in self.layers or () if name not in found]
        if unknown:
            raise ValueError(
                f'layers names {unknown}; the DySample layers of {type(model).__name__} are '
                f'{list(found)}'
            )
        self._watched = {name: found[name] for name in self.layers or found}

    def before_train_iter(self, runner, batch_idx: int, data_batch: Any = None) -> None:
        """Watch the layers, if this iteration is to be logged."""
        if self.every_n_train_iters(runner, self.interval):
            self._stop()  # an iteration that failed may have been caught and left them
            self._handles = watch_sampling(self._watched, self._add)

    def after_train_iter(
        self, runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Log what was seen and stop watching."""
        if not self._handles:
            return
        sums, maps = self._sums, self._maps
        self._stop()
        scalars = self._reduce(sums)
        if scalars:
            runner.visualizer.add_scalars(scalars, step=runner.iter + 1)
        elif not self._warned:
            self._warned = True
            print_log(
                f'SamplingStatsHook saw no DySample layer run in iteration {runner.iter + 1}: '
                'a compiled model runs no hooks, and a mask head needs boxes',
                logger='current',
                level=logging.WARNING,
            )
        if maps:
            self._draw(runner, maps)

    def after_train(self, runner) -> None:
        """Let go of the layers."""
        self._stop()
        self._watched = {}

    def _draw(self, runner, maps: dict[str, Tensor]) -> None:
        from mmdysample.sampling.plot import colour_lengths  # with all of matplotlib

        for name, length in maps.items():
            picture = colour_lengths(length.float().cpu().numpy(), self.map_limit)
            # A slash in the name would be a folder, which the local backend doesn't make.
            runner.visualizer.add_image(f'sampling_{name}', picture, step=runner.iter + 1)

    def _stop(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._sums, self._maps = [], {}, {}

    def _add(self, name: str, sampling: Sampling) -> None:
        """Add one call of a layer to its sums: positions, and each statistic times them."""
        number = sampling.position[:, :, 0].numel()
        statistics = sampling.statistics().float()
        sums = number * torch.cat((torch.ones_like(statistics[:1]), statistics))
        self._sums[name] = self._sums[name] + sums if name in self._sums else sums
        if self.draw_maps and name not in self._maps and is_main_process():
            self._maps[name] = sampling.length[0].mean(dim=0)

    def _reduce(self, sums: dict[str, Tensor]) -> dict[str, float]:
        """Average over all processes, for the layers that ran. One transfer to the CPU is made."""
        parameter = next(iter(self._watched.values())).offset.weight
        nothing = torch.zeros(1 + len(STATISTICS), device=parameter.device)
        # Every process contributes every layer: one may have had no box for its mask head.
        table = torch.stack([sums.get(name, nothing).to(nothing) for name in self._watched])
        all_reduce(table)
        return {
            f'sampling/{name}/{statistic}': value / number
            for name, (number, *values) in zip(self._watched, table.tolist(), strict=True)
            if number
            for statistic, value in zip(STATISTICS, values, strict=True)
        }

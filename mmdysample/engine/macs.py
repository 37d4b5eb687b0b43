"""Multiply-accumulates of the upsamplers in a running model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from functools import partial
from typing import Any

from torch import Tensor

from mmdysample.upsamplers import Upsampler


@contextmanager
def macs_counted(upsamplers: Sequence[Upsampler], compute: bool = True) -> Iterator[list[int]]:
    """Let upsamplers note what each of their calls costs, for the time of the context.

    Args:
        upsamplers (Sequence[Upsampler]): Of one model.
        compute (bool): Let them compute too. Otherwise they return zeros of the right shape, and
            guides as they are. Defaults to True.

    Yields:
        list[int]: The multiply-accumulates of every call so far.
    """
    calls: list[int] = []

    def call(upsampler: Upsampler, method: str, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        counted = copy(upsampler)
        if method == 'fuse':
            counted.details = True  # macs() then has the guide's part too
        calls.append(counted.macs(*map(int, x.shape[-2:])))
        if compute:
            return getattr(type(upsampler), method)(upsampler, x, *args, **kwargs)
        return _zeros(upsampler, method, x, *args, **kwargs)

    try:
        for upsampler in upsamplers:
            upsampler.forward = partial(call, upsampler, 'forward')
            if type(upsampler).fuse is not Upsampler.fuse:  # which calls forward
                upsampler.fuse = partial(call, upsampler, 'fuse')
        yield calls
    finally:
        for upsampler in upsamplers:
            for method in {'forward', 'fuse'} & set(vars(upsampler)):
                delattr(upsampler, method)


def _zeros(
    upsampler: Upsampler, method: str, x: Tensor, guide: Tensor | None = None, size: Any = None
) -> Any:
    out = x.new_zeros((*x.shape[:2], *upsampler.output_size(x, size)))
    return out if method == 'forward' else (out, guide)

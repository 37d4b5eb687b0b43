"""How much a pyramid's top-down path gives at all: an upsampler `nothing`, which returns zeros.

No upsampler can be told from another where a network does as well without the path that they are
in. With it that network is trained like any row, from the repository root:

    PYTHONPATH=docs/benchmarks python tools/reproduce.py run faster_rcnn mask_rcnn --scale small \
        --rows nearest --seeds 3 --work-dir work_dirs/no_top_down \
        --cfg-options model.neck.upsample_cfg.type=nothing \
        custom_imports.imports=mmdysample,no_top_down
"""

from __future__ import annotations

from torch import Tensor

from mmdysample.upsamplers.base import Upsampler, register_upsampler


@register_upsampler('nothing')
class Nothing(Upsampler):
    """Zeros of the size of the result: nothing comes down from the coarser levels."""

    def upsample(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Return zeros."""
        return x.new_zeros(*x.shape[:2], *size)

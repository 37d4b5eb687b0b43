"""Time of the 1x1 convolutions that predict offsets and kernels: PyTorch's, and as a product.

Run from the repository root: python docs/benchmarks/projections.py
Median milliseconds of 15 calls, forward and with the backward pass, with one thread and two, are
written to projections.json beside this file.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdysample.costs.stopwatch import measure, median_and_quartiles
from mmdysample.engine.provenance import device_name, provenance
from mmdysample.ops.layers import multiply_pixels

CASES = {  # channels read and written, height and width
    'SegFormer, dysample, 1/32': (256, 32, 16),
    'SegFormer, dysample, 1/16': (256, 32, 32),
    'SegFormer, dysample, 1/8': (256, 32, 64),
    'dysample': (256, 32, 120),
    'dysample_s': (64, 8, 240),
    'fade': (256, 64, 240),
    'sapa_b': (256, 32, 240),
}


def forward(apply: Callable[..., Tensor], inputs: list[Tensor], _: Tensor) -> None:
    """Convolve."""
    with torch.no_grad():
        apply(*inputs)


def both(apply: Callable[..., Tensor], inputs: list[Tensor], grad: Tensor) -> None:
    """Convolve and differentiate."""
    torch.autograd.grad(apply(*inputs), inputs, grad)


def main() -> None:
    """Measure all cases and write what came out."""
    cpu, rows = torch.device('cpu'), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for name, (read, written, side) in CASES.items():
            for layout in (torch.contiguous_format, torch.channels_last):
                x = torch.randn(1, read, side, side).to(memory_format=layout)
                grad = torch.randn(1, written, side, side).to(memory_format=layout)
                inputs = [x, torch.randn(written, read, 1, 1), torch.randn(written)]
                inputs = [tensor.requires_grad_() for tensor in inputs]
                ways = {'conv2d': F.conv2d}
                if layout is torch.contiguous_format:
                    ways['product'] = multiply_pixels
                for step in (forward, both):
                    runs = [partial(step, apply, inputs, grad) for apply in ways.values()]
                    times, _ = measure(runs, 15, cpu)
                    for way, seconds in zip(ways, times, strict=True):
                        row = dict(case=name, layout=str(layout), threads=threads, way=way)
                        row |= dict(step=step.__name__, **median_and_quartiles(seconds))
                        rows.append(row)
                        print(json.dumps(row), flush=True)
    result = dict(**provenance(), device=device_name(cpu), rows=rows)
    Path(__file__).with_suffix('.json').write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    main()

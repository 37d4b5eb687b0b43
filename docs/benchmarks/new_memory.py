"""What new memory costs a call of sampling on the CPU, beside the kernels.

Run from the repository root: python docs/benchmarks/new_memory.py

The levels of each workload of latency.py are sampled in turn: by the native kernels and by bilinear
interpolation, into new results, as users call them, and into results that were written before.
`copy` moves as many bytes, between tensors that were written before. Milliseconds of 25 rounds, and
how many pages the system has to provide in one more call, are written to new_memory.json beside
this file.
"""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdysample.costs.candidates import CHANNELS, FORMATS, GROUPS, SCALE
from mmdysample.costs.latency import WORKLOADS
from mmdysample.costs.stopwatch import measure, median_and_quartiles
from mmdysample.engine.provenance import device_name, provenance
from mmdysample.ops.dysample import native
from mmdysample.ops.dysample.spec import SamplingSpec

SPEC = SamplingSpec.make(scale_factor=SCALE, groups=GROUPS)
ROUNDS = 25


def ways(shapes: tuple, layout: torch.memory_format) -> dict[str, Callable[[], list[Tensor]]]:
    """What is timed for the levels of a workload; each keeps its results until all are there."""
    levels = []
    for n, height, width in shapes:
        x = torch.randn(n, CHANNELS, height, width).to(memory_format=layout)
        out = torch.zeros(n, CHANNELS, SCALE * height, SCALE * width).to(memory_format=layout)
        offset = torch.randn(n, 2 * GROUPS * SCALE**2, height, width)
        half = torch.ones((x.numel() + out.numel()) // 2)  # read once, written once
        levels.append((x, offset, out, half, half.clone()))

    def sample(x: Tensor, offset: Tensor, out: Tensor) -> Tensor:
        return native.sample(x, offset, None, SPEC, out.shape[2:])

    def sample_into(x: Tensor, offset: Tensor, out: Tensor) -> Tensor:
        with patch.object(native, 'empty', lambda *_: out):
            return sample(x, offset, out)

    def interpolate_into(x: Tensor, out: Tensor) -> Tensor:
        return torch.ops.aten.upsample_bilinear2d.out(x, out.shape[2:], False, out=out)

    resize = partial(F.interpolate, scale_factor=SCALE, mode='bilinear')
    return {
        'kernels, new': lambda: [sample(x, offset, out) for x, offset, out, *_ in levels],
        'kernels, again': lambda: [sample_into(x, offset, out) for x, offset, out, *_ in levels],
        'bilinear, new': lambda: [resize(x) for x, *_ in levels],
        'bilinear, again': lambda: [interpolate_into(x, out) for x, _, out, *_ in levels],
        'copy': lambda: [copied.copy_(half) for *_, half, copied in levels],
    }


def pages(run: Callable[[], list[Tensor]]) -> int:
    """Count the pages that the system provides while a function runs: 4 KiB, or 2 MiB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    run()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def main() -> None:
    """Measure all cases and write what came out."""
    cpu, rows = torch.device('cpu'), []
    for workload in ('paper', 'fpn_b1', 'segformer_b1'):
        for layout, memory_format in FORMATS.items():
            runs = ways(WORKLOADS[workload], memory_format)
            for threads in (1, 2):
                torch.set_num_threads(threads)
                times, _ = measure(list(runs.values()), ROUNDS, cpu)
                for (way, run), seconds in zip(runs.items(), times, strict=True):
                    row = dict(workload=workload, layout=layout, threads=threads, way=way)
                    row |= dict(**median_and_quartiles(seconds), pages=pages(run))
                    rows.append(row)
                    print(json.dumps(row), flush=True)
    result = dict(**provenance(), device=device_name(cpu), rows=rows)
    Path(__file__).with_suffix('.json').write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    main()

"""What new memory costs a call of sampling on the CPU, beside the kernels.

Run from the repository root: python docs/benchmarks/new_memory.py

The levels of each workload of latency.py are sampled in turn: by the native kernels and by bilinear
interpolation, into new results, as users call them, and into results that were written before.
`copy` moves as many bytes, between tensors that were written before. Milliseconds of 25 rounds, and
how many pages the system has to provide in one more call, are written to new_memory.json beside
this file.

There too is what every single call takes of the kernels with two threads, for the FPN in
channels_last, after a call of bilinear interpolation each: its time, how long each thread ran and
waited for a core, how often it was interrupted, and its pages. The same of single training steps
at paper size in channels_last, of the kernels, bilinear interpolation and the published
formulation in turn. And what the first touch of huge pages takes, several times in turn. (Linux
only.)
"""

from __future__ import annotations

import ctypes
import json
import mmap
import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdysample.costs.candidates import (
    CHANNELS,
    FORMATS,
    GROUPS,
    SCALE,
    sampling_candidates,
)
from mmdysample.costs.latency import WORKLOADS
from mmdysample.costs.stopwatch import measure, median_and_quartiles
from mmdysample.engine.provenance import device_name, provenance
from mmdysample.ops.dysample import native
from mmdysample.ops.dysample.spec import SamplingSpec
from mmdysample.ops.native import HUGE_PAGE

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


def pages(run: Callable[[], object]) -> int:
    """Count the pages that the system provides while a function runs: 4 KiB, or 2 MiB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    run()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def threads_of_this_process() -> dict[str, tuple[int, int, int]]:
    """Read of each thread the nanoseconds it ran and waited, and how often it was interrupted."""
    read = {}
    for thread in Path('/proc/self/task').iterdir():
        ran, waited, _ = (thread / 'schedstat').read_text().split()
        interrupted = (thread / 'status').read_text().split('nonvoluntary_ctxt_switches:')[1]
        read[thread.name] = (int(ran), int(waited), int(interrupted))
    return read


def observe(run: Callable[[], object]) -> dict:
    """Run a function once and say what it took; threads that ran less than 0.1 ms are left out."""
    before, start = threads_of_this_process(), time.perf_counter()
    provided = pages(run)
    milliseconds, after = 1e3 * (time.perf_counter() - start), threads_of_this_process()
    changes = [
        [new - old for new, old in zip(after[thread], before[thread], strict=True)]
        for thread in after.keys() & before.keys()
    ]
    ran, waited, interrupted = zip(*(c for c in changes if c[0] > 1e5), strict=True)
    return dict(
        milliseconds=milliseconds,
        ran=[1e-6 * nanoseconds for nanoseconds in ran],
        waited=[1e-6 * nanoseconds for nanoseconds in waited],
        interrupted=interrupted,
        pages=provided,
    )


def single_calls(calls: int = 100) -> list[dict]:
    """Measure forward passes of the kernels one by one."""
    runs = ways(WORKLOADS['fpn_b1'], torch.channels_last)
    torch.set_num_threads(2)
    measured = []
    for _ in range(calls):
        runs['bilinear, new']()
        measured.append(observe(runs['kernels, new']))
    return measured


def training_steps(rounds: int = 40) -> list[dict]:
    """Measure forward and backward passes one by one, at paper size in channels_last."""
    cpu, measured = torch.device('cpu'), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        made = sampling_candidates(WORKLOADS['paper'], torch.float32, torch.channels_last, cpu)
        candidates = [c for c in made if c.name in ('bilinear', 'published', 'dysample (native)')]
        for number in range(rounds + 1):  # the first warms up
            for candidate in candidates:
                call = observe(candidate.forward_backward)
                if number:
                    measured.append(dict(threads=threads, candidate=candidate.name, **call))
    return measured


def first_touches(count: int = 28, rounds: int = 8) -> list[list[float]]:
    """Touch new huge pages, and return the microseconds of each; rounds follow at once."""
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    taken = []
    for _ in range(rounds):
        with mmap.mmap(-1, (count + 1) * HUGE_PAGE, flags=private) as memory:
            memory.madvise(mmap.MADV_HUGEPAGE)
            first = -ctypes.addressof(ctypes.c_char.from_buffer(memory)) % HUGE_PAGE
            microseconds = []
            for page in range(count):
                start = time.perf_counter()
                memory[first + page * HUGE_PAGE] = 1
                microseconds.append(1e6 * (time.perf_counter() - start))
            taken.append(microseconds)
    return taken


def main() -> None:
    """Measure all cases and write what came out."""
    cpu, rows = torch.device('cpu'), []
    touches = first_touches()
    calls = single_calls()
    steps = training_steps()
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
    result |= dict(first_touches=touches, calls=calls, steps=steps)
    Path(__file__).with_suffix('.json').write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    main()

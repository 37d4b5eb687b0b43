"""Latency and memory of upsamplers, beside bilinear interpolation and the copy bandwidth."""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import Any

import torch

from mmdysample.costs.candidates import (
    CHANNELS,
    FORMATS,
    SCALE,
    Candidate,
    Shapes,
    check,
    reassembly_candidates,
    sampling_candidates,
    upsampler_candidates,
)
from mmdysample.costs.cpu_memory import peak_of_training_steps
from mmdysample.costs.stopwatch import measure, median_and_quartiles, peak_memory, progress
from mmdysample.engine.provenance import device_name, provenance, save

WORKLOADS: dict[str, Shapes] = {
    'tiny': ((1, 5, 6), (1, 6, 7)),
    'paper': ((1, 120, 120),),
    **{f'fpn_b{n}': ((n, 25, 42), (n, 50, 84), (n, 100, 167)) for n in (1, 2, 8, 16)},
    **{
        f'segformer_b{n}': (
            (n, 16, 16),
            (n, 32, 32),
            (n, 64, 64),
            (n, 32, 32),
            (n, 64, 64),
            (n, 64, 64),
        )
        for n in (1, 8)
    },
}
"""Batch, height and width of the 256-channel features that are upsampled by 2: the paper's; the
top-down path of an FPN on an 800 x 1333 image; SegFormer's six on 512 x 512; tiny ones to try."""

PRESETS = {
    'cpu': dict(
        sampling=('paper', 'fpn_b1', 'segformer_b1'),
        upsamplers=('paper',),
        dtypes=('float32',),
        threads=(1, 2),
        memory=('paper',),
    ),
    'gpu': dict(
        sampling=('paper', 'fpn_b1', 'fpn_b2', 'fpn_b16', 'segformer_b8'),
        upsamplers=('paper', 'fpn_b2', 'segformer_b8'),
        dtypes=('float32', 'float16', 'bfloat16'),
    ),
}
KINDS = dict(
    sampling=sampling_candidates, reassembly=reassembly_candidates, upsamplers=upsampler_candidates
)
"""What there is to time; a preset gives the workloads of each."""


def copy_bandwidth(device: torch.device) -> float:
    """Measure bytes per second of a large copy on the device, read plus written: the ceiling."""
    source = torch.randn(2**28 if device.type == 'cuda' else 2**25, device=device)
    target = torch.empty_like(source)
    times, _ = measure([partial(target.copy_, source)], rounds=9, device=device)
    return 2 * source.nbytes / statistics.median(times[0])


def time_candidates(
    candidates: Sequence[Candidate], rounds: int, device: torch.device
) -> list[dict]:
    """Time candidates, forward and forward with backward; return rows for the result file."""
    rows = []
    for direction in ('forward', 'forward_backward'):
        runs = [getattr(candidate, direction) for candidate in candidates]
        memory = [peak_memory(run, device) for run in runs]
        times, how = measure(runs, rounds, device)
        baseline = statistics.median(times[0])  # bilinear comes first
        for candidate, seconds, peak, way in zip(candidates, times, memory, how, strict=True):
            rows.append(
                dict(
                    candidate=candidate.name,
                    direction=direction,
                    **median_and_quartiles(seconds),
                    to_bilinear=statistics.median(seconds) / baseline,
                    peak_mib=peak,
                    timed=way,
                )
            )
    return rows


def share_of_ceiling(row: dict, shapes: Shapes, dtype: torch.dtype, ceiling: float) -> float | None:
    """Divide the bandwidth of reading features and writing results once by that of a copy.

    None with a backward pass, which reads and writes more.
    """
    if row['direction'] != 'forward':
        return None
    pixels = sum(n * h * w for n, h, w in shapes)
    least = pixels * CHANNELS * (1 + SCALE**2) * dtype.itemsize
    return least / (row['median_ms'] / 1e3) / ceiling


def measure_cases(
    preset: Mapping[str, Sequence],
    device: torch.device,
    rounds: int,
    ceiling: float,
    deadline: float = math.inf,
) -> Iterator[list[dict[str, Any]]]:
    """Time everything that a preset names.

    Args:
        preset (Mapping[str, Sequence]): Workloads of each of :data:`KINDS`, ``dtypes``, and
            numbers of ``threads`` if there are several.
        device (torch.device): Where to time.
        rounds (int): Timed runs of each candidate.
        ceiling (float): What :func:`copy_bandwidth` gives.
        deadline (float): No case is begun after it, by ``time.monotonic``. Defaults to none.

    Yields:
        list[dict]: For each workload, dtype, memory format and number of threads, one row per
        candidate and direction. ``of_ceiling`` is that of :func:`share_of_ceiling`; None for
        reassemblies.
    """
    threads_before, dtypes = torch.get_num_threads(), preset['dtypes']
    cases = [
        (kind, *case)
        for kind in KINDS
        for case in product(
            preset.get(kind, ()), dtypes, FORMATS, preset.get('threads', (threads_before,))
        )
        if kind != 'upsamplers' or case[1:3] == (dtypes[0], 'nchw')
    ]
    for kind, workload, dtype, layout, threads in progress(cases):
        if time.monotonic() > deadline:
            break
        torch.set_num_threads(threads)
        shapes, number = WORKLOADS[workload], getattr(torch, dtype)
        case = dict(
            kind=kind, workload=workload, dtype=dtype, memory_format=layout, threads=threads
        )
        candidates = list(KINDS[kind](shapes, number, FORMATS[layout], device))
        rows = [case | row for row in time_candidates(candidates, rounds, device)]
        for row in rows:
            known = kind != 'reassembly'
            row['of_ceiling'] = share_of_ceiling(row, shapes, number, ceiling) if known else None
        yield rows
        torch.compiler.reset()
    torch.set_num_threads(threads_before)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure; print the tables; write them, the JSON behind them and a plot where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    cuda = torch.cuda.is_available()
    parser.add_argument('--preset', choices=PRESETS, default='gpu' if cuda else 'cpu')
    parser.add_argument('--rounds', type=int, default=50 if cuda else 7, help='runs of each')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, help='JSON to write, and its tables as .md beside it')
    parser.add_argument('--plot', type=Path, help='plot to write: accuracy against latency')
    options = parser.parse_args(arguments)
    torch.manual_seed(options.seed)
    preset = PRESETS[options.preset]
    device = torch.device('cuda' if options.preset == 'gpu' else 'cpu')
    for dtype in preset['dtypes']:
        check(device, getattr(torch, dtype))
    ceiling = copy_bandwidth(device)
    result = dict(
        **provenance(),
        device=device_name(device),
        seed=options.seed,
        rounds=options.rounds,
        ceiling_gb_per_s=ceiling / 1e9,
        rows=[*chain(*measure_cases(preset, device, options.rounds, ceiling))],
        memory=[
            row
            for workload in preset.get('memory', ())
            for row in peak_of_training_steps(WORKLOADS[workload], workload)
        ],
    )
    from mmdysample.costs.latency_report import plot, to_markdown

    print(to_markdown(result))
    if options.out:
        save(result, to_markdown(result), options.out)
    if options.plot:
        plot(result, options.plot)

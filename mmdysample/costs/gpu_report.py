"""The kernels on one GPU: proof of correctness against float64 first, then latency and memory.

It needs PyTorch and Triton alone, so it runs on a bare machine without OpenMMLab.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from mmdysample.costs.gpu_checks import TOLERANCE, feature_checks, random_checks
from mmdysample.costs.latency import (
    CHANNELS,
    FORMATS,
    SCALE,
    WORKLOADS,
    Candidate,
    Shapes,
    copy_bandwidth,
    sampling_candidates,
    share_of_ceiling,
    time_candidates,
)
from mmdysample.engine.provenance import device_name, provenance, save
from mmdysample.ops import reassemble, window_similarity
from mmdysample.ops.backend import HAS_TRITON, INTERPRETED


@dataclass(frozen=True)
class Preset:
    """What one run covers.

    Args:
        device (str): ``'cpu'``, with Triton's interpreter where it is on, or ``'cuda'``.
        dtypes (tuple[torch.dtype, ...]): Of the features.
        cases (int): Random cases per dtype and operator.
        side (int): Their largest height and width, and most channels of a group.
        workloads (dict[str, Shapes]): Batch, height and width of the features to time.
        rounds (int): Timed runs of each.
    """

    device: str
    dtypes: tuple[torch.dtype, ...]
    cases: int
    side: int
    workloads: dict[str, Shapes]
    rounds: int


PRESETS = {
    'cpu': Preset('cpu', (torch.float32,), 3, 3, {'tiny': ((1, 5, 6), (1, 6, 7))}, 1),
    'gpu': Preset(
        'cuda',
        (torch.float32, torch.float16, torch.bfloat16),
        24,
        30,
        {name: WORKLOADS[name] for name in ('paper', 'fpn_b1', 'fpn_b2', 'segformer_b8')}
        | {'fpn_b8': tuple((8, h, w) for _, h, w in WORKLOADS['fpn_b1'])},
        30,
    ),
}


def reassembly_candidates(
    shapes: Shapes, dtype: torch.dtype, memory_format: torch.memory_format, device: torch.device
) -> Iterator[Candidate]:
    """Bilinear interpolation, then the rivals' operators with windows of 5 x 5."""
    features, kernels, queries = [], [], []
    for n, h, w in shapes:
        fine = (SCALE * h, SCALE * w)
        for made, shape in (
            (features, (n, CHANNELS, h, w)),
            (kernels, (n, 25, *fine)),
            (queries, (n, CHANNELS, *fine)),
        ):
            tensor = torch.randn(shape, device=device, dtype=dtype)
            made.append(tensor.to(memory_format=memory_format).requires_grad_())
    resize = partial(F.interpolate, scale_factor=SCALE, mode='bilinear')
    yield Candidate('bilinear', [(resize, [x]) for x in features])
    for backend in ('torch', 'triton') if device.type == 'cuda' and HAS_TRITON else ('torch',):
        options = dict(kernel_size=5, scale_factor=SCALE, backend=backend)
        run = partial(reassemble, **options)
        pairs = zip(features, kernels, strict=True)
        yield Candidate(f'reassemble ({backend})', [(run, [x, k]) for x, k in pairs])
        run = partial(window_similarity, **options)
        pairs = zip(queries, features, strict=True)
        yield Candidate(f'window_similarity ({backend})', [(run, [q, x]) for q, x in pairs])


def latency_rows(preset: Preset, ceiling: float, deadline: float) -> Iterator[dict[str, Any]]:
    """Time every workload, dtype and layout until the deadline; rows for the result file."""
    device = torch.device(preset.device)
    for name, shapes in preset.workloads.items():
        for dtype in [d for d in preset.dtypes if d != torch.float16]:
            for layout, memory_format in FORMATS.items():
                if time.monotonic() > deadline:
                    return
                arguments = shapes, dtype, memory_format, device
                sampling = list(sampling_candidates(*arguments))
                if len(shapes) == 1:
                    published = next(c for c in sampling if c.name == 'published')
                    ((function, tensors),) = published.steps
                    compiled = torch.compile(function, dynamic=False)
                    sampling.append(Candidate('compiled published', [(compiled, tensors)]))
                head = dict(workload=name, dtype=str(dtype)[6:], memory_format=layout)
                for row in time_candidates(sampling, preset.rounds, device):
                    share = share_of_ceiling(row, shapes, dtype, ceiling)
                    yield {**head, **row, 'of_ceiling': share}
                reassembly = list(reassembly_candidates(*arguments))
                for row in time_candidates(reassembly, preset.rounds, device):
                    yield {**head, **row, 'of_ceiling': None}
                torch.compiler.reset()


def to_markdown(result: dict[str, Any]) -> str:
    """One table of the checks, one of the times, and every failure in full."""
    versions = ', '.join(result['versions'].values())
    lines = [
        f'`{result["command"]}` on {result["device"]}, {versions}, revision {result["revision"]}, '
        f'backend {result["backend"]}, seed {result["seed"]}.',
        '',
        f'Errors are in units of epsilon of the dtype times the largest value; {TOLERANCE} pass.',
        '',
        '| check | cases | passed | worst error |',
        '| --- | ---: | ---: | ---: |',
    ]
    for check in dict.fromkeys(row['check'] for row in result['checks']):
        rows = [row for row in result['checks'] if row['check'] == check]
        errors = [row['error'] for row in rows if row['error'] is not None]
        worst = f'{max(errors):.3g}' if errors else ''
        lines.append(f'| {check} | {len(rows)} | {sum(r["passed"] for r in rows)} | {worst} |')
    lines += [
        f'- {row["check"]}: {row["case"]}: {row.get("reason", row["error"])}'
        for row in result['checks']
        if not row['passed']
    ]
    if result['rows']:
        lines += [
            '',
            f'A copy reaches {result["ceiling_gb_per_s"]:.0f} GB/s. Median of {result["rounds"]} '
            'interleaved runs. The share is that of reading the feature and writing the result '
            'once.',
            '',
            '| workload | dtype | layout | candidate | direction | ms | to bilinear | share '
            '| peak, MiB |',
            '| --- | --- | --- | --- | --- | ---: | ---: | ---: | ---: |',
        ]
    for row in result['rows']:
        share = '' if row['of_ceiling'] is None else f'{row["of_ceiling"]:.0%}'
        peak = '' if row['peak_mib'] is None else f'{row["peak_mib"]:.0f}'
        lines.append(
            f'| {row["workload"]} | {row["dtype"]} | {row["memory_format"]} '
            f'| {row["candidate"]} | {row["direction"]} | {row["median_ms"]:.4g} '
            f'| {row["to_bilinear"]:.2f} | {share} | {peak} |'
        )
    return '\n'.join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, then measure; write JSON and Markdown after each part.

    Returns:
        int: 1 if a check failed, else 0.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    cuda = torch.cuda.is_available()
    parser.add_argument('--preset', choices=PRESETS, default='gpu' if cuda else 'cpu')
    parser.add_argument('--out', type=Path, required=True, help='JSON to write, and a .md beside')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--budget', type=float, default=420, help='seconds after which no timing is begun'
    )
    options = parser.parse_args(arguments)
    preset = PRESETS[options.preset]
    if preset.device == 'cuda' and not cuda:
        parser.error('--preset gpu: PyTorch finds no GPU; --preset cpu runs the checks without one')
    deadline = time.monotonic() + options.budget
    torch.manual_seed(options.seed)
    device = torch.device(preset.device)
    backend = 'triton' if HAS_TRITON and (cuda or INTERPRETED) else 'torch'
    result = dict(
        **provenance(),
        device=device_name(device),
        backend=backend,
        seed=options.seed,
        rounds=preset.rounds,
        checks=[],
        rows=[],
        ceiling_gb_per_s=None,
    )
    for checks in (
        random_checks(backend, device, preset.dtypes, preset.cases, preset.side, options.seed),
        feature_checks(device, backend),
    ):
        result['checks'].extend(checks)
        save(result, to_markdown(result), options.out)
    ceiling = copy_bandwidth(device, 2**28 if device.type == 'cuda' else 2**20)
    result['ceiling_gb_per_s'] = ceiling / 1e9
    for row in latency_rows(preset, ceiling, deadline):
        result['rows'].append(row)
        save(result, to_markdown(result), options.out)
    print(to_markdown(result))
    return 0 if all(row['passed'] for row in result['checks']) else 1

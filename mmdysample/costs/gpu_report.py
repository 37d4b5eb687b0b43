"""The kernels on one GPU: proof of correctness against float64 first, then latency and memory.

It needs PyTorch and Triton alone, so it runs on a bare machine without OpenMMLab.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mmdysample.costs.gpu_checks import TOLERANCE, feature_checks, random_checks
from mmdysample.costs.latency import copy_bandwidth, measure_cases
from mmdysample.costs.latency_report import ceiling, tables
from mmdysample.engine.provenance import device_name, origin, provenance, save
from mmdysample.ops.backend import HAS_TRITON, INTERPRETED

PRESETS = {
    'cpu': dict(
        checked=(torch.float32,),
        cases=3,
        side=3,
        dtypes=('float32',),
        sampling=('tiny',),
        reassembly=('tiny',),
        rounds=1,
    ),
    'gpu': dict(
        checked=(torch.float32, torch.float16, torch.bfloat16),
        cases=24,
        side=30,
        dtypes=('float32', 'bfloat16'),
        sampling=('paper', 'fpn_b1', 'fpn_b2', 'fpn_b8', 'segformer_b8'),
        reassembly=('paper', 'fpn_b1', 'fpn_b2', 'fpn_b8', 'segformer_b8'),
        rounds=30,
    ),
}
"""``checked`` are the dtypes of the random checks, ``cases`` their number per dtype and operator,
``side`` their largest height and width and most channels of a group. The rest is for
:func:`mmdysample.costs.latency.measure_cases`."""


def to_markdown(result: dict[str, Any]) -> str:
    """Render one table of the checks, every failure in full, and the tables of the times."""
    lines = [
        f'{origin(result)}, backend {result["backend"]}, seed {result["seed"]}.',
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
        lines += ['', ceiling(result), *tables(result['rows'])]
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
    if options.preset == 'gpu' and not cuda:
        parser.error('--preset gpu: PyTorch finds no GPU; --preset cpu runs the checks without one')
    deadline = time.monotonic() + options.budget
    torch.manual_seed(options.seed)
    device = torch.device('cuda' if options.preset == 'gpu' else 'cpu')
    backend = 'triton' if HAS_TRITON and (cuda or INTERPRETED) else 'torch'
    result = dict(
        **provenance(),
        device=device_name(device),
        backend=backend,
        seed=options.seed,
        rounds=preset['rounds'],
        checks=[],
        rows=[],
        ceiling_gb_per_s=None,
    )
    for checks in (
        random_checks(
            backend, device, preset['checked'], preset['cases'], preset['side'], options.seed
        ),
        feature_checks(device, backend),
    ):
        result['checks'].extend(checks)
        save(result, to_markdown(result), options.out)
    bandwidth = copy_bandwidth(device)
    result['ceiling_gb_per_s'] = bandwidth / 1e9
    for rows in measure_cases(preset, device, preset['rounds'], bandwidth, deadline):
        result['rows'] += rows
        save(result, to_markdown(result), options.out)
    print(to_markdown(result))
    return 0 if all(row['passed'] for row in result['checks']) else 1

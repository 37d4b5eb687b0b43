"""The demo's comparison as JSON and as a Markdown table."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from itertools import pairwise
from pathlib import Path

import torch

from mmdysample.analysis.provenance import provenance

COLUMNS = {
    'AP': 'coco/bbox_mAP',
    'AP50': 'coco/bbox_mAP_50',
    'AP75': 'coco/bbox_mAP_75',
    'APs': 'coco/bbox_mAP_s',
    'APm': 'coco/bbox_mAP_m',
    'APl': 'coco/bbox_mAP_l',
}
"""Columns of the table, by the names of COCO's metrics in the frameworks."""


def training_seconds(scalars: list[dict]) -> float:
    """Add up the time spent in training iterations, also over interrupted and resumed runs.

    Args:
        scalars (list[dict]): Logged scalars in order; those of training have ``step`` and
            ``time``, the seconds per iteration around it.

    Returns:
        float: Seconds. Work that an interruption lost is counted once.
    """
    seconds_at = {row['step']: row['time'] for row in scalars if 'loss' in row}
    steps = [0, *sorted(seconds_at)]
    return sum((step - last) * seconds_at[step] for last, step in pairwise(steps))


def device_name() -> str:
    """Name the device that trains: the GPU, or the processor."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpuinfo = Path('/proc/cpuinfo')
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(': ')[2] for line in lines if line.startswith('model name')]
    return f'{models[0] if models else platform.processor()}, {os.cpu_count()} cores'


def write_report(folder: Path, results: dict[str, tuple[dict, list[dict]]], settings: dict) -> Path:
    """Write ``comparison.json`` and ``comparison.md``.

    Args:
        folder (Path): Where to.
        results (dict): Metrics of the test and scalars of the training, by upsampler; the first
            is the baseline.
        settings (dict): What the run was called with.

    Returns:
        Path: The Markdown file.
    """
    rows = {
        name: {column: metrics[key] for column, key in COLUMNS.items()}
        | {'training_seconds': round(training_seconds(scalars), 1)}
        for name, (metrics, scalars) in results.items()
    }
    command = shlex.join(['tools/demo.sh', *sys.argv[1:]])
    record = dict(
        provenance(), command=command, device=device_name(), settings=settings, results=rows
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'comparison.json').write_text(json.dumps(record, indent=2) + '\n')
    path = folder / 'comparison.md'
    path.write_text(_markdown(rows, record))
    return path


def _markdown(rows: dict[str, dict], record: dict) -> str:
    header = ['upsampler', *COLUMNS, 'training time']
    lines = [f'| {" | ".join(header)} |', '|---' + '|---:' * (len(header) - 1) + '|']
    for name, row in rows.items():
        # The metric is -1 where there is no object of that size.
        cells = [f'{100 * row[column]:.1f}' if row[column] >= 0 else '–' for column in COLUMNS]
        lines.append(f'| {name} | {" | ".join(cells)} | {row["training_seconds"] / 60:.1f} min |')
    versions = ', '.join(record['versions'].values())
    settings = ', '.join(f'{key} {value}' for key, value in record['settings'].items())
    lines += [
        '',
        f'Boxes on the validation scenes, in percent. `{record["command"]}` on '
        f'{record["device"]}; {settings}; Python {record["python"]}, '
        f'{versions}; revision {record["revision"] or "unknown"}.',
    ]
    return '\n'.join(lines) + '\n'

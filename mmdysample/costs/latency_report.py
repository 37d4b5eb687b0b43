"""Tables and the paper's first figure from measured latencies."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from mmdysample.costs.compare import SEGFORMER
from mmdysample.reproduce.tables import load_published
from mmdysample.upsamplers import build_upsampler

CASE = ('kind', 'workload', 'dtype', 'memory_format', 'threads')


def to_markdown(result: dict[str, Any]) -> str:
    """One table per workload, dtype and memory format, ratios first."""
    versions = ', '.join(result['versions'].values())
    lines = [
        f'`{result["command"]}` on {result["device"]}, {versions}, '
        f'revision {result["revision"]}. Median of {result["rounds"]} interleaved runs; '
        f'a large copy moves {result["ceiling_gb_per_s"]:.1f} GB/s.',
    ]
    for case, rows in groupby(result['rows'], key=lambda row: [row[key] for key in CASE]):
        *names, threads = case
        count = f'{threads} thread' + 's' * (threads > 1)
        lines += ['', f'### {", ".join([*names, count])}', '', *_table(list(rows))]
    if result['memory']:
        lines += ['', '### peak memory of a training step on the CPU', '', *_memory(result)]
    return '\n'.join(lines)


def _table(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield (
        '| | forward / bilinear | / published | forward, ms (quartiles) | of the ceiling '
        '| + backward / bilinear | / published | + backward, ms (quartiles) | peak, MiB |'
    )
    yield '| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |'
    both = {(row['candidate'], row['direction']): row for row in rows}
    names = list(dict.fromkeys(row['candidate'] for row in rows))
    (published,) = (name for name in names if name.startswith('published'))
    for name in names:
        forward, backward = both[name, 'forward'], both[name, 'forward_backward']
        peak = backward['peak_mib']
        yield (
            f'| {name} | {forward["to_bilinear"]:.2f} '
            f'| {forward["median_ms"] / both[published, "forward"]["median_ms"]:.2f} '
            f'| {_with_range(forward)} | {forward["of_ceiling"]:.0%} '
            f'| {backward["to_bilinear"]:.2f} '
            f'| {backward["median_ms"] / both[published, "forward_backward"]["median_ms"]:.2f} '
            f'| {_with_range(backward)} | {"" if peak is None else f"{peak:.0f}"} |'
        )


def _memory(result: dict[str, Any]) -> Iterator[str]:
    yield (
        'By how much the resident memory of a fresh process rises while x, offsets, result and '
        'gradients are made, beside the size of those tensors together.'
    )
    yield ''
    yield '| workload | memory format | sampling | peak, MiB | tensors, MiB | ratio |'
    yield '| --- | --- | --- | ---: | ---: | ---: |'
    for row in result['memory']:
        yield (
            f'| {row["workload"]} | {row["memory_format"]} | {row["name"]} '
            f'| {row["peak_mib"]:.1f} | {row["tensors_mib"]:.1f} '
            f'| {row["peak_mib"] / row["tensors_mib"]:.2f} |'
        )


def _with_range(row: dict[str, Any]) -> str:
    low, high = row['quartiles_ms']
    return f'{row["median_ms"]:.3g} ({low:.3g} to {high:.3g})'


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw published accuracy against measured latency; circles grow with multiply-adds.

    The form of the paper's Figure 1: mIoU of SegFormer-B1 on ADE20K as published, latency of the
    upsampler alone at 1 x 256 x 120 x 120 as measured.

    Args:
        result (dict): What a measurement wrote.
        path (Path): Image to write.
    """
    from matplotlib.figure import Figure

    accuracy = load_published()[SEGFORMER]
    figure = Figure(figsize=(7, 4.5), layout='constrained')
    axes = figure.subplots()
    threads = result['rows'][0]['threads']
    for row in result['rows']:
        name = row['candidate']
        case = (row['kind'], row['workload'], row['direction'], row['threads'])
        if case != ('upsamplers', 'paper', 'forward', threads) or name not in accuracy:
            continue
        gmacs = build_upsampler(name, 256).macs(120, 120) / 1e9
        miou = float(accuracy[name]['miou'].value)
        ours = name.startswith('dysample')
        axes.scatter(
            row['median_ms'], miou, 40 + 60 * gmacs, alpha=0.6, color='C3' if ours else 'C0'
        )
        axes.annotate(
            name, (row['median_ms'], miou), textcoords='offset points', xytext=(6, 4), fontsize=8
        )
    axes.set_xscale('log')
    axes.set_xlabel(f'measured latency, ms ({result["device"]}, threads: {threads})')
    axes.set_ylabel('published mIoU, SegFormer-B1 on ADE20K')
    axes.set_title('Circle area grows with multiply-adds', fontsize=9)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)

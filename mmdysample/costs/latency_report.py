"""Tables of measured latencies, and the paper's Figure 1 from them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from mmdysample.costs.compare import SEGFORMER
from mmdysample.engine.provenance import origin
from mmdysample.reproduce.tables import load_published
from mmdysample.upsamplers import build_upsampler

CASE = ('kind', 'workload', 'dtype', 'memory_format', 'threads')


def to_markdown(result: dict[str, Any]) -> str:
    """Render one table per workload, dtype and memory format, ratios first."""
    lines = [f'{origin(result)}. {ceiling(result)}', *tables(result['rows'])]
    if result['memory']:
        lines += ['', '### peak memory of a training step on the CPU', '', *_memory(result)]
    return '\n'.join(lines)


def ceiling(result: dict[str, Any]) -> str:
    """Say how often each candidate ran, and what bandwidth a copy reaches."""
    return (
        f'Median of {result["rounds"]} interleaved runs; a large copy moves '
        f'{result["ceiling_gb_per_s"]:.1f} GB/s.'
    )


def tables(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Render each case that :func:`mmdysample.costs.latency.measure_cases` timed."""
    for case, of_case in groupby(rows, key=lambda row: [row[key] for key in CASE]):
        *names, threads = case
        count = f'{threads} thread' + 's' * (threads > 1)
        yield from ('', f'### {", ".join([*names, count])}', '', *_table(list(of_case)))


def _table(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield (
        '| | forward / bilinear | / published | forward, ms (quartiles) | of the ceiling '
        '| + backward / bilinear | / published | + backward, ms (quartiles) | peak, MiB |'
    )
    yield '| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |'
    both = {(row['candidate'], row['direction']): row for row in rows}
    names = list(dict.fromkeys(row['candidate'] for row in rows))
    published = next((name for name in names if name.startswith('published')), None)

    def times(name: str, direction: str) -> str:
        row, peer = both[name, direction], both.get((published, direction))
        ratio = '' if peer is None else f'{row["median_ms"] / peer["median_ms"]:.2f}'
        low, high = row['quartiles_ms']
        with_range = f'{row["median_ms"]:.3g} ({low:.3g} to {high:.3g})'
        return f'{row["to_bilinear"]:.2f} | {ratio} | {with_range}'

    for name in names:
        share = both[name, 'forward']['of_ceiling']
        peak = both[name, 'forward_backward']['peak_mib']
        yield (
            f'| {name} | {times(name, "forward")} | {"" if share is None else f"{share:.0%}"} '
            f'| {times(name, "forward_backward")} | {"" if peak is None else f"{peak:.0f}"} |'
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

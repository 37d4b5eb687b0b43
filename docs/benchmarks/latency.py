"""Fill the tables that quote latency_cpu*, rivals, new_memory, head_steps* and onnx_export.json.

From the repository root, after any of them was made anew: python docs/benchmarks/latency.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from mmdysample import build_upsampler, upsampler_names

DOCS = Path(__file__).parents[1]
PAGES = {  # of types whose page has another name
    **dict.fromkeys(('dysample_plus', 'dysample_s', 'dysample_s_plus'), 'dysample'),
    **dict.fromkeys(('sapa_b', 'sapa_i'), 'sapa'),
    **dict.fromkeys(('nearest', 'bilinear'), 'interpolate'),
    'fade_lite': 'fade',
}


def rows_of(kind: str, file: str = 'latency_cpu.json') -> list[dict]:
    """The measured rows of one kind."""
    rows = json.loads((DOCS / 'benchmarks' / file).read_text())['rows']
    return [row for row in rows if row['kind'] == kind]


def comparison() -> list[str]:
    """Whole upsamplers with one thread, the fastest first."""
    times = {
        (row['candidate'], row['direction']): row['to_bilinear']
        for row in rows_of('upsamplers')
        if row['threads'] == 1
    }
    exports = json.loads((DOCS / 'benchmarks/onnx_export.json').read_text())['types']
    lines = []
    for name in upsampler_names():
        if (name, 'forward') not in times or name not in exports:
            continue
        up = build_upsampler(name, in_channels=256)
        try:
            build_upsampler(name, in_channels=288, scale_factor=3)
            factors = 'any'
        except ValueError:
            factors = '2'
        forward, backward = times[name, 'forward'], times[name, 'forward_backward']
        line = (
            f'| [`{name}`]({PAGES.get(name, name)}.md) '
            f'| {"yes" if up.guided else "no"} | {factors} '
            f'| {sum(p.numel() for p in up.parameters()):,} '
            f'| {round((up.macs(1, 2) - up.macs(1, 1)) / 4):,} | {forward:.2f} | {backward:.2f} '
            f'| {"free" if isinstance(exports[name]["free"], float) else "fixed"} |'
        )
        lines.append((forward, line))
    return [line for _, line in sorted(lines)]


def native(file: str) -> list[str]:
    """Native sampling with one thread and with two, by workload and layout."""
    keys = ('workload', 'memory_format', 'threads', 'direction')
    rows = rows_of('sampling', file)
    times = {
        (row['candidate'], *(row[key] for key in keys)): row['median_ms']
        for row in rows
        if row['candidate'] in ('bilinear', 'published', 'dysample (native)')
    }
    lines = []
    for workload, layout in dict.fromkeys((row['workload'], row['memory_format']) for row in rows):
        cells = [workload, layout]
        for direction in ('forward', 'forward_backward'):
            for peer in ('bilinear', 'published'):
                ratios = (
                    times['dysample (native)', workload, layout, threads, direction]
                    / times[peer, workload, layout, threads, direction]
                    for threads in (1, 2)
                )
                cells.append(', '.join(f'{ratio:.2f}' for ratio in ratios))
        lines.append(f'| {" | ".join(cells)} |')
    return lines


def whole() -> list[str]:
    """How many times faster than plain PyTorch and than the published module, memory kept."""
    rows = rows_of('upsamplers', 'latency_cpu_kept.json')
    times = {(r['candidate'], r['threads'], r['direction']): r['median_ms'] for r in rows}
    lines = []
    for name in ('dysample', 'dysample_s_plus', 'carafe', 'fade', 'sapa_b', 'a2u'):
        cells = [f'`{name}`']
        others = [f'{name} (torch)'] + ['published dysample'] * name.startswith('dysample')
        for direction in ('forward', 'forward_backward'):
            for other in (f'{name} (torch)', 'published dysample'):
                pairs = [
                    (times.get((other, n, direction)), times[name, n, direction]) for n in (1, 2)
                ]
                known = other in others and all(before for before, _ in pairs)
                cells.append(', '.join(f'{b / now:.1f}' for b, now in pairs) if known else '')
        lines.append(f'| {" | ".join(cells)} |')
    return lines


def new_memory() -> list[str]:
    """Milliseconds with one thread and two, into new results and into those written before."""
    rows = json.loads((DOCS / 'benchmarks/new_memory.json').read_text())['rows']
    times = {(r['workload'], r['layout'], r['threads'], r['way']): r['median_ms'] for r in rows}
    ways = ('kernels, new', 'kernels, again', 'bilinear, new', 'bilinear, again', 'copy')
    lines = []
    for workload, layout in dict.fromkeys((row['workload'], row['layout']) for row in rows):
        cells = [workload, layout]
        for way in ways:
            pair = (times[workload, layout, threads, way] for threads in (1, 2))
            cells.append(', '.join(f'{milliseconds:.1f}' for milliseconds in pair))
        lines.append(f'| {" | ".join(cells)} |')
    return lines


def head_steps() -> list[str]:
    """Milliseconds of SegFormer's upsampling and its parts, and what differs from bilinear's."""
    found = {}
    for memory, file in (('kept', 'head_steps_kept.json'), ('new', 'head_steps.json')):
        for row in json.loads((DOCS / 'benchmarks' / file).read_text())['rows']:
            parts = found.setdefault((*row['size'], memory), {})
            parts[row['upsampler'], row['part']] = np.array(row['milliseconds'])
    lines = []
    for (height, width, memory), parts in sorted(found.items(), key=lambda item: -item[0][0]):
        stock, steps = parts['bilinear', 'upsampling'], parts['dysample', 'upsampling']
        offsets, kernels = parts['dysample', 'offsets'], parts['dysample', 'kernels']
        calls = parts['dysample', 'call'] - parts['bilinear', 'call']
        cells = [f'{height} x {width}', memory, f'{np.median(parts["bilinear", "call"]):.0f}']
        for taken in (stock, steps, offsets, kernels, steps - offsets - kernels):
            cells.append(f'{np.median(taken):.1f}')
        for difference in (steps - stock, calls - (steps - stock)):
            low, median, high = np.quantile(difference, (0.25, 0.5, 0.75))
            cells.append(f'{median:+.1f} ({low:+.1f} to {high:+.1f})')
        lines.append(f'| {" | ".join(cells)} |')
    return lines


def rivals() -> list[str]:
    """How many times faster the rivals are than before, and what of a call kernels take."""
    rows = json.loads((DOCS / 'benchmarks/rivals.json').read_text())['rows']
    found = {(row['upsampler'], row['way'], row['threads']): row for row in rows}
    lines = []
    for name in dict.fromkeys(row['upsampler'] for row in rows):
        cells = [f'`{name}`']
        for way in ('forward', 'backward'):
            for threads in (1, 2):
                row = found[name, way, threads]
                low, high = row['quartiles']
                cells.append(f'{row["times_faster"]:.1f} ({low:.1f} to {high:.1f})')
        shares = (found[name, 'backward', n] for n in (1, 2))
        cells.append(', '.join(f'{row["kernels_ms"] / row["now_ms"]:.0%}' for row in shares))
        lines.append(f'| {" | ".join(cells)} |')
    return lines


def put(page: str, heading: str, lines: list[str]) -> None:
    """Replace the rows of the table whose heading begins so."""
    path = DOCS / page
    pattern = rf'(^\| {re.escape(heading)} \|.*\n\|[-:|]+\|\n)(?:\|.*\n)+'
    made, count = re.subn(
        pattern, lambda m: m[1] + '\n'.join(lines) + '\n', path.read_text(), flags=re.M
    )
    if count != 1:
        raise ValueError(f'{path} has {count} tables with the heading {heading!r}, 1 is expected')
    path.write_text(made)


if __name__ == '__main__':
    put('upsamplers/index.md', '`type`', comparison())
    put('kernels.md', 'features, memory kept', native('latency_cpu_kept.json'))
    put('kernels.md', 'features, new memory', native('latency_cpu.json'))
    put('kernels.md', 'milliseconds', new_memory())
    put('kernels.md', 'image | memory', head_steps())
    put('kernels.md', 'upsampler', whole())
    put('kernels.md', 'rival', rivals())

"""Gather a demo's results into reproduce_demo.json, and fill the tables that quote it.

From the repository root, after `python tools/reproduce.py run --all --scale demo --seeds 3`:

    python docs/benchmarks/reproduce_demo.py work_dirs/reproduce

Without a folder, the tables in README.md and docs/reproduce.md are made again from the JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from detection import fill, table

from mmdysample.reproduce.results import (
    Result,
    Summary,
    cost_file,
    gain,
    load_results,
    summarize,
)
from mmdysample.reproduce.tables import Metric, load_tables

ROOT = Path(__file__).parents[2]
RAW = Path(__file__).with_suffix('.json')
TABLES = load_tables('demo')
KEPT = ('row', 'seed', 'metrics', 'test', 'training_seconds', 'interruptions', 'finished')
ORIGIN = ('device', 'threads', 'python', 'platform', 'versions', 'revision', 'overrides')
LEADING = {name: next(iter(entry.metrics)) for name, entry in TABLES.items()}
HEADS = dict(
    segformer='segmentation, mIoU',
    faster_rcnn='detection, AP',
    mask_rcnn='instances, mask AP',
    panoptic_fpn='panoptic, PQ',
    depthformer='depth, AbsRel (lower is better)',
)


def collect(work_dir: Path) -> None:
    """Write the JSON: every test of every training, without what was logged on the way."""
    tables = {}
    for name, entry in TABLES.items():
        results = load_results(work_dir, entry)
        costs = cost_file(work_dir, entry)
        origins = {json.dumps({key: r.record[key] for key in ORIGIN}) for r in results}
        tables[name] = dict(
            results=[{key: result.record[key] for key in KEPT} for result in results],
            origins=[json.loads(origin) for origin in sorted(origins)],
            commands=sorted({command for r in results[:1] for command in r.record['commands']}),
            cost=json.loads(costs.read_text()) if costs.exists() else None,
        )
    command = 'python tools/reproduce.py run --all --scale demo --seeds 3'
    RAW.write_text(json.dumps(dict(command=command, tables=tables), indent=1) + '\n')


def results_of(name: str) -> list[Result]:
    """The results of a table, from the JSON."""
    records = json.loads(RAW.read_text())['tables'][name]['results']
    return [Result(r['row'], r['seed'], r['metrics'], Path(), r) for r in records]


def shown(summary: Summary, metric: Metric, sign: str = '') -> str:
    """Mean and band with a metric's digits."""
    text = f'{summary.mean:{sign}.{metric.digits}f}'
    return text if summary.band is None else f'{text} ± {summary.band:.{metric.digits}f}'


def overview() -> str:
    """One metric of each task: means over seeds."""
    rows = []
    for index, row in enumerate(TABLES['segformer'].rows):
        line = [row if index else 'nearest; bilinear for segmentation and depth']
        for name, column in LEADING.items():
            kind = list(TABLES[name].rows)[index]
            values = [r.metrics[column] for r in results_of(name) if r.row == kind]
            line.append(shown(summarize(values), TABLES[name].metrics[column]))
        rows.append(line)
    return table(['upsampler', *(HEADS[name] for name in LEADING)], rows)


def details(name: str) -> str:
    """All columns of one table, and what each row gains over the baseline in the leading one."""
    entry, results, leading = TABLES[name], results_of(name), LEADING[name]
    columns = [c for c in entry.metrics if any(c in r.metrics for r in results)]
    rows = []
    for row in entry.rows:
        own = [result for result in results if result.row == row]
        line = [row]
        for column in columns:
            values = [result.metrics[column] for result in own]
            line.append(shown(summarize(values), entry.metrics[column]))
        over = gain(results, row, entry.baseline.name, leading)
        if row == entry.baseline.name:
            line.append('')
        else:
            noise = over.band is None or abs(over.mean) <= over.band
            mark = '' if noise else ' *'
            line.append(shown(over, entry.metrics[leading], '+') + mark)
        rows.append(line)
    return table(['row', *columns, f'gain in {leading}'], rows)


def main(*arguments: str) -> None:
    """Gather, if there is a folder; then fill the pages."""
    if arguments:
        collect(Path(arguments[0]))
    readme = ROOT / 'README.md'
    readme.write_text(fill(readme.read_text(), 'demo', overview()))
    page = ROOT / 'docs' / 'reproduce.md'
    text = page.read_text()
    for name in TABLES:
        text = fill(text, f'demo {name}', details(name))
    page.write_text(text)


if __name__ == '__main__':
    main(*sys.argv[1:])

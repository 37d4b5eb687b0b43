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

from mmdysample.reproduce.cost import load_cost
from mmdysample.reproduce.results import BETTER, WORSE, Run, find_runs, summarize
from mmdysample.reproduce.tables import Metric, load_tables

ROOT = Path(__file__).parents[2]
RAW = Path(__file__).with_suffix('.json')
TABLES = load_tables('demo')
KEPT = ('row', 'seed', 'metrics', 'test', 'training_seconds', 'interruptions', 'finished')
ORIGIN = ('device', 'threads', 'python', 'platform', 'versions', 'revision', 'overrides')
LEADING = {name: entry.leading for name, entry in TABLES.items()}
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
        records = [run.record for run in find_runs(work_dir, entry) if run.record]
        origins = {json.dumps({key: record[key] for key in ORIGIN}) for record in records}
        tables[name] = dict(
            results=[{key: record[key] for key in KEPT} for record in records],
            origins=[json.loads(origin) for origin in sorted(origins)],
            commands=sorted({command for r in records[:1] for command in r['commands']}),
            cost={row: load_cost(work_dir, entry, row) for row in entry.rows},
        )
    command = 'python tools/reproduce.py run --all --scale demo --seeds 3'
    RAW.write_text(json.dumps(dict(command=command, tables=tables), indent=1) + '\n')


def cells_of(name: str):
    """A table summed up over seeds, from the JSON."""
    records = json.loads(RAW.read_text())['tables'][name]['results']
    runs = [Run(r['row'], r['seed'], 'finished', Path(), r) for r in records]
    return summarize(TABLES[name], runs)


def shown(mean: float, band: float | None, metric: Metric, sign: str = '') -> str:
    """Mean and band with a metric's digits."""
    text = f'{mean:{sign}.{metric.digits}f}'
    return text if band is None else f'{text} ± {band:.{metric.digits}f}'


def overview() -> str:
    """One metric of each task: means over seeds."""
    rows = []
    for index, row in enumerate(TABLES['segformer'].rows):
        line = [row if index else 'nearest; bilinear for segmentation and depth']
        for name, column in LEADING.items():
            cell = cells_of(name)[list(TABLES[name].rows)[index]][column]
            line.append(shown(cell.mean, cell.band, TABLES[name].metrics[column]))
        rows.append(line)
    return table(['upsampler', *(HEADS[name] for name in LEADING)], rows)


def details(name: str) -> str:
    """All columns of one table, and what each row gains over the baseline in the leading one."""
    entry, cells, leading = TABLES[name], cells_of(name), LEADING[name]
    columns = [c for c in entry.metrics if any(c in row for row in cells.values())]
    rows = []
    for row in entry.rows:
        line = [row]
        for column in columns:
            cell = cells[row][column]
            line.append(shown(cell.mean, cell.band, entry.metrics[column]))
        cell = cells[row][leading]
        mark = ' *' if cell.verdict in (BETTER, WORSE) else ''
        gain = cell.gain is not None
        line.append(
            shown(cell.gain, cell.gain_band, entry.metrics[leading], '+') + mark if gain else ''
        )
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

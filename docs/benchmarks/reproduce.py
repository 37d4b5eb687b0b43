"""Gather a scale's results into reproduce_SCALE.json; fill tables and draw plots of its page.

From the repository root, after `python tools/reproduce.py run --all --scale demo --seeds 3`:

    python docs/benchmarks/reproduce.py demo work_dirs/reproduce

Without a folder, tables and plots are made again from the JSON. The scale `small` goes the same
way, and has plots: every seed, and the validations of its training. The folder also gives pictures
of the tables in it. What the JSON holds of rows and seeds that the folder has not stays there, so
that a table may be measured in several parts.
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
from pathlib import Path

from detection import fill, table
from PIL import Image

from mmdysample.reproduce.cost import load_cost
from mmdysample.reproduce.pictures import draw_pictures
from mmdysample.reproduce.plots import curve_plot, dot_plot, learning_curves
from mmdysample.reproduce.results import BETTER, WORSE, Cell, Run, find_runs, summarize
from mmdysample.reproduce.tables import Metric, Table, column_label, load_tables

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / 'docs' / 'images' / 'small'
PICTURES = 3
PAGES = dict(
    demo=['docs/reproduce.md'],
    small=['docs/real_data.md', 'docs/super_resolution.md', 'docs/downsampling.md'],
)
KEPT = ('row', 'seed', 'metrics', 'test', 'training_seconds', 'interruptions', 'finished',
        'revision', 'device')  # fmt: skip
ORIGIN = ('device', 'threads', 'python', 'platform', 'versions', 'revision', 'overrides')
HEADS = dict(
    segformer='segmentation, mIoU',
    faster_rcnn='detection, AP',
    mask_rcnn='instances, mask AP',
    panoptic_fpn='panoptic, PQ',
    depthformer='depth, AbsRel (lower is better)',
)


def raw_file(scale: str) -> Path:
    """Where the results of a scale are kept."""
    return Path(__file__).with_name(f'reproduce_{scale}.json')


def collect(scale: str, work_dir: Path) -> None:
    """Write the JSON: every test of every training, and what validations saw on the way."""
    file = raw_file(scale)
    before = json.loads(file.read_text())['tables'] if file.exists() else {}
    tables = {}
    for name, entry in load_tables(scale).items():
        old = before.get(name, dict(results=[], origins=[], commands=[], cost={}))
        records = [run.record for run in find_runs(work_dir, entry) if run.record]
        found = {(record['row'], record['seed']) for record in records}
        origins = old['origins'] + [{key: record[key] for key in ORIGIN} for record in records]
        commands = [command for record in records[:1] for command in record['commands']]
        costs = {row: load_cost(work_dir, entry, row) for row in entry.rows}
        tables[name] = dict(
            results=[r for r in old['results'] if (r['row'], r['seed']) not in found]
            + [
                {key: record[key] for key in KEPT} | dict(validations=validations(entry, record))
                for record in records
            ],
            origins=[origin for i, origin in enumerate(origins) if origin not in origins[:i]],
            commands=sorted({*old['commands'], *commands}),
            cost={row: cost or old['cost'].get(row) for row, cost in costs.items()},
        )
    command = f'python tools/reproduce.py run --all --scale {scale}'
    text = json.dumps(dict(command=command, tables=tables), indent=1)
    text = text.replace(str(work_dir.resolve()), 'work_dirs/reproduce')  # no folder of one machine
    file.write_text(f'{text}\n')


def validations(entry: Table, record: dict) -> list[list[float]]:
    """List epoch or step and leading metric of each validation during a training."""
    key = entry.metrics[entry.leading].key
    return [[line['step'], line[key]] for line in record['scalars'] if key in line]


def kept_runs(scale: str, entry: Table) -> list[Run]:
    """The trainings of a table that the JSON holds, less rows that the table has no longer."""
    records = json.loads(raw_file(scale).read_text())['tables'][entry.name]['results']
    runs = [Run(r['row'], r['seed'], 'finished', Path(), r) for r in records]
    return [run for run in runs if run.row in entry.rows]


def summary(scale: str, name: str) -> dict[str, dict[str, Cell]]:
    """A table summed up over seeds."""
    entry = load_tables(scale)[name]
    return summarize(entry, kept_runs(scale, entry))


def draw(entry: Table, work_dir: Path | None) -> None:
    """Write the plots of a small table, and a picture where the folder has a pair of trainings."""
    runs = kept_runs('small', entry)
    if not runs:
        return
    IMAGES.mkdir(exist_ok=True)
    key = entry.metrics[entry.leading].key
    for run in runs:
        steps = run.record['validations']
        run.record['scalars'] = [{'step': step, key: value} for step, value in steps]
    curves = learning_curves(entry, runs)['validation']
    plots = dict(seeds=dot_plot(entry, summarize(entry, runs)))
    if any(len(run.record['validations']) > 1 for run in runs):  # one alone is the test
        plots['validations'] = curve_plot(entry, curves, 'epoch', column_label(entry.leading)[0])
    for kind, address in plots.items():
        svg = base64.b64decode(address.partition(',')[2])
        (IMAGES / f'{entry.name}-{kind}.svg').write_bytes(svg)
    if work_dir is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        pictures, note = draw_pictures(entry, find_runs(work_dir, entry), Path(folder), PICTURES)
        if note:
            print(f'{entry.name} gets no picture: {note}')
        for picture in pictures[PICTURES // 2 :][:1]:  # none if there is no pair
            with Image.open(Path(folder, picture['file'])) as strip:
                strip.convert('RGB').save(IMAGES / f'{entry.name}.jpg', quality=82)


def shown(mean: float, band: float | None, metric: Metric, sign: str = '') -> str:
    """Mean and band with a metric's digits."""
    text = f'{mean:{sign}.{metric.digits}f}'
    return text if band is None else f'{text} ± {band:.{metric.digits}f}'


def overview() -> str:
    """One metric of each of the demo's tasks: means over seeds."""
    tables = load_tables('demo')
    cells = {name: summary('demo', name) for name in tables}
    rows = []
    for index, row in enumerate(tables['segformer'].rows):
        line = [row if index else 'nearest; bilinear for segmentation and depth']
        for name, entry in tables.items():
            cell = cells[name][list(entry.rows)[index]][entry.leading]
            line.append(shown(cell.mean, cell.band, entry.metrics[entry.leading]))
        rows.append(line)
    return table(['upsampler', *(HEADS[name] for name in tables)], rows)


def details(scale: str, name: str) -> str:
    """All columns of one table, and what each row gains over the baseline.

    The gain is that in the leading metric; boundary IoU and the published gain stand beside it
    where the scale is no demo.
    """
    entry, cells = load_tables(scale)[name], summary(scale, name)
    columns = [c for c in entry.metrics if any(c in row for row in cells.values())]
    compared = [entry.leading, *(c for c in columns if c == 'biou' and scale != 'demo')]
    header = ['row', *columns, *(f'gain in {column}' for column in compared)]
    gains = {row: published_gain(entry, row) for row in entry.rows}
    published = scale != 'demo' and any(gains.values())
    header += ['seeds'] * (scale != 'demo')
    header += [f'published gain in {entry.leading}'] * published
    rows = []
    for row in entry.rows:
        if not cells[row]:
            continue
        line = [row]
        for column in columns:
            cell = cells[row][column]
            line.append(shown(cell.mean, cell.band, entry.metrics[column]))
        for column in compared:
            cell = cells[row][column]
            mark = ' *' if cell.verdict in (BETTER, WORSE) else ''
            gain = cell.gain is not None
            text = shown(cell.gain, cell.gain_band, entry.metrics[column], '+') if gain else ''
            line.append(text + mark)
        line += [str(len(cells[row][entry.leading].values))] * (scale != 'demo')
        line += [gains[row]] * published
        rows.append(line)
    return table(header, rows)


def published_gain(entry: Table, row: str) -> str:
    """What a row gains over the baseline in the published table; empty if one is not confirmed."""
    pair = [entry.rows[name].published.get(entry.leading) for name in (row, entry.baseline.name)]
    if row == entry.baseline.name or not all(value and value.confirmed for value in pair):
        return ''
    return f'{float(pair[0].value) - float(pair[1].value):+.{entry.metrics[entry.leading].digits}f}'


def main(scale: str, work_dir: str | None = None) -> None:
    """Gather, if there is a folder; then fill the pages."""
    if work_dir:
        collect(scale, Path(work_dir))
    if scale == 'demo':
        readme = ROOT / 'README.md'
        readme.write_text(fill(readme.read_text(), 'demo', overview()))
    tables = load_tables(scale)
    for page in (ROOT / name for name in PAGES[scale]):
        text = page.read_text()
        for name in tables:
            text = fill(text, f'{scale} {name}', details(scale, name))
        page.write_text(text)
    if scale == 'small':
        for entry in tables.values():
            draw(entry, Path(work_dir) if work_dir else None)


if __name__ == '__main__':
    main(*sys.argv[1:])

"""Work dirs made by hand, and what a reader finds on the page that reports them."""

from __future__ import annotations

import json
from html.parser import HTMLParser

from mmdysample.reproduce.report import write_report
from mmdysample.reproduce.results import cost_file, run_folder
from mmdysample.reproduce.tables import Metric, Published, Row, Table

AP = (31.25, 30.75, 32.4)
GAINS = dict(dysample=(1.1, 0.9, 1.3), dysample_plus=(0.4, -0.6, 0.3))


def make_table(scale='full', **changes) -> Table:
    def row(name, ap, confirmed=True):
        published = {'ap': Published(ap, confirmed, 'dysample_readme')} if ap else {}
        return Row(name, 'configs/x.py', published)

    rows = [
        row('nearest', '31.0'),
        row('dysample', '32.50'),
        row('dysample_plus', '32.9', confirmed=False),
        row('sapa_b', None),
    ]
    metrics = {
        'ap': Metric('coco/bbox_mAP', times=100),
        'rmse': Metric('rmse', digits=3, lower=True),
    }
    entries = dict(name='boxes', title='Boxes', task='detection', scale=scale, metrics=metrics)
    entries |= dict(columns=['ap'], rows={row.name: row for row in rows}, batch=16)
    return Table(**(entries | changes))


def put_result(work_dir, table, row, seed, metrics, **changes):
    folder = run_folder(work_dir, table, row, seed)
    folder.mkdir(parents=True, exist_ok=True)
    scalars = [
        dict(loss=2 / step + 0.01 * seed, lr=0.1, time=0.1, epoch=1, iter=step, step=step)
        for step in range(1, 40)
    ] + [{'coco/bbox_mAP': 0.1 * epoch, 'step': epoch} for epoch in (1, 2, 3)]
    record = dict(
        row=row,
        seed=seed,
        metrics=metrics,
        scalars=scalars,
        training_seconds=60.5,
        config_dump='train/x.py',
        checkpoint='train/epoch_3.pth',
        overrides=[],
        device='a processor',
        versions={'torch': 'torch 2.13'},
        revision='abc',
        batch=16,
        commands=[f'python tools/train.py configs/x.py --seed {seed}'],
        starts=[dict(time='2026-11-24T12:00:00Z', revision='abc', device='a processor')],
        finished='2026-11-24T13:00:00Z',
    )
    (folder / 'result.json').write_text(json.dumps(record | changes))


def fill(work_dir, table):
    for seed, value in enumerate(AP):
        put_result(work_dir, table, 'nearest', seed, dict(ap=value, rmse=0.5 + 0.01 * seed))
        for row, gains in GAINS.items():
            metrics = dict(ap=value + gains[seed], rmse=0.4 + 0.011 * seed)
            put_result(work_dir, table, row, seed, metrics)
    for row, latency in dict(nearest=30.0, dysample=31.5).items():
        put_cost(work_dir, table, row, latency)


def put_cost(work_dir, table, row, latency, **changes):
    cost = dict(params=2_831_234, upsampler_params=24_576, upsampler_macs=12_345_678)
    cost |= dict(image=[192, 256], latency_ms=latency, device='a processor', threads=2)
    cost_file(work_dir, table, row).write_text(json.dumps(cost | dict(revision='abc') | changes))


class Page(HTMLParser):
    """Collects what a page loads, its rows, and its text."""

    def __init__(self, path):
        super().__init__()
        self.loads, self.links, self.ids, self.words, self.rows = [], [], [], [], []
        self.in_row = False
        self.source = path.read_text(encoding='utf-8')
        self.feed(self.source)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if 'id' in attributes:
            self.ids.append(attributes['id'])
        if tag == 'a':
            self.links.append(attributes['href'])
        else:
            self.loads += [attributes[k] for k in ('src', 'href', 'srcset') if k in attributes]
        if tag in ('script', 'link', 'iframe', 'object', 'embed', 'base'):
            self.loads.append(f'<{tag}>')
        if tag == 'tr':
            self.rows.append('')
            self.in_row = True

    def handle_endtag(self, tag):
        if tag in ('td', 'th'):
            self.rows[-1] += '|'
        if tag == 'tr':
            self.in_row = False

    def handle_data(self, data):
        self.words.append(data)
        if self.in_row:
            self.rows[-1] += data

    @property
    def text(self):
        return ' '.join(' '.join(self.words).split())

    def row(self, name):
        """The cells of the first row of a table that is of this name."""
        rows = ([' '.join(cell.split()) for cell in row.split('|')] for row in self.rows)
        return next(row for row in rows if row[0].split(' ')[0] == name)


def report_of(tmp_path, tables, pictures=0):
    tables = tables if isinstance(tables, list) else [tables]
    path = write_report(tmp_path / 'work', tables, tmp_path / 'out', pictures=pictures)
    return Page(path), path

"""Work dirs made by hand, and what a reader finds on the page that reports them."""

from __future__ import annotations

import json
from html.parser import HTMLParser

from mmdysample.reproduce.published import Figure
from mmdysample.reproduce.report import write_report
from mmdysample.reproduce.report.gather import gather
from mmdysample.reproduce.results import cost_file, run_folder
from mmdysample.reproduce.tables import Metric, Row, Table

AP = (31.25, 30.75, 32.4)
GAINS = dict(dysample=(1.1, 0.9, 1.3), dysample_plus=(0.4, -0.6, 0.3))


def make_table(scale='full', **changes) -> Table:
    def row(name, ap, confirmed=True, config='configs/x.py'):
        figures = {'ap': Figure(ap, confirmed, 'dysample_readme')} if ap else {}
        return Row(name, config, figures)

    rows = [
        row('nearest', '31.0'),
        row('dysample', '32.50'),
        row('dysample_plus', '32.9', confirmed=False),
        row('freqfusion', '33.3', config=None),
        row('sapa_b', None),
    ]
    return Table(
        **{
            'name': 'boxes',
            'title': 'Boxes',
            'task': 'detection',
            'scale': scale,
            'metrics': {
                'ap': Metric('coco/bbox_mAP', times=100),
                'rmse': Metric('rmse', digits=3, lower=True),
            },
            'columns': ['ap'],
            'rows': {row.name: row for row in rows},
            'train': {},
            'test_options': [],
            **changes,
        }
    )


def put_result(work_dir, table, row, seed, metrics, **changes):
    folder = run_folder(work_dir, table, row, seed)
    folder.mkdir(parents=True, exist_ok=True)
    scalars = [
        dict(loss=2 / step + 0.01 * seed, lr=0.1, time=0.1, epoch=1, iter=step, step=step)
        for step in range(1, 40)
    ] + [{'coco/bbox_mAP': 0.1 * epoch, 'step': epoch} for epoch in (1, 2, 3)]
    record = dict(
        table=table.name,
        row=row,
        scale=table.scale,
        seed=seed,
        metrics=metrics,
        test={},
        scalars=scalars,
        training_seconds=60.5,
        config='configs/x.py',
        config_dump='train/x.py',
        checkpoint='train/epoch_3.pth',
        overrides=[],
        device='a processor',
        python='3.12.1',
        platform='Linux',
        versions={'torch': 'torch 2.13'},
        revision='abc',
        commands=[f'python tools/train.py configs/x.py --seed {seed}'],
        interruptions=0,
        finished='2026-11-24T13:00:00Z',
    )
    (folder / 'result.json').write_text(json.dumps(record | changes))


def fill(work_dir, table):
    for seed, value in enumerate(AP):
        put_result(work_dir, table, 'nearest', seed, dict(ap=value, rmse=0.5 + 0.01 * seed))
        for row, gains in GAINS.items():
            metrics = dict(ap=value + gains[seed], rmse=0.4 + 0.011 * seed)
            put_result(work_dir, table, row, seed, metrics)
    cost = dict(
        params=2_831_234,
        upsampler_params=24_576,
        upsampler_macs=12_345_678,
        image=[192, 256],
        latency_ms=31.234,
        latency_ratio=1.0567,
    )
    record = dict(rows={'nearest': cost, 'dysample': cost}, device='a processor', revision='abc')
    cost_file(work_dir, table).write_text(json.dumps(record))


class Page(HTMLParser):
    """Collects what a page loads, its numbers, and its text."""

    def __init__(self, path):
        super().__init__()
        self.loads, self.links, self.numbers, self.ids = [], [], [], []
        self.words, self.rows, self.unmarked = [], [], []
        self.open_number, self.in_row = None, False
        self.source = path.read_text(encoding='utf-8')
        self.feed(self.source)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if 'id' in attributes:
            self.ids.append(attributes['id'])
        if tag == 'a':
            self.links.append(attributes['href'])
        else:
            self.loads += [
                attributes[key] for key in ('src', 'href', 'srcset') if key in attributes
            ]
        if tag in ('script', 'link', 'iframe', 'object', 'embed', 'base'):
            self.loads.append(f'<{tag}>')
        if tag == 'data':
            self.open_number = attributes
        if tag == 'tr':
            self.rows.append('')
            self.in_row = True

    def handle_endtag(self, tag):
        if tag == 'data':
            self.open_number = None
        if tag in ('td', 'th'):
            self.rows[-1] += '|'
        if tag == 'tr':
            self.in_row = False

    def handle_data(self, data):
        self.words.append(data)
        if self.in_row:
            self.rows[-1] += data
            if not self.open_number:
                self.unmarked.append(data)
        if self.open_number:
            at, value = self.open_number['data-at'], self.open_number['value']
            self.numbers.append((at, value, data))

    @property
    def text(self):
        return ' '.join(' '.join(self.words).split())

    def row(self, name):
        """The cells of the first row of a table that is of this name."""
        rows = ([' '.join(cell.split()) for cell in row.split('|')] for row in self.rows)
        return next(row for row in rows if row[0].split(' ')[0] == name)


def look_up(report, pointer):
    value = report
    for part in pointer.split('/')[1:]:
        key = part.replace('~1', '/').replace('~0', '~')
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


def report_of(tmp_path, table, **options):
    path = write_report(tmp_path / 'work', [table], tmp_path / 'out', **options)
    report = json.loads(path.with_suffix('.json').read_text())
    return Page(path), report, path


def gathered(tmp_path, table):
    """What the page would show, without drawing it."""
    return gather(tmp_path / 'work', [table])


def rows_of(report):
    """The rows of the first table, by name."""
    return {row['name']: row for row in report['tables'][0]['rows']}

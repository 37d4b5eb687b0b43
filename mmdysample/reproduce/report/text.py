"""The report as Markdown, and every number of it as one line of a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmdysample.reproduce.report.gather import BETTER, ONE_SEED, WITHIN_NOISE, WORSE
from mmdysample.reproduce.report.numbers import count, duration, fixed, milliseconds, signed

FIELDS = (
    'scale',
    'table',
    'row',
    'seed',
    'column',
    'value',
    'unit',
    'times',
    'published',
    'published_status',
    'source',
)
"""Columns of the CSV file."""

_COSTS = {
    'params': '',
    'upsampler_params': '',
    'upsampler_macs': '',
    'latency_ratio': '',
    'latency_ms': 'ms',
}


def to_csv(report: Mapping[str, Any]) -> str:
    """Write every measured value of every seed, every cost, and every published figure.

    Published figures stand beside values of the same setting; those that nothing stands beside
    have a line of their own, with the scale 'full', at which they were published. ``times`` is
    what turned the test's number into ``value``.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator='\n')
    writer.writeheader()
    for table in report['tables']:
        for row in table['rows']:
            writer.writerows(_csv_lines(table, row))
    return text.getvalue()


def _csv_lines(table: Mapping[str, Any], row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    head = dict(scale=table['scale'], table=table['name'], row=row['name'])
    same_setting = table['scale'] == 'full'
    shown = set()
    for run in row['runs']:
        for column, metric in table['columns'].items():
            if column not in run['metrics']:
                continue
            line = dict(head, seed=run['seed'], column=column, value=repr(run['metrics'][column]))
            line |= dict(unit=metric['unit'], times=metric['times'])
            if same_setting and column in row['published']:
                line |= _csv_published(row['published'][column])
                shown.add(column)
            yield line
    for name, unit in _COSTS.items():
        if row['cost'] and row['cost'].get(name) is not None:
            yield dict(head, column=name, value=repr(row['cost'][name]), unit=unit, times=1)
    for column, figure in row['published'].items():
        if column not in shown:
            line = dict(head, scale='full', column=column)
            yield (
                line
                | dict(unit=table['published_columns'][column]['unit'], times='')
                | (_csv_published(figure))
            )


def _csv_published(figure: Mapping[str, Any]) -> dict[str, str]:
    return dict(
        published=figure['text'], published_status=figure['status'], source=figure['source']
    )


def to_markdown(report: Mapping[str, Any]) -> str:
    """Write the tables as Markdown."""
    made = report['made']
    lines = [
        '# Reproduced tables',
        '',
        'Mean over seeds ± half of its 95 % confidence interval. A gain is paired by seed; it is '
        'beyond noise if its interval excludes zero.',
    ]
    for table in report['tables']:
        lines += ['', f'## {_safe(table["title"])}', '']
        lines += [
            line for warning in table['warnings'] for line in (f'**Mind:** {_safe(warning)}', '')
        ]
        lines += _measured(table)
        lines += _published(table)
        lines += _pictures(table)
        lines += ['', *_foot(table)]
    lines += ['', f'Written {made["time"]} by `{made["command"]}`, revision {made["revision"]}.']
    return '\n'.join(lines) + '\n'


def _measured(table: Mapping[str, Any]) -> Iterator[str]:
    full = table['scale'] == 'full'
    costs = any(row['cost'] for row in table['rows'])
    header = ['upsampler', 'seeds']
    for metric in table['columns'].values():
        unit = f', {metric["unit"]}' if metric['unit'] else ''
        lower = ' (less is better)' if metric['lower'] else ''
        header += [f'{metric["label"]}{unit}{lower}', 'gain']
        header += ['published', 'measured − published'] if full else []
    header += ['latency', 'upsamplers’ parameters', 'upsamplers’ MACs'] if costs else []
    header.append('state')
    yield from _head(header)
    for row in table['rows']:
        finished = sum(run['state'] == 'finished' for run in row['runs'])
        cells = [_safe(row['name']), str(finished)]
        for column, metric in table['columns'].items():
            digits = metric['digits']
            cells.append(_summary(row['measured'].get(column), digits, fixed))
            cells.append(_gain(row['gain'].get(column), digits))
            if full:
                cells.append(_figure(row['published'].get(column)))
                cells.append(_summary(row['difference'].get(column), digits, signed))
        cells += _cost(row['cost'] or {}) if costs else []
        failed = [run for run in row['runs'] if run['error']]
        errors = [f'seed {run["seed"]}: {run["error"].splitlines()[0]}' for run in failed]
        cells.append('; '.join(filter(None, [_safe(row['state']), *map(_safe, errors)])))
        yield _line(cells)


def _published(table: Mapping[str, Any]) -> Iterator[str]:
    rows = [row for row in table['rows'] if row['published']]
    if not rows:
        return
    yield from ('', 'As published at full scale; † recalled from the paper, not read again:', '')
    columns = table['published_columns']
    units = [f', {column["unit"]}' if column['unit'] else '' for column in columns.values()]
    labels = [column['label'] for column in columns.values()]
    yield from _head(['upsampler', *(f'{a}{b}' for a, b in zip(labels, units, strict=True))])
    for row in rows:
        yield _line(
            [_safe(row['name']), *(_figure(row['published'].get(column)) for column in columns)]
        )


def _pictures(table: Mapping[str, Any]) -> Iterator[str]:
    if table['pictures_note']:
        yield from ('', f'No pictures: {_safe(table["pictures_note"])}')
    for picture in table['pictures']:
        caption = ' | '.join(picture['titles'])
        if picture['depth_range']:
            near, far = picture['depth_range']
            caption += f'; from {near:.2f} m (bright) to {far:.2f} m (dark)'
        yield from ('', f'![{_safe(caption)}](pictures/{picture["file"]})', '', _safe(caption))


def _foot(table: Mapping[str, Any]) -> Iterator[str]:
    told = table['provenance']
    yield (
        f'{table["finished"]} of {table["started"]} runs finished, '
        f'{duration(table["training_seconds"])} of training; seeds '
        f'{", ".join(map(str, table["seeds"])) or "none"}.'
    )
    for key in ('device', 'versions', 'python', 'platform', 'revision', 'overrides'):
        if told[key]:
            yield f'- {key}: {_safe("; ".join(told[key]))}'
    if told['commands']:
        yield from ('', '```bash', *told['commands'], '```')


def _head(header: Sequence[str]) -> list[str]:
    return [_line(header), '| --- |' + ' ---: |' * (len(header) - 1)]


def _line(cells: Sequence[str]) -> str:
    return f'| {" | ".join(cells)} |'


def _summary(summary: Mapping[str, Any] | None, digits: int, write) -> str:
    if summary is None:
        return '–'
    text = write(summary['mean'], digits)
    return text if summary['band'] is None else f'{text} ± {fixed(summary["band"], digits)}'


def _gain(gain: Mapping[str, Any] | None, digits: int) -> str:
    if gain is None:
        return '–'
    words = {BETTER: '**better**', WORSE: '**worse**', WITHIN_NOISE: WITHIN_NOISE}
    return f'{_summary(gain, digits, signed)} ({words.get(gain["verdict"], ONE_SEED)})'


def _figure(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return '–'
    return f'{figure["text"]}{" †" if figure["status"] == "recalled" else ""}'


def _cost(cost: Mapping[str, Any]) -> list[str]:
    def cell(key: str, write) -> str:
        return '–' if cost.get(key) is None else write(cost[key])

    return [
        f'{cell("latency_ratio", "{:.2f}×".format)} ({cell("latency_ms", milliseconds)})',
        f'{cell("upsampler_params", count)} of {cell("params", count)}',
        cell('upsampler_macs', count),
    ]


def _safe(text: str) -> str:
    """Keep text from being read as markup, and in its cell."""
    for mark in '\\`*_[]<|':
        text = text.replace(mark, f'\\{mark}')
    return ' '.join(text.split())

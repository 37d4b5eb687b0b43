"""The report: one page, one table and one data file of all that a work dir holds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from mmdysample.engine.files import write_whole
from mmdysample.engine.provenance import provenance
from mmdysample.reproduce.cost import load_cost
from mmdysample.reproduce.pictures import depth_gradient, draw_pictures, embedded
from mmdysample.reproduce.plots import draw_plots, styles, upsampler_of
from mmdysample.reproduce.results import (
    BETTER,
    WORSE,
    Cell,
    Run,
    find_runs,
    summarize,
    write_json,
)
from mmdysample.reproduce.tables import Row, Table, column_label, load_sources

MEMBERS = ('dysample', 'dysample_s', 'dysample_plus', 'dysample_s_plus')
"""Rows of which the overview tells the gain."""

COSTS = ('latency_ms', 'latency_ratio', 'params', 'upsampler_params', 'upsampler_macs')
"""Numbers of a model's cost."""

_ORIGINS = dict(
    revision='revisions of the code',
    device='devices',
    versions='sets of package versions',
    overrides='sets of overrides',
    batch='numbers of images an update',
)


@dataclass
class Section:
    """What is known about one table: what became of its trainings, and their numbers.

    Cells are by row and metric, costs by row. Warnings say what makes the numbers less comparable
    than they look, the note why there are no pictures.
    """

    table: Table
    runs: list[Run]
    cells: dict[str, dict[str, Cell]]
    costs: dict[str, dict[str, Any]]
    warnings: list[str]
    pictures: list[dict[str, Any]]
    pictures_note: str

    @property
    def seeds(self) -> list[int]:
        """All seeds that any row has."""
        return sorted({run.seed for run in self.runs})

    @property
    def finished(self) -> list[Run]:
        """Runs with a result."""
        return [run for run in self.runs if run.record]

    @property
    def training_seconds(self) -> float:
        """Time of all trainings with a result."""
        return sum(run.record.get('training_seconds', 0) for run in self.finished)

    def state(self, row: Row) -> str:
        """Say in words how far a row is; empty if it has every seed that any row has."""
        runs = [run for run in self.runs if run.row == row.name]
        if not runs:
            return 'not run' if row.config else 'no implementation'
        finished = sum(run.state == 'finished' for run in runs)
        parts = [f'{finished} of {len(self.seeds)} seeds finished'] * (finished < len(self.seeds))
        parts += [f'seed {run.seed} {run.state}' for run in runs if run.state != 'finished']
        return '; '.join(parts)

    def origins(self, key: str) -> dict[str, list[str]]:
        """List what results name as their device, revision and so on, with the runs of each."""
        found: dict[str, list[str]] = {}
        for run in self.finished:
            found.setdefault(_words(run.record.get(key)), []).append(f'{run.row} seed {run.seed}')
        return found


def gather(work_dir: Path, table: Table, pictures: Path, count: int) -> Section:
    """Gather what is known about a table, and draw so many pictures into a folder."""
    runs = find_runs(work_dir, table)
    costs = {row: load_cost(work_dir, table, row) for row in table.rows}
    costs = {row: cost for row, cost in costs.items() if cost}
    for row, cost in costs.items():
        base = costs.get((table.compared_with(table.rows[row]) or table.rows[row]).name, {})
        if all(base.get(key) == cost[key] for key in ('device', 'threads', 'image')):
            cost['latency_ratio'] = cost['latency_ms'] / base['latency_ms']
    drawn, note = draw_pictures(table, runs, pictures, count)
    section = Section(table, runs, summarize(table, runs), costs, [], drawn, note)
    section.warnings += _warnings(section)
    return section


def _warnings(section: Section) -> list[str]:
    warnings = []
    for key, what in _ORIGINS.items():
        groups = section.origins(key)
        if len(groups) > 1:
            shown = ' and '.join(f'{_short(name)} ({", ".join(g)})' for name, g in groups.items())
            warnings.append(f'Results come from {len(groups)} {what}: {shown}.')
    for run in section.finished:
        for key in ('revision', 'device'):
            starts = [_short(_words(start.get(key))) for start in run.record.get('starts', [])]
            if len(set(starts)) > 1:
                changes = ', then '.join(dict.fromkeys(starts))
                warnings.append(
                    f'{run.row} seed {run.seed} was resumed with another {key}: {changes}.'
                )
    revisions = set(section.origins('revision'))
    if any(name.endswith('-dirty') for name in revisions):
        warnings.append('The code had changes that are in no revision when some results were made.')
    measured = {_words(cost.get('revision')) for cost in section.costs.values()}
    if revisions and measured - revisions:
        warnings.append('Costs were measured at another revision than the results.')
    batches = section.origins('batch').keys() - {_words(section.table.batch), 'unknown'}
    if section.table.batch and batches:
        warnings.append(
            f'Updates had {" or ".join(sorted(batches))} images; the schedule is made for '
            f'{section.table.batch}.'
        )
    return warnings


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ', '.join(map(str, value.values()))
    return ' '.join(map(str, value)) if isinstance(value, list) else str(value or 'unknown')


def _short(name: str) -> str:
    """Cut a revision to what tells it from others; leave other words as they are."""
    head, dash, tail = name.partition('-')
    is_hash = len(head) == 40 and all(letter in '0123456789abcdef' for letter in head)
    return f'{head[:12]}{dash}{tail}' if is_hash else name or 'none'


def to_frame(sections: Sequence[Section]) -> pd.DataFrame:
    """List every number of a report, unrounded, one a line.

    Returns:
        DataFrame: ``scale``, ``table``, ``row``, ``seed`` (of measured numbers alone), ``kind``
        ('measured', 'cost' or 'published', which is of full scale), ``column``, ``value`` (of
        published ones as printed), ``unit``, and of published ones ``status`` and ``source``.
    """
    lines = []
    for section in sections:
        table = section.table
        head = dict(scale=table.scale, table=table.name)
        for run in section.finished:
            measured = dict(head, row=run.row, seed=run.seed, kind='measured')
            for column, value in run.record['metrics'].items():
                lines.append(dict(measured, column=column, value=value))
        for row, cost in section.costs.items():
            known = {column: cost[column] for column in COSTS if column in cost}
            for column, value in known.items():
                lines.append(dict(head, row=row, kind='cost', column=column, value=value))
        for row in table.rows.values():
            for column, number in row.published.items():
                line = dict(head, scale='full', row=row.name, kind='published', column=column)
                line['status'] = 'confirmed' if number.confirmed else 'recalled'
                lines.append(dict(line, value=number.value, source=number.source))
    columns = ['scale', 'table', 'row', 'seed', 'kind', 'column', 'value', 'unit']
    frame = pd.DataFrame(lines, columns=[*columns, 'status', 'source'], dtype=object)
    frame['unit'] = frame['column'].map(lambda column: column_label(column)[1])
    return frame.astype({'seed': 'Int64'})


def fixed(value: float, digits: int = 0) -> str:
    """Write a number with that many decimals, a true minus sign and no minus zero."""
    text = f'{value:.{digits}f}'
    return text.lstrip('-') if float(text) == 0 else text.replace('-', '−')


def signed(value: float, digits: int) -> str:
    """Write a difference: as :func:`fixed`, with a plus sign where it is above zero."""
    text = fixed(value, digits)
    return text if text.startswith('−') or float(text) == 0 else f'+{text}'


def three_digits(value: float, unit: str = '') -> str:
    """Write a cost to three digits; without a unit with K, M or G for large numbers."""
    for letter, size in (('G', 1e9), ('M', 1e6), ('K', 1e3)):
        if not unit and abs(value) >= 0.9995 * size:
            return three_digits(value / size, letter)
    if not unit:
        return f'{value:.0f}'
    whole = math.floor(math.log10(abs(float(f'{value:.3g}')))) + 1 if value else 1
    return f'{value:.{min(max(3 - whole, 0), 3)}f} {unit}'


def duration(seconds: float) -> str:
    """Write a time: seconds, minutes, or hours and minutes."""
    if seconds < 90:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    return f'{minutes} min' if minutes < 120 else f'{minutes // 60} h {minutes % 60} min'


def to_markdown(sections: Sequence[Section], made: dict[str, Any]) -> str:
    """Write the tables as Markdown."""
    parts = [
        '# Reproduced tables',
        'Mean over seeds ± half of its 95 % confidence interval. A gain is paired by seed; it is '
        'beyond noise if its interval excludes zero. † recalled from the paper, not read again.',
    ]
    for section in sections:
        rows = section.table.rows.values()
        parts.append(f'## {_safe(section.table.title)}')
        parts += [f'**Mind:** {_safe(warning)}' for warning in section.warnings]
        parts.append(_grid([_measured_line(section, row) for row in rows]))
        published = [_published_line(section.table, row) for row in rows if row.published]
        if published:
            parts += ['As published at full scale:', _grid(published)]
        if section.pictures_note:
            parts.append(f'No pictures: {_safe(section.pictures_note)}')
        for picture in section.pictures:
            parts.append(f'![{_safe(" | ".join(picture["titles"]))}](pictures/{picture["file"]})')
        parts.append(
            f'{len(section.finished)} of {len(section.runs)} runs finished, '
            f'{duration(section.training_seconds)} of training.'
        )
        told = {key: '; '.join(section.origins(key)) for key in _ORIGINS if section.finished}
        parts.append('\n'.join(f'- {key}: {_safe(words)}' for key, words in told.items()))
    parts.append(f'Written {made["time"]} by `{made["command"]}`, revision {made["revision"]}.')
    return '\n\n'.join(part for part in parts if part) + '\n'


def _measured_line(section: Section, row: Row) -> dict[str, str]:
    table = section.table
    runs = [run for run in section.runs if run.row == row.name]
    line = {'upsampler': row.name, 'seeds': str(sum(run.state == 'finished' for run in runs))}
    for column, metric in table.metrics.items():
        cell = section.cells[row.name].get(column)
        label = column_label(column)[0]
        heading = _heading(column) + (' (less is better)' if metric.lower else '')
        line[heading] = _with_band(cell and cell.mean, cell and cell.band, metric.digits, fixed)
        gain = _with_band(cell and cell.gain, cell and cell.gain_band, metric.digits, signed)
        line[f'gain in {label}'] = f'{gain} ({cell.verdict})' if cell and cell.verdict else gain
        if table.scale == 'full':
            line[f'published {label}'] = _printed(row, column)
            difference = cell.difference if cell else None
            line[f'{label} − published'] = _with_band(difference, None, metric.digits, signed)
    cost = section.costs.get(row.name)
    if section.costs:
        line['latency'] = three_digits(cost['latency_ms'], 'ms') if cost else '–'
        line['upsamplers’ parameters'] = three_digits(cost['upsampler_params']) if cost else '–'
        line['upsamplers’ MACs'] = three_digits(cost['upsampler_macs']) if cost else '–'
    errors = [f'seed {run.seed}: {run.error.splitlines()[0]}' for run in runs if run.error]
    line['state'] = '; '.join(filter(None, [section.state(row), *errors]))
    return line


def _published_line(table: Table, row: Row) -> dict[str, str]:
    return {'upsampler': row.name} | {_heading(c): _printed(row, c) for c in table.columns}


def _with_band(
    mean: float | None, band: float | None, digits: int, write: Callable[[float, int], str]
) -> str:
    if mean is None:
        return '–'
    return write(mean, digits) + ('' if band is None else f' ± {fixed(band, digits)}')


def _heading(column: str) -> str:
    label, unit = column_label(column)
    return f'{label}, {unit}' if unit else label


def _printed(row: Row, column: str) -> str:
    number = row.published.get(column)
    return '–' if number is None else f'{number.value}{"" if number.confirmed else " †"}'


def _grid(lines: Any) -> str:
    frame = pd.DataFrame(lines).rename(columns=_safe).map(_safe)
    align = ['left', *['right'] * (len(frame.columns) - 1)]
    return frame.to_markdown(index=False, disable_numparse=True, colalign=align)


def _safe(text: str) -> str:
    """Keep text from being read as markup, and in its cell."""
    for mark in '\\`*_[]<|':
        text = text.replace(mark, f'\\{mark}')
    return ' '.join(text.split())


def to_html(sections: Sequence[Section], made: dict[str, Any], pictures: Path) -> str:
    """Write the page. It needs no other file and no network."""
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder), autoescape=True, lstrip_blocks=True, trim_blocks=True
    )
    environment.filters |= dict(
        fixed=fixed, signed=signed, cost=three_digits, duration=duration, label=column_label
    )
    return environment.get_template('page.html').render(
        sections=sections,
        made=made,
        css=Markup((folder / 'page.css').read_text(encoding='utf-8')),
        sources=load_sources(),
        members=MEMBERS,
        member_row=_member_row,
        styles=styles,
        plots=lambda section: draw_plots(section.table, section.runs, section.cells),
        sources_of=lambda row: dict.fromkeys((n.source, n.note) for n in row.published.values()),
        embedded=lambda picture: embedded(pictures / picture['file']),
        depth_gradient=depth_gradient,
        BETTER=BETTER,
        WORSE=WORSE,
    )


def _member_row(section: Section, member: str) -> str | None:
    """Find a member of DySample among the rows that are compared with the first one."""
    for row in section.table.rows.values():
        base = section.table.compared_with(row)
        if upsampler_of(row.name) == member and base is section.table.baseline:
            return row.name
    return None


def write_report(work_dir: Path, tables: Sequence[Table], out: Path, *, pictures: int = 3) -> Path:
    """Write ``report.html``, ``report.md``, ``report.csv`` and ``report.json``.

    Args:
        work_dir (Path): Folder of all results; it need not exist.
        tables (Sequence[Table]): What to report, in this order.
        out (Path): Folder to write to. Pictures go to ``out/pictures``.
        pictures (int): Validation images to show for each table. Defaults to 3.

    Returns:
        Path: The page.

    Raises:
        UnwritableFileError: If a file can't be written. Each is the old or the new one, whole.
    """
    work_dir, out = Path(work_dir), Path(out)
    made = dict(provenance(), time=time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()))
    sections = [gather(work_dir, table, out / 'pictures', pictures) for table in tables]
    page = out / 'report.html'
    write_json(page.with_suffix('.json'), _plain(sections, made, work_dir))
    files = {
        '.csv': to_frame(sections).to_csv(index=False),
        '.md': to_markdown(sections, made),
        '.html': to_html(sections, made, out / 'pictures'),
    }
    for suffix, text in files.items():
        write_whole(page.with_suffix(suffix), text.encode())
    return page


def _plain(sections: Sequence[Section], made: dict[str, Any], work_dir: Path) -> dict[str, Any]:
    """Turn a report into plain types, without what the trainings logged."""
    plain = [asdict(section) for section in sections]
    for section in plain:
        for run in section['runs']:
            run['record'].pop('scalars', None)
            run['folder'] = str(run['folder'].relative_to(work_dir))
    return dict(made=made, sources=load_sources(), sections=plain)

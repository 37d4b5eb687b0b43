"""The report: one page, one table and one data file of all that a work dir holds."""

from __future__ import annotations

import base64
import io
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from PIL import Image

from mmdysample.engine.files import write_whole
from mmdysample.engine.provenance import provenance
from mmdysample.reproduce.cost import load_cost
from mmdysample.reproduce.pictures import draw_pictures
from mmdysample.reproduce.plots import (
    curve_plot,
    dot_plot,
    learning_curves,
    styles,
    upsampler_of,
)
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

COSTS = {
    'latency_ms': 'ms',
    'latency_ratio': '',
    'params': '',
    'upsampler_params': '',
    'upsampler_macs': '',
}
"""Columns of costs, and their units."""

_ORIGINS = dict(
    revision='revisions of the code',
    device='devices',
    versions='sets of package versions',
    overrides='sets of overrides',
    batch='numbers of images an update',
)


@dataclass
class Section:
    """What is known about one table.

    Args:
        table (Table): The table.
        runs (list[Run]): What became of its trainings.
        cells (dict): Its numbers over seeds, by row and metric.
        costs (dict): Cost of the models, by row.
        warnings (list[str]): What makes the numbers less comparable than they look.
        pictures (list[dict]): Of :func:`mmdysample.reproduce.pictures.draw_pictures`.
        pictures_note (str): Why there is none.
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
    """Gather what is known about a table, and draw its pictures.

    Args:
        work_dir (Path): Folder of all results; it need not exist.
        table (Table): The table.
        pictures (Path): Folder of the pictures.
        count (int): How many pictures to draw.
    """
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
        ('measured', 'cost' or 'published', which is of full scale), ``column``, ``value`` (text
        for published ones, as printed), ``unit``, ``status`` and ``source`` of published ones.
    """
    lines = []
    for section in sections:
        table = section.table
        for run in section.finished:
            for column, value in run.record['metrics'].items():
                unit = column_label(column)[1]
                line = dict(row=run.row, seed=run.seed, kind='measured', value=value, unit=unit)
                lines.append(dict(line, scale=table.scale, table=table.name, column=column))
        for row, cost in section.costs.items():
            for column, unit in COSTS.items():
                if column in cost:
                    line = dict(row=row, kind='cost', value=cost[column], unit=unit)
                    lines.append(dict(line, scale=table.scale, table=table.name, column=column))
        for row in table.rows.values():
            for column, number in row.published.items():
                line = dict(scale='full', table=table.name, row=row.name, kind='published')
                line |= dict(column=column, value=number.value, unit=column_label(column)[1])
                line['status'] = 'confirmed' if number.confirmed else 'recalled'
                lines.append(dict(line, source=number.source))
    columns = ['scale', 'table', 'row', 'seed', 'kind', 'column', 'value', 'unit']
    frame = pd.DataFrame(lines, columns=[*columns, 'status', 'source'], dtype=object)
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
        'beyond noise if its interval excludes zero.',
    ]
    for section in sections:
        table = section.table
        parts += [f'## {_safe(table.title)}']
        parts += [f'**Mind:** {_safe(warning)}' for warning in section.warnings]
        parts.append(_grid([_measured_line(section, row) for row in table.rows.values()]))
        published = [row for row in table.rows.values() if row.published]
        if published:
            parts.append('As published at full scale; † recalled from the paper, not read again:')
            columns = {column: _heading(column) for column in table.columns}
            parts.append(
                _grid(
                    {'upsampler': row.name}
                    | {name: _printed(row, column) for column, name in columns.items()}
                    for row in published
                )
            )
        if section.pictures_note:
            parts.append(f'No pictures: {_safe(section.pictures_note)}')
        for picture in section.pictures:
            parts.append(f'![{_safe(" | ".join(picture["titles"]))}](pictures/{picture["file"]})')
        seeds = ', '.join(map(str, section.seeds)) or 'none'
        parts.append(
            f'{len(section.finished)} of {len(section.runs)} runs finished, '
            f'{duration(section.training_seconds)} of training; seeds {seeds}.'
        )
        parts.append(
            '\n'.join(
                f'- {key}: {_safe("; ".join(section.origins(key)))}'
                for key in ('device', 'versions', 'revision', 'overrides')
                if section.finished
            )
        )
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
    """Write the page. It needs no other file and no network.

    Args:
        sections (Sequence[Section]): The tables.
        made (dict): Where and when.
        pictures (Path): Folder of the pictures that the sections name.
    """
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
        plots=_plots,
        sources_of=lambda row: dict.fromkeys((n.source, n.note) for n in row.published.values()),
        embedded=lambda picture: _embedded(pictures / picture['file']),
        depth_gradient=_depth_gradient,
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


def _plots(section: Section) -> list[tuple[str, Markup]]:
    """Draw a table's plots, each with its caption."""
    table, key = section.table, f'{section.table.scale}-{section.table.name}'
    curves = learning_curves(table, section.runs)
    label = column_label(table.leading)[0]
    logged = [line for run in section.finished for line in run.record.get('scalars', [])]
    axis = 'epoch' if any('epoch' in line for line in logged) else 'iteration'
    many = len(section.seeds) > 1
    over = ': mean over seeds, and from the least to the greatest' if many else ''
    interval = ', the bar its 95 % interval' if many else ''
    published = '; diamonds: published' if table.scale == 'full' else ''
    loss = curve_plot(table, curves['loss'], f'loss-{key}', 'iteration', 'loss', log=True)
    validation = curve_plot(table, curves['validation'], f'validation-{key}', axis, label)
    drawn = [
        (
            f'Every dot is a seed, the stroke their mean{interval}{published}.',
            dot_plot(table, section.cells, f'dots-{key}'),
        ),
        (f'Loss in training, smoothed{over}.', loss),
        (f'{label} in validation{over}.', validation),
    ]
    return [(caption, Markup(svg)) for caption, svg in drawn if svg]


def _embedded(path: Path) -> str:
    """Put a picture into an address; as WebP, which keeps a page of many pictures small."""
    content = io.BytesIO()
    with Image.open(path) as picture:
        picture.save(content, 'WEBP', quality=88)
    return f'data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}'


def _depth_gradient() -> str:
    """Write the colours of depth as CSS."""
    import numpy as np

    from mmdysample.depth.visualizer import colour_depth

    colours = colour_depth(np.linspace(1, 2, 12)[None], (1, 2))[0]
    stops = ', '.join(f'rgb({r} {g} {b})' for r, g, b in colours.tolist())
    return f'linear-gradient(to right, {stops})'


def write_report(work_dir: Path, tables: Sequence[Table], out: Path, *, pictures: int = 3) -> Path:
    """Write ``report.html``, ``report.md``, ``report.csv`` and ``report.json``.

    Runs that are not finished, failed, or have a damaged result are shown as that.

    Args:
        work_dir (Path): Folder of all results.
        tables (Sequence[Table]): What to report, in this order.
        out (Path): Folder to write to; it is made if need be. Pictures go to ``out/pictures``.
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

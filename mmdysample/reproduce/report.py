"""The report: one page, one table and one data file of all that a work dir holds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, select_autoescape
from matplotlib.ticker import EngFormatter

from mmdysample.engine.files import write_whole
from mmdysample.engine.provenance import provenance
from mmdysample.reproduce.cost import load_cost
from mmdysample.reproduce.pictures import depth_gradient, draw_pictures, embedded
from mmdysample.reproduce.plots import draw_plots, styles, upsampler_of
from mmdysample.reproduce.results import BETTER, WORSE, Cell, Run, find_runs, summarize
from mmdysample.reproduce.tables import Row, Table, column_label, load_sources

MEMBERS = ('dysample', 'dysample_s', 'dysample_plus', 'dysample_s_plus')
"""Rows of which the overview tells the gain."""

COSTS = ('latency_ms', 'latency_ratio', 'params', 'upsampler_params', 'upsampler_macs')

_ORIGINS = dict(
    revision='revisions of the code',
    device='devices',
    versions='sets of package versions',
    overrides='sets of overrides',
    batch='numbers of images an update',
)
_HASH = re.compile(r'\b([0-9a-f]{12})[0-9a-f]{28}\b')


@dataclass
class Section:
    """What is known about one table: what became of its trainings, and their numbers.

    Cells are by row and metric, costs by row. The note says why there are no pictures.
    """

    table: Table
    runs: list[Run]
    cells: dict[str, dict[str, Cell]]
    costs: dict[str, dict[str, Any]]
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

    def runs_of(self, row: Row) -> list[Run]:
        """Choose the runs of one row."""
        return [run for run in self.runs if run.row == row.name]

    def state(self, row: Row) -> str:
        """Say in words how far a row is; empty if it has every seed that any row has."""
        runs = self.runs_of(row)
        if not runs:
            return 'not run'
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

    @property
    def warnings(self) -> list[str]:
        """What makes the numbers less comparable than they look."""
        warnings = []
        for key, name in _ORIGINS.items():
            groups = self.origins(key)
            if len(groups) > 1:
                shown = ' and '.join(f'{value} ({", ".join(g)})' for value, g in groups.items())
                warnings.append(f'Results come from {len(groups)} {name}: {shown}.')
        for run in self.finished:
            for key in ('revision', 'device'):
                found = dict.fromkeys(_words(s.get(key)) for s in run.record.get('starts', []))
                if len(found) > 1:
                    warnings.append(
                        f'{run.row} seed {run.seed} was resumed with another {key}: '
                        f'{", then ".join(found)}.'
                    )
        revisions = self.origins('revision').keys()
        if any(name.endswith('-dirty') for name in revisions):
            warnings.append(
                'The code had changes that are in no revision when some results were made.'
            )
        if revisions and {_words(c.get('revision')) for c in self.costs.values()} - revisions:
            warnings.append('Costs were measured at another revision than the results.')
        batches = self.origins('batch').keys() - {_words(self.table.batch), 'unknown'}
        if self.table.batch and batches:
            warnings.append(
                f'Updates had {" or ".join(sorted(batches))} images; the schedule is made for '
                f'{self.table.batch}.'
            )
        return [_HASH.sub(r'\1', warning) for warning in warnings]

    def member(self, name: str) -> str | None:
        """Find a member of DySample among the rows that are compared with the first one."""
        for row in self.table.rows.values():
            base = self.table.compared_with(row)
            if upsampler_of(row.name) == name and base is self.table.baseline:
                return row.name
        return None


def gather(work_dir: Path, table: Table, pictures: Path, count: int) -> Section:
    """Gather what is known about a table, and draw ``count`` pictures into a folder."""
    runs = find_runs(work_dir, table)
    costs = {row: load_cost(work_dir, table, row) for row in table.rows}
    costs = {row: cost for row, cost in costs.items() if cost}
    for row, cost in costs.items():
        base = costs.get((table.compared_with(table.rows[row]) or table.rows[row]).name, {})
        if all(base.get(key) == cost[key] for key in ('device', 'threads', 'image')):
            cost['latency_ratio'] = cost['latency_ms'] / base['latency_ms']
    drawn, note = draw_pictures(table, runs, pictures, count)
    return Section(table, runs, summarize(table, runs), costs, drawn, note)


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ', '.join(map(str, value.values()))
    if isinstance(value, list):
        return ' '.join(map(str, value)) or 'none'
    return str(value or 'unknown')


def to_frame(sections: Sequence[Section]) -> pd.DataFrame:
    """List every number of a report, unrounded, one a line.

    Returns:
        DataFrame: ``scale``, ``table``, ``row``, ``seed`` (of measured numbers alone), ``kind``
        ('measured', 'mean', 'gain', 'cost' or 'published', which is of full scale), ``column``,
        ``value`` (of published ones as printed), ``band`` and ``verdict`` of means and gains (see
        :class:`Cell`), ``unit``, and of published ones ``status`` and ``source``.
    """
    lines = []
    for section in sections:
        table = section.table
        head = dict(scale=table.scale, table=table.name)
        for run in section.finished:
            for column, value in run.record['metrics'].items():
                own = dict(row=run.row, seed=run.seed, kind='measured', column=column)
                lines.append(dict(head, **own, value=value))
        for row in table.rows.values():
            own = dict(head, row=row.name)
            for column, cell in section.cells[row.name].items():
                line = dict(own, column=column)
                lines.append(dict(line, kind='mean', value=cell.mean, band=cell.band))
                if cell.verdict:
                    line |= dict(kind='gain', verdict=cell.verdict)
                    lines.append(dict(line, value=cell.gain, band=cell.gain_band))
            cost = section.costs.get(row.name, {})
            for column in [column for column in COSTS if column in cost]:
                lines.append(dict(own, kind='cost', column=column, value=cost[column]))
            for column, number in row.published.items():
                line = dict(own, scale='full', kind='published', column=column, value=number.value)
                line['status'] = 'confirmed' if number.confirmed else 'recalled'
                lines.append(dict(line, source=number.source))
    columns = ['scale', 'table', 'row', 'seed', 'kind', 'column', 'value', 'band', 'verdict']
    frame = pd.DataFrame(lines, columns=[*columns, 'unit', 'status', 'source'], dtype=object)
    frame['unit'] = frame['column'].map(lambda column: column_label(column)[1])
    return frame.astype({'seed': 'Int64'})


def fixed(value: float, digits: int = 0, sign: str = '') -> str:
    """Write a number with that many decimals, a true minus sign and no minus zero."""
    value = round(value, digits) + 0.0
    return f'{value:{sign if value else ""}.{digits}f}'.replace('-', '−')


def three_digits(value: float, unit: str = '') -> str:
    """Write a number to three digits, large and small ones with a letter such as k or m."""
    return EngFormatter(unit)(float(f'{value:.3g}'))


def escaped(text: str) -> str:
    """Keep text from being read as Markdown, and in its cell."""
    return ' '.join(re.sub(r'([\\`*_\[\]<|])', r'\\\1', text).split())


def render(template: str, sections: Sequence[Section], made: dict[str, Any], pictures: Path) -> str:
    """Fill in ``report.html`` or ``report.md``. The page needs no other file and no network."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(),
        lstrip_blocks=True,
        trim_blocks=True,
    )
    environment.filters |= dict(
        fixed=fixed,
        signed=partial(fixed, sign='+'),
        cost=three_digits,
        duration=lambda seconds: str(timedelta(seconds=round(seconds))),
        label=column_label,
        escaped=escaped,
    )
    return environment.get_template(template).render(
        sections=sections,
        made=made,
        sources=load_sources(),
        members=[m for m in MEMBERS if any(m in section.table.rows for section in sections)],
        styles=styles,
        plots=lambda section: draw_plots(section.table, section.runs, section.cells),
        sources_of=lambda row: dict.fromkeys((n.source, n.note) for n in row.published.values()),
        embedded=lambda picture: embedded(pictures / picture['file']),
        depth_gradient=depth_gradient,
        origins=_ORIGINS,
        BETTER=BETTER,
        WORSE=WORSE,
    )


def write_report(work_dir: Path, tables: Sequence[Table], out: Path, *, pictures: int = 3) -> Path:
    """Write ``report.html``, ``report.md`` and ``report.csv``.

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
    work_dir, out, made = Path(work_dir), Path(out), provenance()
    sections = [gather(work_dir, table, out / 'pictures', pictures) for table in tables]
    write_whole(out / 'report.csv', to_frame(sections).to_csv(index=False).encode())
    for name in ('report.md', 'report.html'):
        write_whole(out / name, render(name, sections, made, out / 'pictures').encode())
    return out / 'report.html'

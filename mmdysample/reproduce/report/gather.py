"""The report as one object: every number that a page shows comes from here, unrounded."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmdysample.engine.provenance import provenance
from mmdysample.reproduce.published import PUBLISHED, Figure
from mmdysample.reproduce.report.curves import learning_curves
from mmdysample.reproduce.report.numbers import label, unit
from mmdysample.reproduce.report.runs import Run, find_runs
from mmdysample.reproduce.results import Result, Summary, cost_file, gain, load_costs, summarize
from mmdysample.reproduce.tables import Row, Table

ONE_SEED = 'one seed: noise unknown'
WITHIN_NOISE = 'within noise'
BETTER = 'better'
WORSE = 'worse'

_HASH = re.compile(r'\b([0-9a-f]{12})[0-9a-f]{28}\b')


def gather(work_dir: Path, tables: Sequence[Table]) -> dict[str, Any]:
    """Gather what is known about some tables.

    Args:
        work_dir (Path): Work dir of the runs; it need not exist.
        tables (Sequence[Table]): What to report.

    Returns:
        dict: ``made`` (where and when), ``sources`` of the published figures, and ``tables``, all
        of plain types.
    """
    import yaml  # comes with the frameworks

    document = yaml.safe_load(PUBLISHED.read_text(encoding='utf-8'))
    when = time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())
    return dict(
        made=dict(provenance(), time=when),
        sources=document['sources'],
        tables=[gather_table(work_dir, table) for table in tables],
    )


def gather_table(work_dir: Path, table: Table) -> dict[str, Any]:
    """Gather what is known about one table."""
    runs = find_runs(work_dir, table)
    results = [run.result for run in runs if run.result]
    costs, cost_note, cost_warning = _costs(work_dir, table)
    seeds = sorted({run.seed for run in runs})
    finished = [run for run in runs if run.state == 'finished']
    warnings = [*_differences(results), *cost_warning]
    revisions = {result.record.get('revision') for result in results}
    if results and costs and cost_note.get('revision') not in revisions:
        warnings.append('The costs were measured at another revision than the results.')
    return dict(
        name=table.name,
        title=table.title,
        task=table.task,
        scale=table.scale,
        columns={
            name: dict(asdict(metric), label=label(name), unit=unit(name))
            for name, metric in table.metrics.items()
        },
        leading=next(iter(table.metrics)),
        published_columns={
            name: dict(label=label(name), unit=unit(name)) for name in table.columns
        },
        baseline=table.baseline.name,
        seeds=seeds,
        rows=[
            _row(table, row, [run for run in runs if run.row == row.name], results, seeds)
            | dict(cost=costs.get(row.name))
            for row in table.rows.values()
        ],
        finished=len(finished),
        started=len(runs),
        training_seconds=sum(r.record.get('training_seconds') or 0 for r in results),
        cost_note=cost_note,
        warnings=warnings,
        provenance=_provenance(results),
        curves=learning_curves(table, results),
        pictures=[],
        pictures_note='',
    )


def _row(
    table: Table, row: Row, runs: Sequence[Run], results: Sequence[Result], seeds: Sequence[int]
) -> dict[str, Any]:
    own = [run.result for run in runs if run.result]
    against = table.compared_with(row)
    baseline = against.name if against else None
    measured, gains, differences = {}, {}, {}
    for column, metric in table.metrics.items():
        values = [result.metrics[column] for result in own if column in result.metrics]
        if not values:
            continue
        summary = summarize(values)
        measured[column] = asdict(summary)
        over = gain(results, row.name, baseline, column) if baseline else None
        if over:
            gains[column] = dict(asdict(over), verdict=_verdict(over, metric.lower))
        figure = row.published.get(column)
        if table.scale == 'full' and figure and figure.confirmed:
            mean = summary.mean - float(figure.value)
            differences[column] = dict(mean=mean, count=summary.count, band=summary.band)
    return dict(
        name=row.name,
        config=row.config,
        baseline=baseline,
        state=_state(row, runs, seeds),
        runs=[_run(run) for run in runs],
        measured=measured,
        gain=gains,
        published={column: _figure(figure) for column, figure in row.published.items()},
        difference=differences,
    )


def _verdict(over: Summary, lower: bool) -> str:
    if over.band is None:
        return ONE_SEED
    if abs(over.mean) <= over.band:
        return WITHIN_NOISE
    return BETTER if (over.mean < 0) == lower else WORSE


def _state(row: Row, runs: Sequence[Run], seeds: Sequence[int]) -> str:
    """Say in words how far a row is; empty if it has every seed that any row has."""
    if not row.config:
        return 'no implementation'
    if not runs:
        return 'not run'
    finished = sum(run.state == 'finished' for run in runs)
    parts = [f'{finished} of {len(seeds)} seeds finished'] if finished < len(seeds) else []
    parts += [f'seed {run.seed} {run.state}' for run in runs if run.state != 'finished']
    return '; '.join(parts)


def _run(run: Run) -> dict[str, Any]:
    record = run.result.record if run.result else {}
    kept = ('training_seconds', 'finished', 'device', 'revision', 'commands', 'interruptions')
    return dict(
        seed=run.seed,
        state=run.state,
        error=run.error,
        log=run.log,
        metrics=run.result.metrics if run.result else {},
        **{key: record.get(key) for key in kept},
    )


def _figure(figure: Figure) -> dict[str, Any]:
    try:
        value: float | None = float(figure.value)
    except ValueError:  # the name of a backbone
        value = None
    return dict(
        text=figure.value,
        value=value,
        status='confirmed' if figure.confirmed else 'recalled',
        source=figure.source,
        note=figure.note,
    )


def _costs(work_dir: Path, table: Table) -> tuple[dict, dict, list[str]]:
    """Read the costs, where they were measured, and what is wrong with them."""
    path = cost_file(work_dir, table)
    try:
        costs = load_costs(work_dir, table)
        record = json.loads(path.read_text(encoding='utf-8')) if costs else {}
        if not all(isinstance(cost, dict) for cost in dict(costs).values()):
            raise TypeError('a row is no object')
    except (OSError, ValueError, KeyError, TypeError) as error:
        return {}, {}, [f'{path.relative_to(work_dir)} is damaged ({error!r}): no costs are shown.']
    return costs, {key: value for key, value in record.items() if key != 'rows'}, []


def _differences(results: Sequence[Result]) -> list[str]:
    """Say in which ways the results of one table do not come from one and the same setting."""
    words = dict(
        revision='revisions of the code',
        device='devices',
        versions='sets of package versions',
        overrides='sets of overrides',
    )
    warnings = []
    for key, what in words.items():
        groups = _groups(results, key)
        if len(groups) > 1:
            shown = ' and '.join(
                f'{_short(name)} ({_runs(group)})' for name, group in groups.items()
            )
            warnings.append(f'Results come from {len(groups)} {what}: {shown}.')
    dirty = [name for name in _groups(results, 'revision') if name.endswith('-dirty')]
    if dirty:
        warnings.append('The code had changes that are in no revision when some results were made.')
    return warnings


def _groups(results: Iterable[Result], key: str) -> dict[str, list[Result]]:
    """Sort runs by what their records say about something."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(_words(result.record.get(key)), []).append(result)
    return groups


def _short(name: str) -> str:
    """Cut revisions to what tells them apart."""
    return _HASH.sub(r'\1', name) or 'none'


def _runs(results: Sequence[Result]) -> str:
    """Name runs: each row once, with its seeds."""
    seeds: dict[str, list[str]] = {}
    for result in results:
        seeds.setdefault(result.row, []).append(str(result.seed))
    return '; '.join(
        f'{row} seed{"s" if len(found) > 1 else ""} {", ".join(found)}'
        for row, found in seeds.items()
    )


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ', '.join(map(str, value.values()))
    return ' '.join(map(str, value)) if isinstance(value, list) else str(value or 'unknown')


def _provenance(results: Sequence[Result]) -> dict[str, list[str]]:
    """List the devices, versions and so on that results name, each once."""
    keys = ('device', 'revision', 'versions', 'python', 'platform', 'overrides')
    listed = {key: [name for name in _groups(results, key) if name] for key in keys}
    commands = [line for result in results for line in result.record.get('commands') or []]
    return dict(listed, commands=list(dict.fromkeys(commands)))

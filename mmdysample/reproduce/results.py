"""What became of every training of a table, and its numbers summed up over seeds."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from mmdysample.engine.errors import UsageError
from mmdysample.reproduce.tables import Table

RESULT, FAILURE, COST = 'result.json', 'failure.json', 'cost.json'
ONE_SEED, WITHIN_NOISE = 'one seed: noise unknown', 'within noise'
BETTER, WORSE = 'better', 'worse'


@dataclass(frozen=True)
class Run:
    """A training and its test, whatever became of them.

    The state is 'finished', 'failed', 'damaged' (its result cannot be used) or 'unfinished'. The
    record is the whole ``result.json`` of a finished run, as :meth:`Job._record` writes it.
    """

    row: str
    seed: int
    state: str
    folder: Path
    record: dict[str, Any] = field(default_factory=dict)
    error: str = ''


@dataclass(frozen=True)
class Cell:
    """A metric of a row over seeds.

    A band is half the width of a mean's 95 % confidence interval; None with one seed, which says
    nothing about noise. The gain is the mean of the differences to the baseline, seed by seed; None
    where there is none. The difference is that to a confirmed published number of the same scale.
    """

    mean: float
    band: float | None
    values: list[float]
    gain: float | None = None
    gain_band: float | None = None
    verdict: str = ''
    difference: float | None = None


def run_folder(work_dir: Path, table: Table, row: str, seed: int) -> Path:
    """Say where a training and its test have their files."""
    return work_dir / table.scale / table.name / row / f'seed{seed}'


def cost_file(work_dir: Path, table: Table, row: str) -> Path:
    """Say where the cost of a row's model is noted."""
    return run_folder(work_dir, table, row, 0).with_name(COST)


def find_runs(work_dir: Path, table: Table) -> list[Run]:
    """Find all runs of a table, by row in the table's order and by seed.

    A run that cannot be read does not hide the others. Folders of other names, such as
    ``seed0.old``, are ignored.
    """
    runs = []
    for row in table.rows:
        names = (path.name for path in run_folder(work_dir, table, row, 0).parent.glob('seed*'))
        seeds = sorted(int(name[4:]) for name in names if re.fullmatch(r'seed\d+', name))
        runs += [_read_run(work_dir, table, row, seed) for seed in seeds]
    return runs


def _read_run(work_dir: Path, table: Table, row: str, seed: int) -> Run:
    folder = run_folder(work_dir, table, row, seed)
    state, record, error = 'unfinished', {}, ''
    try:
        if (folder / RESULT).exists():
            state, record = 'finished', read_result(folder / RESULT, row, seed)
        elif (folder / FAILURE).exists():
            state, error = 'failed', json.loads((folder / FAILURE).read_text())['error'].strip()
    except (UsageError, OSError, ValueError, KeyError, TypeError) as damage:
        state, error = 'damaged', str(damage)
    return Run(row, seed, state, folder, record, error.replace(f'{work_dir}/', ''))


def read_result(path: Path, row: str, seed: int) -> dict[str, Any]:
    """Read a result.

    Raises:
        UsageError: If it is damaged, or the result of another row or seed.
    """
    try:
        record = json.loads(path.read_text(encoding='utf-8'))
        if (record['row'], record['seed']) != (row, seed):
            raise UsageError(
                f'{path} is the result of {record["row"]!r} with seed {record["seed"]!r}: it lies '
                'in the wrong folder'
            )
        if not all(math.isfinite(value) for value in record['metrics'].values()):
            raise ValueError('a metric is not finite')
        pd.DataFrame(record.get('scalars', []))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f'{path} is damaged ({error!r}); move it away to run again') from error
    return record


def metrics_of(table: Table, test: Mapping[str, float]) -> dict[str, float]:
    """Take a table's columns out of what a test reported, in the columns' units.

    Columns that the test could not measure (COCO's -1, NaN) are left out.

    Raises:
        UsageError: If the table has metrics and the test none of them.
    """
    found = {
        column: test[metric.key] * metric.times
        for column, metric in table.metrics.items()
        if math.isfinite(test.get(metric.key, math.nan)) and test[metric.key] != -1
    }
    if table.metrics and not found:
        keys = ', '.join(metric.key for metric in table.metrics.values())
        raise UsageError(f'the test of {table.name} reported none of {keys}: {dict(test)}')
    return found


def mean_and_band(values: Sequence[float]) -> tuple[float, float | None]:
    """Give the mean, and half the width of its 95 % confidence interval from Student's t.

    With one value the latter is None.

    Raises:
        ValueError: If there is no value.
    """
    from scipy.stats import t  # comes with the frameworks

    values = pd.Series(values, dtype=float)
    if values.empty:
        raise ValueError('values must hold at least one number, got none')
    band = float(t.ppf(0.975, len(values) - 1) * values.sem()) if len(values) > 1 else None
    return float(values.mean()), band


def summarize(table: Table, runs: Sequence[Run]) -> dict[str, dict[str, Cell]]:
    """Sum up a table over seeds: by row and metric, where something was measured.

    The two trainings of a difference have the same seed, so that the order of the images is the
    same too.
    """
    cells: dict[str, dict[str, Cell]] = {name: {} for name in table.rows}
    measured = {
        (metric, run.row, run.seed): float(value)
        for run in runs
        for metric, value in run.record.get('metrics', {}).items()
        if metric in table.metrics
    }
    by_seed = pd.Series(measured).unstack() if measured else pd.DataFrame()
    for metric, row in by_seed.index:
        own = by_seed.loc[(metric, row)]
        mean, band = mean_and_band(own.dropna())
        more: dict[str, Any] = {}
        baseline = table.compared_with(table.rows[row])
        if baseline and (metric, baseline.name) in by_seed.index:
            gains = (own - by_seed.loc[(metric, baseline.name)]).dropna()
            if len(gains):
                gain, gain_band = mean_and_band(gains)
                verdict = _verdict(gain, gain_band, table.metrics[metric].lower)
                more = dict(gain=gain, gain_band=gain_band, verdict=verdict)
        published = table.rows[row].published.get(metric)
        if table.scale == 'full' and published and published.confirmed:
            more['difference'] = mean - float(published.value)
        cells[row][metric] = Cell(mean, band, own.dropna().tolist(), **more)
    return cells


def _verdict(gain: float, band: float | None, lower: bool) -> str:
    if band is None:
        return ONE_SEED
    if abs(gain) <= band:
        return WITHIN_NOISE
    return BETTER if (gain < 0) == lower else WORSE

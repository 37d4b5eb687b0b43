"""What became of every training of a table: finished, failed, damaged, unfinished, or absent."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from mmdysample.engine.errors import UsageError
from mmdysample.reproduce.results import RESULT, Result, read_result, run_folder
from mmdysample.reproduce.tables import Table

FAILURE = 'failure.json'


@dataclass(frozen=True)
class Run:
    """A training and its test, whatever became of it.

    Args:
        row (str): Name of the row.
        seed (int): Random seed.
        state (str): 'finished', 'failed', 'damaged' (there is a result that cannot be used) or
            'unfinished'.
        result (Result, optional): Of a finished run. Defaults to None.
        error (str): What went wrong. Defaults to ''.
        log (str): Where to read on, from the work dir. Defaults to ''.
    """

    row: str
    seed: int
    state: str
    result: Result | None = None
    error: str = ''
    log: str = ''


def find_runs(work_dir: Path, table: Table) -> list[Run]:
    """Find all runs of a table, by row in the table's order and by seed.

    One run that cannot be read keeps no other from being reported.
    """
    runs = []
    for row in table.rows:
        parent = work_dir / table.scale / table.name / row
        names = (path.name.removeprefix('seed') for path in parent.glob('seed*') if path.is_dir())
        seeds = sorted(int(name) for name in names if name.isdecimal())
        runs += [_read_run(work_dir, table, row, seed) for seed in seeds]
    return runs


def _read_run(work_dir: Path, table: Table, row: str, seed: int) -> Run:
    folder = run_folder(work_dir, table, row, seed)
    if (folder / RESULT).exists():
        try:
            return Run(row, seed, 'finished', _checked(read_result(folder), row, seed))
        except (UsageError, OSError) as error:
            text = str(error).replace(f'{work_dir}/', '')
            return Run(row, seed, 'damaged', error=text)
    path = folder / FAILURE
    if not path.exists():
        return Run(row, seed, 'unfinished')
    try:
        failure = json.loads(path.read_text(encoding='utf-8'))
        error, log = str(failure['error']).strip() or 'no reason given', failure.get('log')
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Run(row, seed, 'failed', error=f'{path.relative_to(work_dir)} cannot be read')
    error = error.replace(f'{work_dir}/', '')
    log = f'{folder.relative_to(work_dir)}/{log}' if log else ''
    return Run(row, seed, 'failed', error=error, log=log)


def _checked(result: Result, row: str, seed: int) -> Result:
    """Raise UsageError if a result is another run's, or holds what is no number."""
    path = result.folder / RESULT
    if (result.row, result.seed) != (row, seed):
        raise UsageError(
            f'{path} is the result of {result.row!r} with seed {result.seed!r}: it lies in the '
            'wrong folder'
        )
    metrics = result.metrics
    if not isinstance(metrics, dict) or not all(map(_is_number, metrics.values())):
        raise UsageError(f'{path} is damaged: its metrics are {metrics!r}')
    if not isinstance(result.record.get('scalars') or [], list):
        raise UsageError(f'{path} is damaged: its scalars are no list')
    return result


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)

"""Results on disk: written once, read back, and summed up over seeds."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdysample.engine.errors import UsageError
from mmdysample.reproduce.tables import Table

RESULT = 'result.json'
COST = 'cost.json'


@dataclass(frozen=True)
class Result:
    """One finished training and its test.

    Args:
        row (str): Name of the row.
        seed (int): Random seed of the training.
        metrics (dict[str, float]): What the test gave, by column and in the column's unit; columns
            that the test could not measure (COCO's -1, NaN) are left out.
        folder (Path): Where its files are: ``result.json``, ``train/``, ``test/`` and the logs.
        record (dict): The whole ``result.json``: besides ``metrics``, ``test`` (all that the test
            reported), ``scalars`` (what the training logged, in order), ``training_seconds``,
            ``config``, ``config_dump`` (file below the folder), ``checkpoint`` (the same),
            ``overrides``, ``device``, ``python``, ``platform``, ``versions``, ``revision``,
            ``commands``, ``interruptions`` and ``finished`` (UTC).
    """

    row: str
    seed: int
    metrics: dict[str, float]
    folder: Path
    record: dict[str, Any]


@dataclass(frozen=True)
class Summary:
    """A quantity over seeds.

    Args:
        mean (float): Its mean.
        count (int): Number of seeds.
        band (float, optional): Half the width of the mean's 95 % confidence interval, from
            Student's t; None with one seed, which says nothing about noise.
        values (tuple[float, ...]): One for each seed.
    """

    mean: float
    count: int
    band: float | None
    values: tuple[float, ...]


def run_folder(work_dir: Path, table: Table, row: str, seed: int) -> Path:
    """Say where a training and its test have their files."""
    return work_dir / table.scale / table.name / row / f'seed{seed}'


def cost_file(work_dir: Path, table: Table) -> Path:
    """Say where the cost of a table's models is noted."""
    return work_dir / table.scale / table.name / COST


def metrics_of(table: Table, test: Mapping[str, float]) -> dict[str, float]:
    """Take a table's columns out of what a test reported.

    Raises:
        UsageError: If the test has none of the table's metrics.
    """
    found = {
        column: test[metric.key] * metric.times
        for column, metric in table.metrics.items()
        if metric.key in test and math.isfinite(test[metric.key]) and test[metric.key] != -1
    }
    if not found:
        keys = ', '.join(metric.key for metric in table.metrics.values())
        raise UsageError(f'the test of {table.name} reported none of {keys}: {dict(test)}')
    return found


def write_once(path: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON file that does not exist yet; it appears whole or not at all.

    Raises:
        FileExistsError: If there is such a file. It stays as it is.
    """
    draft = path.with_suffix(f'.{os.getpid()}.part')
    with draft.open('w', encoding='utf-8') as file:
        json.dump(record, file, indent=1)
        file.write('\n')
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)  # unlike a rename, never replaces
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if path.exists():
            raise FileExistsError(f'{path} exists') from None
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)


def load_results(work_dir: Path, table: Table) -> list[Result]:
    """Read the finished runs of a table, by row in the table's order and by seed.

    Raises:
        UsageError: If a result file is damaged.
    """
    results = []
    for row in table.rows:
        folders = (work_dir / table.scale / table.name / row).glob('seed*')
        for folder in sorted(folders, key=lambda path: int(path.name.removeprefix('seed'))):
            if (folder / RESULT).exists():
                results.append(read_result(folder))
    return results


def read_result(folder: Path) -> Result:
    """Read the result in a folder.

    Raises:
        UsageError: If it is damaged.
    """
    path = folder / RESULT
    try:
        record = json.loads(path.read_text(encoding='utf-8'))
        return Result(record['row'], record['seed'], record['metrics'], folder, record)
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f'{path} is damaged ({error!r}); move it away to run again') from error


def load_costs(work_dir: Path, table: Table) -> dict[str, dict[str, float]]:
    """Read what a table's models cost, by row; empty if that was not measured.

    Each has ``params``, ``upsampler_params``, ``upsampler_macs``, ``image`` (its height and
    width), ``latency_ms`` (median of one prediction) and ``latency_ratio`` (to the baseline's).
    """
    path = cost_file(work_dir, table)
    return json.loads(path.read_text(encoding='utf-8'))['rows'] if path.exists() else {}


def summarize(values: Sequence[float]) -> Summary:
    """Sum up one number for each seed.

    Raises:
        ValueError: If there is none.
    """
    if not values:
        raise ValueError('values must hold at least one number, got none')
    band = None
    if len(values) > 1:
        from scipy.stats import t  # comes with the frameworks

        quantile = float(t.ppf(0.975, len(values) - 1))
        band = quantile * statistics.stdev(values) / math.sqrt(len(values))
    return Summary(statistics.fmean(values), len(values), band, tuple(values))


def gain(results: Sequence[Result], row: str, baseline: str, column: str) -> Summary | None:
    """Sum up a row's difference to the baseline, seed by seed.

    Both trainings of a pair have the seed in common, so that the order of the images and whatever
    else it decides is no part of the difference.

    Args:
        results (Sequence[Result]): Of one table.
        row (str): Name of the row.
        baseline (str): Name of the row to compare with.
        column (str): Which metric.

    Returns:
        Summary: Of the row's value less the baseline's; None if no seed has both.
    """
    by_row = {
        name: {r.seed: r.metrics[column] for r in results if r.row == name and column in r.metrics}
        for name in (row, baseline)
    }
    pairs = sorted(by_row[row].keys() & by_row[baseline].keys())
    if not pairs:
        return None
    return summarize([by_row[row][seed] - by_row[baseline][seed] for seed in pairs])

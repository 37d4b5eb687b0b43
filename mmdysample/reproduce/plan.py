"""What a run would do: jobs, data, hours and disk, without doing it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from mmdysample.engine.data_check import check_data_paths
from mmdysample.engine.errors import MissingDataError
from mmdysample.reproduce.job import Job, load_row_config
from mmdysample.reproduce.results import load_results
from mmdysample.reproduce.tables import Table

PASSES = 3
"""A training step costs one forward pass and a backward pass of twice as much."""

TFLOPS = 20.0
"""Assumed sustained speed of one GPU in training, 1e12 floating-point operations per second.

A round figure for a data-centre GPU in mixed precision or TF32; cost scales with its inverse.
"""

_STATES = {'SGD': 1, 'Adam': 2, 'AdamW': 2}
_BYTES = 4


@dataclass(frozen=True)
class Estimate:
    """What a table would cost.

    Args:
        jobs (int): Trainings in all.
        left (int): Those without a result.
        gpu_hours (float, optional): For those that are left; None if nothing is known.
        basis (str): What the hours rest on.
        disk_gb (float): Checkpoints that would be written.
        missing (str): What is wrong with the data; empty if nothing is.
    """

    jobs: int
    left: int
    gpu_hours: float | None
    basis: str
    disk_gb: float
    missing: str


def estimate(table: Table, jobs: Sequence[Job], work_dir: Path, tflops: float = TFLOPS) -> Estimate:
    """Estimate a table before it is run.

    The hours are those of finished trainings of the table where there are any; else they are
    3 passes x 2 operations per multiply-accumulate x GMACs per image x images / speed.

    Args:
        table (Table): The table.
        jobs (Sequence[Job]): Its jobs.
        work_dir (Path): Folder of all results.
        tflops (float): Assumed speed of a GPU, in 1e12 operations per second. Defaults to
            :data:`TFLOPS`.
    """
    left = [job for job in jobs if not job.finished()]
    hours, basis = _hours(table, work_dir, tflops)
    overrides = jobs[0].settings.overrides
    cfg = load_row_config(table.baseline, overrides)
    return Estimate(
        jobs=len(jobs),
        left=len(left),
        gpu_hours=None if hours is None else hours * len(left),
        basis=basis,
        disk_gb=_checkpoint_gb(table, cfg) * len(left),
        missing=missing_data(table, overrides),
    )


def missing_data(table: Table, overrides: Sequence[str] = ()) -> str:
    """Say which files or folders a table's trainings and tests lack; empty if none.

    Args:
        table (Table): The table. All its rows have the data of the baseline.
        overrides (Sequence[str]): KEY=VALUE entries that change its configs. Defaults to none.
    """
    try:
        cfg = load_row_config(table.baseline, overrides)
        check_data_paths(cfg, splits=('train', 'val', 'test'))
    except MissingDataError as error:
        return str(error)
    return ''


def show_plan(table: Table, jobs: Sequence[Job], found: Estimate, work_dir: Path) -> str:
    """Write the plan of a table for people."""
    free = shutil.disk_usage(_existing(work_dir)).free / 1e9
    hours = 'unknown' if found.gpu_hours is None else f'{found.gpu_hours:,.1f}'
    lines = [
        f'{table.name}: {table.title}',
        f'  {found.jobs} trainings, {found.jobs - found.left} finished, {found.left} to run',
        f'  estimated device hours: {hours} ({found.basis})',
        f'  checkpoints: about {found.disk_gb:,.1f} GB; {free:,.0f} GB are free'
        + ('  NOT ENOUGH' if found.disk_gb > free else ''),
        f'  data: {"there, or made when first used" if not found.missing else found.missing}',
    ]
    for job in jobs:
        state = 'finished' if job.finished() else 'to resume' if job.folder.exists() else 'to run'
        lines.append(f'  {state:<9} {job.row.name:<20} seed {job.seed}  {job.row.config}')
    return '\n'.join(lines)


def _hours(table: Table, work_dir: Path, tflops: float) -> tuple[float | None, str]:
    results = load_results(work_dir, table)
    if results:
        devices = [result.record['settings']['processes'] for result in results]
        seconds = [result.record['training_seconds'] for result in results]
        mean = sum(s * n for s, n in zip(seconds, devices, strict=True)) / len(results)
        return mean / 3600, f'mean of {len(results)} finished here, training alone'
    if not table.train:
        return None, 'nothing finished yet'
    operations = 2 * PASSES * table.train['gmacs'] * 1e9 * table.train['images']
    return (
        operations / (tflops * 1e12) / 3600,
        f'{table.train["images"]:,} images x {table.train["gmacs"]} GMACs x 2 x {PASSES} at an '
        f'assumed {tflops:g} TFLOP/s per GPU',
    )


def _checkpoint_gb(table: Table, cfg: Config) -> float:
    optimizer = cfg.optim_wrapper.optimizer.type
    keep = cfg.default_hooks.get('checkpoint', {}).get('max_keep_ckpts', -1)
    interval = cfg.default_hooks.get('checkpoint', {}).get('interval', 1)
    length = cfg.train_cfg.get('max_epochs') or cfg.train_cfg.get('max_iters', 1)
    written = max(1, length // max(1, interval))
    # One more than is kept exists for a moment.
    count = written if keep < 1 else min(written, keep) + 1
    params = table.train.get('params_m', 1.5) * 1e6
    return params * _BYTES * (1 + _STATES.get(optimizer, 2)) * count / 1e9


def _existing(path: Path) -> Path:
    while not path.exists():
        path = Path(os.path.abspath(path)).parent
    return path

"""What a run would do: jobs, data and hours, without doing it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmdysample.engine.batch import images_per_update
from mmdysample.engine.data_check import check_data_paths
from mmdysample.engine.errors import MissingDataError
from mmdysample.engine.files import free_space
from mmdysample.reproduce.job import Job, load_row_config
from mmdysample.reproduce.results import find_runs
from mmdysample.reproduce.tables import Table

PASSES = 3
"""A training step costs one forward pass and a backward pass of twice as much."""

TFLOPS = 20.0
"""Assumed speed of a GPU in training, 1e12 operations a second: a round figure for one of a data
centre, in mixed precision or TF32."""


def plan_table(
    table: Table, jobs: Sequence[Job], work_dir: Path, tflops: float = TFLOPS
) -> tuple[str, float]:
    """Estimate a table before it is run.

    The hours are those of finished trainings of the table where there are any; else they are
    3 passes x 2 operations per multiply-accumulate x GMACs per image x images / speed.

    Returns:
        tuple: The plan for people, and the hours on one device of what is left to run; 0 where
        they are not known.
    """
    left = sum(not job.finished() for job in jobs)
    hours, basis = _hours(table, work_dir, tflops)
    shown = 'unknown' if hours is None else f'{hours * left:,.1f}'
    missing = missing_data(table, jobs[0].overrides)
    lines = [
        f'{table.name}: {table.title}',
        f'  {len(jobs)} trainings, {len(jobs) - left} finished, {left} to run',
        f'  estimated device hours: {shown} ({basis})',
        f'  batch: {batch_note(jobs[0])}',
        f'  data: {missing or "there, or made when first used"}',
        f'  disk: {free_space(work_dir)} are free',
    ]
    if jobs[0].start:
        lines.append(f'  all rows begin from {jobs[0].start.row.config}, trained before')
    for job in jobs:
        state = 'finished' if job.finished() else 'to resume' if job.folder.exists() else 'to run'
        lines.append(f'  {state:<9} {job.row.name:<20} seed {job.seed}  {job.row.config}')
    return '\n'.join(lines), (hours or 0) * left


def batch_note(job: Job) -> str:
    """Say how many images an update of the weights has, and whether the schedule is for them."""
    cfg = load_row_config(job.row, job.overrides)
    images = images_per_update(cfg, job.processes)
    count = cfg.optim_wrapper.get('accumulative_counts', 1)
    made = f'{cfg.train_dataloader.batch_size} x {job.processes} process(es)'
    made += f' x {count} accumulated' if count > 1 else ''
    note = f'{images} images an update ({made})'
    if job.table.batch is None:
        return note
    if images == job.table.batch:
        return f'{note}, as the schedule is made for'
    remedy = 'its learning rate is not; --keep-batch or another number of GPUs would keep them'
    if '--auto-scale-lr' in job.options:
        remedy = 'its learning rate is scaled'
    return f'{note}, but the schedule is made for {job.table.batch}: {remedy}'


def missing_data(table: Table, overrides: Sequence[str] = ()) -> str:
    """Say which files or folders the trainings and tests of a table lack; empty if none.

    All rows have the data of the baseline.
    """
    try:
        cfg = load_row_config(table.baseline, overrides)
        check_data_paths(cfg, splits=('train', 'val', 'test'))
    except MissingDataError as error:
        return str(error)
    return ''


def _hours(table: Table, work_dir: Path, tflops: float) -> tuple[float | None, str]:
    records = [run.record for run in find_runs(work_dir, table) if run.record]
    if records:
        seconds = [r['training_seconds'] * r['settings']['processes'] for r in records]
        basis = f'mean of {len(records)} finished here, training alone'
        return sum(seconds) / len(records) / 3600, basis
    if not table.train:
        return None, 'nothing finished yet'
    images, gmacs = table.train['images'], table.train['gmacs']
    basis = (
        f'{images:,.0f} images x {gmacs:g} GMACs x 2 x {PASSES} at an assumed {tflops:g} TFLOP/s'
    )
    return 2 * PASSES * gmacs * 1e9 * images / (tflops * 1e12) / 3600, f'{basis} per GPU'

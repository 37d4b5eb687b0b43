"""Reproduce the published tables: list them, plan, run, and report what came out."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from mmdysample.engine.batch import images_per_update, keep_batch
from mmdysample.engine.errors import UsageError
from mmdysample.engine.launch import CfgOptions, run_tool
from mmdysample.engine.processes import devices_for, visible_gpus
from mmdysample.reproduce.job import Job, load_row_config
from mmdysample.reproduce.plan import TFLOPS, batch_note, missing_data, plan_table
from mmdysample.reproduce.run import CPUS_PER_GPU
from mmdysample.reproduce.tables import SCALES, Row, Table, find_tables, load_tables

say = partial(print, flush=True)

QUICK = (
    'train_cfg.max_epochs=1',
    'train_dataloader.dataset.data_root=data/scenes_quick/',
    'train_dataloader.dataset.scenes.num_train=32',
)
"""Overrides for a demo that only shows that everything works: an epoch of 32 pictures."""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog='tools/reproduce.py', description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True)
    flag, number = dict(action='store_true'), dict(type=int, metavar='N')

    tables = argparse.ArgumentParser(add_help=False)
    add = tables.add_argument
    add('tables', nargs='*', metavar='TABLE', help='see list')
    add('--all', **flag, help='every table of the scale')
    add('--scale', choices=SCALES, default='full', help='default: %(default)s')
    add('--work-dir', type=Path, help='folder of all results (default: work_dirs/reproduce)')
    quick = 'with --scale demo: baseline and dysample only, one short epoch, in a folder of its '
    add('--quick', **flag, help=f'{quick}own; shows that everything works and nothing else')

    jobs = argparse.ArgumentParser(add_help=False)
    add = jobs.add_argument
    add('--rows', nargs='+', metavar='ROW', help='rows to run (default: all)')
    seeds = jobs.add_mutually_exclusive_group()
    seeds.add_argument('--seeds', **number, default=1, help='seeds 0 to N-1 (default: 1)')
    seeds.add_argument('--seed', **number, help='this seed alone')
    add('--gpus', **number, help='GPUs of each row (default: 1 if any)')
    add('--jobs', **number, help='rows at a time (default: as the GPUs, or else the cores, allow)')
    launchers = 'pytorch: torchrun on this machine, for more than one GPU a row; slurm: one array '
    launchers += 'job with a task for each training; inside an allocation use pytorch'
    add('--launcher', choices=('none', 'pytorch', 'slurm'), default='none', help=launchers)
    add('--submit', **flag, help='with slurm: submit, instead of saying what would be')
    slurm = "parameters of submitit's executor, e.g. partition=gpu account=me time=1440"
    pairs = dict(nargs='+', metavar='KEY=VALUE')
    add('--slurm-options', **pairs, action=CfgOptions, default={}, help=slurm)
    keep = 'accumulate gradients to the images an update that the schedule is made for (default: '
    keep += 'wherever a smaller batch divides them, unless --auto-scale-lr is given)'
    add('--keep-batch', action=argparse.BooleanOptionalAction, help=keep)
    add('--amp', **flag, help='train in automatic mixed precision')
    add('--auto-scale-lr', **flag, help='scale the learning rate to the batch size')
    overrides = 'override config entries of every row; they are noted with the results'
    add('--cfg-options', **pairs, default=[], help=overrides)

    pictures = argparse.ArgumentParser(add_help=False)
    strips = 'strips for each table (default: %(default)s)'
    pictures.add_argument('--pictures', **number, default=3, help=strips)

    show = commands.add_parser('list', help='the tables and their rows')
    show.add_argument('--scale', choices=SCALES, default='full')
    plan = commands.add_parser('plan', parents=[tables, jobs], help='what run would do')
    speed = 'assumed speed of a GPU in training, 1e12 operations/s (default: %(default)s)'
    plan.add_argument('--tflops', type=float, default=TFLOPS, help=speed)
    again = 'train and test, then report; call it again after an interruption'
    commands.add_parser('run', parents=[tables, jobs, pictures], help=again)
    commands.add_parser('report', parents=[tables, pictures], help='gather what is finished')
    args = parser.parse_args(argv)
    if args.command != 'list':
        _check(parser, args)
    return args


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if bool(args.tables) == args.all and not (args.all or args.command == 'report'):
        parser.error('name tables, or say --all')
    if args.all and args.tables:
        parser.error('--all goes without names of tables')
    if args.quick and args.scale != 'demo':
        parser.error('--quick goes with --scale demo')
    for name in ('seeds', 'jobs', 'gpus'):
        least = 0 if name == 'gpus' else 1
        if getattr(args, name, None) is not None and getattr(args, name) < least:
            parser.error(f'--{name} must be at least {least}, got {getattr(args, name)}')
    if getattr(args, 'keep_batch', None) and args.auto_scale_lr:
        parser.error('--keep-batch and --auto-scale-lr exclude each other')
    if getattr(args, 'gpus', None) and args.gpus > 1 and args.launcher == 'none':
        parser.error(f'--gpus {args.gpus} needs --launcher pytorch or slurm')
    args.work_dir = args.work_dir or Path('work_dirs/reproduce' + '-quick' * args.quick)


def jobs_of(args: argparse.Namespace, tables: Sequence[Table]) -> list[Job]:
    """Make the jobs that the arguments ask for, in the order in which to run them.

    All rows of a seed come before the next seed, and tables whose trainings are long come first,
    so that the last ones finish together.

    Raises:
        UsageError: If a table has no row of a name.
    """
    gpus = gpus_of(args)
    threads = max(1, len(os.sched_getaffinity(0)) // (at_once(args) * max(1, gpus)))
    if args.launcher == 'slurm':  # this machine's cores say nothing about the cluster's
        threads = CPUS_PER_GPU
    torchrun = args.launcher == 'pytorch' or (args.launcher == 'slurm' and gpus > 1)
    options = ('--amp',) * args.amp + ('--auto-scale-lr',) * args.auto_scale_lr
    jobs = []
    for table in sorted(tables, key=lambda table: _LENGTHS.get(table.task, 0), reverse=True):
        quick = [table.baseline.name, 'dysample'] if args.quick else None
        for row in table.runnable(args.rows or quick):
            overrides = _overrides(args, table, row, max(1, gpus))
            job = Job(table, row, 0, args.work_dir, gpus, threads, torchrun, options, overrides)
            jobs.append(replace(job, start=start_of(job)))
    seeds = range(args.seeds) if args.seed is None else [args.seed]
    return [replace(job, seed=seed) for seed in seeds for job in jobs]


def start_of(job: Job) -> Job | None:
    """Make the job that trains what a job begins from, if its table has such a start.

    It has seed 0 whatever the job's seed: all seeds begin from the same weights.
    """
    if job.table.start is None:
        return None
    row = Row(Path(job.table.start).stem, job.table.start, {})
    table = Table('start', 'Common starts', 'start', job.table.scale, {}, [], {row.name: row})
    return replace(job, table=table, row=row, seed=0)


def starts_of(jobs: Sequence[Job]) -> list[Job]:
    """List what has to be trained before some jobs, each once."""
    starts = {job.start.name: job.start for job in jobs if job.start}
    return [start for start in starts.values() if not start.finished()]


_LENGTHS = dict(panoptic=4, instance=3, detection=2, depth=1)


def _overrides(args: argparse.Namespace, table: Table, row: Row, processes: int) -> tuple[str, ...]:
    """List what the options change in a row's config, the number of images an update included."""
    overrides = [*(QUICK if args.quick else ()), *args.cfg_options]
    keep = args.keep_batch
    if table.batch is not None and keep is not False and not args.auto_scale_lr:
        cfg = load_row_config(row, overrides)
        if keep or table.batch % images_per_update(cfg, processes) == 0:
            overrides += keep_batch(cfg, processes, table.batch)
    return tuple(overrides)


def gpus_of(args: argparse.Namespace) -> int:
    """Tell how many GPUs each job has; a cluster is taken to have some, whatever is here."""
    some = args.launcher == 'slurm' or visible_gpus()
    return int(bool(some)) if args.gpus is None else args.gpus


def at_once(args: argparse.Namespace) -> int:
    """Tell how many jobs run at the same time on this machine."""
    if args.jobs or not gpus_of(args):
        return args.jobs or len(os.sched_getaffinity(0))
    return max(1, len(visible_gpus()) // gpus_of(args))


def show_list(args: argparse.Namespace) -> None:
    """Print the tables and their rows."""
    for table in load_tables(args.scale).values():
        say(f'{table.name}: {table.title}; {", ".join(table.metrics)}')
        for row in table.rows.values():
            say(f'    {row.name:<22} {row.config}')


def plan(args: argparse.Namespace) -> None:
    """Print what a run would do."""
    tables = find_tables(args.tables, args.scale)
    jobs = jobs_of(args, tables)
    hours = 0.0
    for table in tables:
        own = [job for job in jobs if job.table is table]
        text, more = plan_table(table, own, args.work_dir, args.tflops)
        hours += more
        say(f'{text}\n')
    devices = at_once(args) * max(1, gpus_of(args))
    say(f'in all about {hours:,.1f} device hours, {hours / devices:,.1f} h on {devices} at once')


def run(args: argparse.Namespace) -> None:
    """Train and test every row that has no result yet, then write the report.

    Raises:
        UsageError: If something failed; all that could be run has been by then.
    """
    from mmdysample.reproduce.run import measure_costs, run_all

    tables = find_tables(args.tables, args.scale)
    jobs = jobs_of(args, tables)
    for table in tables:
        note = batch_note(next(job for job in jobs if job.table is table))
        if 'but' in note:
            say(f'{table.name}: {note}')
    if args.launcher == 'slurm':
        _to_slurm(args, jobs)
        return
    args.work_dir.mkdir(parents=True, exist_ok=True)
    missing = {table.name: missing_data(table, jobs[0].overrides) for table in tables}
    failures = {name: lacking for name, lacking in missing.items() if lacking}
    for name, lacking in failures.items():
        say(f'FAILED {name}: {lacking}')
    jobs = [job for job in jobs if job.table.name not in failures]
    devices = devices_for(at_once(args), gpus_of(args))
    measure_costs([job for job in jobs if not job.finished()], devices[0], say)
    starts = starts_of([job for job in jobs if not job.finished()])
    say(f'{len(starts) + len(jobs)} trainings, {len(devices)} at a time')
    failures |= run_all(starts, devices, say)
    failures |= run_all(jobs, devices, say)
    report(args)
    if failures:
        raise UsageError(
            f'{", ".join(failures)} failed, for the reasons above; all others are finished. The '
            'same command tries them again.'
        )


def _to_slurm(args: argparse.Namespace, jobs: Sequence[Job]) -> None:
    from mmdysample.reproduce.run import submit

    left = [job for job in jobs if not job.finished()]
    if not left:
        raise UsageError('every row has its result already; nothing to submit')
    starts = starts_of(left)
    names = '\n    '.join(job.name for job in [*starts, *left])
    say(f'{len(starts) + len(left)} tasks of {left[0].gpus} GPU(s) each\n    {names}')
    if not args.submit:
        say('the same command with --submit submits them')
        return
    folder, options = args.work_dir / 'slurm', args.slurm_options
    numbers = submit(starts, folder, options) if starts else []
    if starts:
        array = numbers[0].split('_')[0]
        options = options | dict(additional_parameters=dict(dependency=f'afterok:{array}'))
    numbers += submit(left, folder, options)
    say(f'submitted as {numbers[0]} to {numbers[-1]}; logs in {folder}')
    say('afterwards: tools/reproduce.py report, with the same --work-dir and --scale')


def report(args: argparse.Namespace) -> None:
    """Write the report on what is finished.

    That of some tables does not replace that of all: its folder is named after them.
    """
    from mmdysample.reproduce.report import write_report

    tables = find_tables(args.tables, args.scale)
    folder = '-'.join(['report', *(table.name for table in tables if args.tables)])
    out = args.work_dir / args.scale / folder
    page = write_report(args.work_dir, tables, out, pictures=args.pictures)
    say(f'\n{page.with_suffix(".md").read_text()}\nreport: {page} (also .md and .csv)')


def _run_command(args: argparse.Namespace) -> None:
    commands = dict(list=show_list, plan=plan, run=run, report=report)
    try:
        commands[args.command](args)
    except OSError as error:  # a folder that is a file or read-only, a full disk
        if isinstance(error, UsageError):
            raise
        raise UsageError(f'{error.filename}: {error.strerror}') from error


main = partial(run_tool, parse_args, _run_command)

"""Reproduce the published tables: list them, plan, run, and report what came out."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mmdysample.engine.errors import UsageError
from mmdysample.engine.launch import run_tool
from mmdysample.reproduce.job import LAUNCHERS, Job, Settings
from mmdysample.reproduce.plan import TFLOPS, estimate, missing_data, show_plan
from mmdysample.reproduce.results import run_folder
from mmdysample.reproduce.tables import SCALES, Table, find_tables, load_tables

QUICK = ('train_cfg.max_epochs=1', 'train_dataloader.dataset.indices=32')
"""Overrides for a demo that only shows that everything works: an epoch of 32 pictures."""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog='tools/reproduce.py', description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True)
    what = argparse.ArgumentParser(add_help=False)
    what.add_argument('tables', nargs='*', metavar='TABLE', help='see list')
    what.add_argument('--all', action='store_true', help='every table of the scale')
    what.add_argument('--scale', choices=SCALES, default='full', help='default: %(default)s')
    what.add_argument(
        '--work-dir', type=Path, help='folder of all results (default: work_dirs/reproduce)'
    )
    what.add_argument(
        '--quick',
        action='store_true',
        help='with --scale demo: baseline and dysample only, one short epoch, in a folder of its '
        'own; shows that everything works and nothing else',
    )
    which = argparse.ArgumentParser(add_help=False)
    which.add_argument('--rows', nargs='+', metavar='ROW', help='rows to run (default: all)')
    seeds = which.add_mutually_exclusive_group()
    seeds.add_argument(
        '--seeds', type=int, default=1, metavar='N', help='seeds 0 to N-1 (default: 1)'
    )
    seeds.add_argument('--seed', type=int, metavar='S', help='this seed alone')
    which.add_argument('--gpus', type=int, metavar='N', help='GPUs of each row (default: 1 if any)')
    which.add_argument(
        '--jobs',
        type=int,
        metavar='J',
        help='rows at the same time (default: as many as GPUs, or without any cores, allow)',
    )
    which.add_argument(
        '--launcher',
        choices=LAUNCHERS,
        default='none',
        help='pytorch: torchrun on this machine, for more than one GPU a row; slurm: write one '
        'array job for all rows, or inside an allocation run over it (default: %(default)s)',
    )
    which.add_argument('--submit', action='store_true', help='with slurm: call sbatch as well')
    which.add_argument('--amp', action='store_true', help='train in automatic mixed precision')
    which.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate to the batch size'
    )
    which.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='override config entries of every row; they are noted with the results',
    )
    pictures = argparse.ArgumentParser(add_help=False)
    pictures.add_argument(
        '--pictures', type=int, default=3, help='strips for each table (default: %(default)s)'
    )

    show = commands.add_parser('list', help='the tables and their rows')
    show.add_argument('--scale', choices=SCALES, default='full')
    plan = commands.add_parser('plan', parents=[what, which], help='what run would do')
    plan.add_argument(
        '--tflops',
        type=float,
        default=TFLOPS,
        help='assumed speed of a GPU in training, 1e12 operations/s (default: %(default)s)',
    )
    commands.add_parser(
        'run',
        parents=[what, which, pictures],
        help='train and test, then report; call it again after an interruption',
    )
    commands.add_parser('report', parents=[what, pictures], help='gather what is finished')
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
    if getattr(args, 'gpus', None) and args.gpus > 1 and args.launcher == 'none':
        parser.error(f'--gpus {args.gpus} needs --launcher pytorch or slurm')
    folder = 'reproduce-quick' if args.quick else 'reproduce'
    args.work_dir = args.work_dir or Path('work_dirs', folder)


def jobs_of(args: argparse.Namespace, tables: Sequence[Table]) -> list[Job]:
    """Make the jobs that the arguments ask for, in the order in which to run them.

    All rows of a seed come before the next seed, and tables whose trainings are long come first,
    so that several places finish together.

    Raises:
        UsageError: If a table has no row of a name.
    """
    options = [f'--{name}' for name in ('amp', 'auto-scale-lr') if getattr(args, _key(name))]
    gpus = _gpus(args)
    cores = len(os.sched_getaffinity(0))
    settings = Settings(
        work_dir=args.work_dir,
        processes=max(1, gpus),
        launcher=args.launcher,
        threads=max(1, cores // (places_of(args) * max(1, gpus))),
        options=tuple(options),
        overrides=(*(QUICK if args.quick else ()), *args.cfg_options),
    )
    seeds = range(args.seeds) if args.seed is None else [args.seed]
    jobs = []
    for seed in seeds:
        for table in sorted(tables, key=lambda table: _WEIGHT.get(table.task, 0), reverse=True):
            quick = [table.baseline.name, 'dysample'] if args.quick else None
            for row in table.runnable(args.rows or quick):
                folder = run_folder(args.work_dir, table, row.name, seed)
                jobs.append(Job(table, row, seed, folder, settings, _say(table, row, seed)))
    return jobs


_WEIGHT = dict(panoptic=4, instance=3, detection=2, depth=1)


def places_of(args: argparse.Namespace) -> int:
    """How many jobs run at the same time."""
    if args.jobs:
        return args.jobs
    gpus = _gpus(args)
    if gpus:
        import torch

        return max(1, torch.cuda.device_count() // gpus)
    return len(os.sched_getaffinity(0))


def show_list(args: argparse.Namespace) -> None:
    """Print the tables and their rows."""
    for table in load_tables(args.scale).values():
        say(f'{table.name}: {table.title}; {", ".join(table.metrics)}')
        for row in table.rows.values():
            say(f'    {row.name:<22} {row.config or "published only, no implementation here"}')


def plan(args: argparse.Namespace) -> None:
    """Print what a run would do."""
    tables = find_tables(args.tables, args.scale)
    jobs = jobs_of(args, tables)
    hours = 0.0
    for table in tables:
        mine = [job for job in jobs if job.table is table]
        found = estimate(table, mine, args.work_dir, args.tflops)
        hours += found.gpu_hours or 0
        say(show_plan(table, mine, found, args.work_dir) + '\n')
    at_once = places_of(args) * max(1, _gpus(args))
    say(f'in all about {hours:,.1f} device hours, {hours / at_once:,.1f} h on {at_once} at once')


def run(args: argparse.Namespace) -> None:
    """Train and test every row that has no result yet, then write the report.

    Raises:
        UsageError: If something failed; all that could be run has been by then.
    """
    tables = find_tables(args.tables, args.scale)
    jobs = jobs_of(args, tables)
    if args.launcher == 'slurm' and 'SLURM_JOB_ID' not in os.environ:
        _to_slurm(args, jobs)
        return
    from mmdysample.reproduce.cost import measure_costs
    from mmdysample.reproduce.pool import devices_for, run_all

    overrides = jobs[0].settings.overrides
    failures = {}
    for table in tables:
        missing = missing_data(table, overrides)
        if missing:
            failures[table.name] = missing
            say(f'FAILED {table.name}: {missing}')
    jobs = [job for job in jobs if job.table.name not in failures]
    places = devices_for(places_of(args), _gpus(args) if args.launcher != 'slurm' else 0)
    if any(not job.finished() for job in jobs):
        say('data, unless it is there; cost of the models')
        for table in tables:
            if table.name not in failures:
                measure_costs(table, table.runnable(), args.work_dir, overrides)
    say(f'{len(jobs)} trainings, {len(places)} at a time')
    failures |= run_all(jobs, places, say)
    if args.seed is None or args.launcher == 'none':
        report(args)
    if failures:
        raise UsageError(
            f'{", ".join(failures)} failed, for the reasons above; all others are finished. The '
            'same command tries them again.'
        )


def report(args: argparse.Namespace) -> None:
    """Write the report on what is finished."""
    from mmdysample.reproduce.report import write_report

    tables = find_tables(args.tables, args.scale)
    page = write_report(
        args.work_dir, tables, args.work_dir / args.scale / 'report', pictures=args.pictures
    )
    markdown = page.with_suffix('.md')
    say(f'\n{markdown.read_text()}\nreport: {page} (also .md, .csv, .json)')


def _to_slurm(args: argparse.Namespace, jobs: Sequence[Job]) -> None:
    options = ['--scale', args.scale, '--work-dir', str(args.work_dir.resolve())]
    options += ['--launcher', 'slurm', '--gpus', str(_gpus(args))]
    options += [f'--{name}' for name in ('amp', 'auto-scale-lr') if getattr(args, _key(name))]
    if args.cfg_options:
        options += ['--cfg-options', *args.cfg_options]
    from mmdysample.reproduce.slurm import write_array_script

    left = [job for job in jobs if not job.finished()]
    if not left:
        raise UsageError('every row has its result already; nothing to submit')
    args.work_dir.mkdir(parents=True, exist_ok=True)
    script = write_array_script(left, options, args.work_dir / f'{args.scale}.sbatch')
    say(f'{len(left)} tasks in {script}')
    if not args.submit:
        say(f'submit it with: sbatch {script}')
        return
    if shutil.which('sbatch') is None:
        raise UsageError(f'--submit: there is no sbatch here; submit {script} where there is')
    subprocess.run(['sbatch', str(script)], check=True)


def _gpus(args: argparse.Namespace) -> int:
    if args.gpus is not None:
        return args.gpus
    import torch

    return 1 if torch.cuda.is_available() else 0


def _key(option: str) -> str:
    return option.replace('-', '_')


def _say(table: Table, row, seed: int):
    def line(text: str) -> None:
        say(f'[{table.name} {row.name} {seed}] {text}')

    return line


def say(text: str) -> None:
    """Write a line at once."""
    sys.stdout.write(text + '\n')
    sys.stdout.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit status."""
    args = parse_args(argv)
    commands = dict(list=show_list, plan=plan, run=run, report=report)
    return run_tool(partial(commands[args.command], args))

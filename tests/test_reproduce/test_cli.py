"""The command line: what it refuses, what it plans, and a whole run that is killed twice."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from mmengine.config import Config

from mmdysample.engine.checkpoint import load_from_local
from mmdysample.engine.errors import UsageError
from mmdysample.engine.launch import project_root
from mmdysample.reproduce import cli, run

TOOL = project_root() / 'tools' / 'reproduce.py'


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ('arguments', 'complaint'),
    [
        (['run'], 'name tables, or say --all'),
        (['run', '--all', 'segformer'], '--all goes without names'),
        (['run', 'segformer', '--quick'], '--quick goes with --scale demo'),
        (['run', 'segformer', '--gpus', '8'], '--gpus 8 needs --launcher pytorch or slurm'),
        (['run', 'segformer', '--seeds', '0'], '--seeds must be at least 1, got 0'),
        (['run', 'segformer', '--scale', 'huge'], "invalid choice: 'huge'"),
        (['run', 'segformer', '--keep-batch', '--auto-scale-lr'], 'exclude each other'),
        (['run', 'segformer', '--slurm-options', 'gpu'], '--slurm-options: gpu must be KEY=VALUE'),
    ],
)
def test_bad_arguments_are_refused(arguments, complaint, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.parse_args(arguments)
    assert exit_.value.code == 2
    assert complaint in capsys.readouterr().err


def test_an_unknown_table_is_one_sentence(capsys):
    assert cli.main(['plan', 'yolo']) == 2
    assert 'error: no table yolo at scale full; there are segformer' in capsys.readouterr().err


def test_list_names_every_row(capsys):
    assert cli.main(['list']) == 0
    lines = capsys.readouterr().out
    assert 'configs/published/faster-rcnn_r101_fpn-dysample-plus_1x_coco_published.py' in lines


def test_plan_counts_trainings_hours_and_missing_data(capsys):
    arguments = ['plan', 'faster_rcnn', '--seeds', '2', '--rows', 'nearest', 'dysample']
    assert cli.main([*arguments, '--tflops', '10']) == 0
    out = capsys.readouterr().out
    assert '4 trainings, 0 finished, 4 to run' in out
    # 4 trainings of 12 x 117,266 images, 6 operations for each of 216e9 MACs, at 1e13 a second
    hours = 4 * 12 * 117_266 * 6 * 216e9 / 1e13 / 3600
    assert f'estimated device hours: {hours:,.1f} ' in out
    assert (
        'train_dataloader.dataset.ann_file = data/coco/annotations/instances_train2017.json' in out
    )
    assert not Path('work_dirs').exists()


def test_one_seed_after_the_other_with_the_long_tables_first():
    args = cli.parse_args(['run', '--all', '--scale', 'demo', '--seeds', '2', '--gpus', '0'])
    jobs = cli.jobs_of(args, cli.find_tables([], 'demo'))
    assert all(job.threads >= 1 and job.gpus == 0 for job in jobs)
    assert len(jobs) == 40
    assert [job.seed for job in jobs] == [0] * 20 + [1] * 20
    assert jobs[0].table.name == 'panoptic_fpn' and jobs[19].table.name == 'segformer'
    assert len({job.folder for job in jobs}) == 40


def test_rows_and_seeds_share_what_they_begin_from():
    jobs = jobs_of('--all', '--scale', 'demo', '--seeds', '2', '--cfg-options', 'max_epochs=1')
    starts = cli.starts_of(jobs)
    assert [Path(start.row.config).stem for start in starts] == [
        'panoptic-fpn_r18_fpn-nearest_start',
        'densedepth_r18_bilinear_start',
        'segformer_r18_bilinear_start',
    ]
    assert {(start.seed, start.table.name) for start in starts} == {(0, 'start')}
    assert all('max_epochs=1' in start.overrides for start in starts)
    assert all(job.start in starts for job in jobs)
    assert cli.starts_of(jobs_of('faster_rcnn', '--seed', '3')) == []  # the full scale has none


def test_a_cluster_runs_what_was_asked_for(monkeypatch, capsys):
    """Quick stays quick; machines of a cluster have GPUs, whatever this one has.

    What rows begin from is an array of its own, which theirs waits for.
    """
    submitted = []

    def submit(jobs, folder, options):
        submitted.append((jobs, options))
        return [f'{len(submitted)}_{i}' for i in range(len(jobs))]

    monkeypatch.setattr(run, 'submit', submit)
    monkeypatch.setattr('mmdysample.reproduce.cli.visible_gpus', lambda: [])
    arguments = ['run', '--all', '--scale', 'demo', '--quick', '--launcher', 'slurm']
    assert cli.main(arguments) == 0
    assert '13 tasks of 1 GPU(s) each' in capsys.readouterr().out and not submitted
    assert cli.main([*arguments, '--submit', '--slurm-options', 'partition=gpu']) == 0
    assert 'submitted as 1_0 to 2_9' in capsys.readouterr().out
    (starts, first), (rows, second) = submitted
    assert first == dict(partition='gpu')
    assert second == dict(partition='gpu', additional_parameters=dict(dependency='afterok:1'))
    assert {job.row.name for job in rows} == {'nearest', 'bilinear', 'dysample'}
    assert (len(starts), len(rows)) == (3, 10)
    for job in [*starts, *rows]:
        assert job.gpus == 1 and set(cli.QUICK) <= set(job.overrides)
        assert job.work_dir.name == 'reproduce-quick'


def jobs_of(*arguments: str) -> list:
    args = cli.parse_args(['run', *arguments])
    return cli.jobs_of(args, cli.find_tables(args.tables, args.scale))


def test_fewer_gpus_keep_the_published_batch():
    def overrides(*options):
        return jobs_of('faster_rcnn', '--rows', 'dysample', *options)[0].overrides

    assert 'optim_wrapper.accumulative_counts=8' in overrides('--gpus', '1')
    assert 'param_scheduler.0.end=4000' in overrides('--gpus', '1')  # the warm-up of 500 updates
    four = overrides('--gpus', '4', '--launcher', 'pytorch')
    assert 'optim_wrapper.accumulative_counts=2' in four
    assert overrides('--gpus', '8', '--launcher', 'pytorch') == ()
    assert overrides('--gpus', '3', '--launcher', 'pytorch') == ()  # 6 does not divide 16
    assert overrides('--gpus', '1', '--no-keep-batch') == ()
    assert overrides('--gpus', '1', '--auto-scale-lr') == ()
    sixteen = overrides('--gpus', '1', '--cfg-options', 'train_dataloader.batch_size=16')
    assert sixteen == ('train_dataloader.batch_size=16',)
    with pytest.raises(UsageError, match='updates of 16 images cannot be made of steps of 6'):
        overrides('--gpus', '3', '--launcher', 'pytorch', '--keep-batch')


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        ((), 'batch: 16 images an update (2 x 1 process(es) x 8 accumulated), as the schedule'),
        (('--no-keep-batch',), 'but the schedule is made for 16: its learning rate is not'),
        (('--auto-scale-lr',), 'but the schedule is made for 16: its learning rate is scaled'),
    ],
)
def test_plan_says_how_many_images_an_update_has(options, said, capsys):
    assert cli.main(['plan', 'faster_rcnn', '--rows', 'nearest', '--gpus', '1', *options]) == 0
    assert said in capsys.readouterr().out


def test_plan_is_not_disturbed_by_a_folder_that_was_moved_away(capsys):
    Path('work_dirs/reproduce/full/faster_rcnn/nearest/seed0.old').mkdir(parents=True)
    assert cli.main(['plan', 'faster_rcnn', '--rows', 'nearest', '--gpus', '0']) == 0
    assert '1 trainings, 0 finished, 1 to run' in capsys.readouterr().out


def test_every_run_writes_a_report_and_some_tables_replace_no_other(monkeypatch):
    monkeypatch.setattr(run, 'run_all', lambda *_: {})
    monkeypatch.setattr(run, 'measure_costs', lambda *_: None)
    monkeypatch.setattr('mmdysample.reproduce.cli.missing_data', lambda *_: '')
    folder = Path('work_dirs/reproduce/full')
    assert cli.main(['report']) == 0
    whole = (folder / 'report/report.csv').read_text()
    common = ['run', 'upernet', '--rows', 'bilinear', '--gpus', '0']
    assert cli.main([*common, '--seed', '1', '--launcher', 'pytorch']) == 0
    assert (folder / 'report-upernet/report.html').exists()
    assert (folder / 'report/report.csv').read_text() == whole


@pytest.mark.parametrize('command', ['run', 'report'])
def test_a_work_dir_that_cannot_be_one_is_one_sentence(command, tmp_path, capsys):
    Path('taken').write_text('a file')
    options = ['--gpus', '0', '--rows', 'bilinear'] if command == 'run' else []
    for work_dir in ('taken', 'taken/below'):
        assert cli.main([command, 'upernet', *options, '--work-dir', work_dir]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert re.match(r'error: taken.*(not written|: File exists|: Not a dir)', error)
    assert Path('taken').read_text() == 'a file'


def test_a_table_without_its_data_is_named_and_nothing_is_started(capsys):
    assert cli.main(['run', 'upernet', '--rows', 'bilinear', '--gpus', '0']) == 2
    captured = capsys.readouterr()
    assert 'FAILED upernet: the config names data that does not exist' in captured.out
    assert '0 trainings' in captured.out
    assert 'error: upernet failed, for the reasons above' in captured.err
    assert not list(Path('work_dirs').rglob('*.log'))


ROWS = ('bilinear', 'dysample')
TINY = [
    'train_cfg.max_epochs=2',
    *(f'{split}_dataloader.dataset.data_root=scenes' for split in ('train', 'val', 'test')),
    *(f'{split}_dataloader.dataset.scenes.num_train=12' for split in ('train', 'val', 'test')),
    *(f'{split}_dataloader.dataset.scenes.num_val=3' for split in ('train', 'val', 'test')),
    *(f'{split}_dataloader.dataset.scenes.size=(64,96)' for split in ('train', 'val', 'test')),
    'model.data_preprocessor.size=(64,96)',
]


def start(work_dir: str) -> subprocess.Popen:
    command = [sys.executable, str(TOOL), 'run', 'segformer', '--scale', 'demo', '--gpus', '0']
    command += ['--rows', *ROWS, '--pictures', '1', '--work-dir', work_dir]
    environment = os.environ | {'OMP_NUM_THREADS': '1'}
    return subprocess.Popen(
        [*command, '--cfg-options', *TINY],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def outcome(work_dir: str, row: str) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """What the test of a row measured, and the weights of its training."""
    folder = Path(work_dir, 'demo', 'segformer', row, 'seed0')
    result = json.loads((folder / 'result.json').read_text())
    return result['metrics'], load_from_local(str(folder / result['checkpoint']))['state_dict']


@pytest.mark.slow
def test_a_run_killed_twice_gives_the_same_table():
    whole = start('whole')
    out, _ = whole.communicate()
    assert whole.returncode == 0, out

    draw = random.Random(os.getpid())
    for _ in range(2):
        process = start('killed')
        for line in process.stdout:  # in the middle of a training, or just before or after it
            if 'training' in line:
                break
        time.sleep(draw.uniform(0, 12))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    process = start('killed')
    out, _ = process.communicate()
    assert process.returncode == 0, out
    for row in ROWS:
        (expected, theirs), (metrics, ours) = outcome('whole', row), outcome('killed', row)
        assert metrics == expected
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert Path('killed/demo/report-segformer/report.html').stat().st_size > 10_000


@pytest.mark.smoke
def test_resuming_gives_the_numbers_of_an_uninterrupted_training(tmp_path):
    """Exactly, through random flips and dropout; and not without the hook that sees to it."""
    from mmdysample.engine import train

    base = project_root() / 'configs' / 'demo' / 'segformer_r18_dysample_demo.py'
    options = [*TINY, 'model.decode_head.dropout_ratio=0.5', 'log_level=ERROR']

    def run(config: Path, folder: str, *more: str) -> dict[str, torch.Tensor]:
        name = f'experiment_name={folder}{time.monotonic_ns()}'
        arguments = [str(config), '--work-dir', folder, '--seed', '0', *more]
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '1')
            environment.setenv('LOCAL_RANK', '0')
            assert train.main([*arguments, '--cfg-options', *options, name]) == 0
        return torch.load(Path(folder, 'epoch_2.pth'), weights_only=True)['state_dict']

    plain = tmp_path / 'plain.py'
    plain.write_text(f'_base_ = {str(base)!r}\ncustom_hooks = []\n')
    same = {}
    for config in (base, plain):
        whole = run(config, f'{config.stem}_whole')
        first = str(Path(f'{config.stem}_whole', 'epoch_1.pth').resolve())
        resumed = run(config, f'{config.stem}_resumed', '--resume', first)
        same[config.stem] = all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert same == {base.stem: True, 'plain': False}
    assert Config.fromfile(base).custom_hooks == [dict(type='EpochSeedHook')]

"""The command line: what it refuses, what it plans, and a whole run that is killed twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from mmengine.config import Config

from mmdysample.engine.launch import project_root
from mmdysample.reproduce import cli

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
    assert 'configs/faster_rcnn/faster-rcnn_r101_fpn-dysample-plus_1x_coco.py' in lines
    assert 'freqfusion             published only' in lines


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
    assert len(jobs) == 60
    assert [job.seed for job in jobs] == [0] * 30 + [1] * 30
    assert jobs[0].table.name == 'panoptic_fpn' and jobs[29].table.name == 'segformer'
    assert len({job.folder for job in jobs}) == 60


def test_slurm_script_has_a_task_for_each_training(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv('SLURM_JOB_ID', raising=False)
    arguments = ['run', 'faster_rcnn', '--launcher', 'slurm', '--gpus', '16', '--seeds', '2']
    assert cli.main([*arguments, '--rows', 'nearest', 'carafe', '--amp']) == 0
    script = tmp_path / 'work_dirs/reproduce/full.sbatch'
    assert f'sbatch {script.relative_to(tmp_path)}' in capsys.readouterr().out
    text = script.read_text()
    for line in ('--array=0-3', '--nodes=2', '--ntasks-per-node=8', '--gpus-per-node=8'):
        assert f'#SBATCH {line}' in text.splitlines()
    # What a task would start, as bash itself reads the script.
    fake = tmp_path / 'python'
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    text = text.replace(sys.executable, str(fake))
    environment = os.environ | {'SLURM_ARRAY_TASK_ID': '3'}
    words = subprocess.run(
        ['bash', '-c', text], env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    expected = f'run faster_rcnn --rows carafe --seed 1 --scale full --work-dir {tmp_path}'
    assert ' '.join(words[1:]).startswith(expected)
    assert words[-5:] == ['--launcher', 'slurm', '--gpus', '16', '--amp']
    cli.parse_args(words[1:])


def test_nothing_to_submit_without_sbatch(monkeypatch, capsys):
    monkeypatch.delenv('SLURM_JOB_ID', raising=False)
    monkeypatch.setenv('PATH', '')
    arguments = ['run', 'upernet', '--launcher', 'slurm', '--gpus', '8', '--submit']
    assert cli.main(arguments) == 2
    assert 'error: --submit: there is no sbatch here' in capsys.readouterr().err


def test_a_table_without_its_data_is_named_and_nothing_is_started(capsys):
    assert cli.main(['run', 'upernet', '--rows', 'bilinear', '--gpus', '0']) == 2
    captured = capsys.readouterr()
    assert 'FAILED upernet: the config names data that does not exist' in captured.out
    assert '0 trainings' in captured.out
    assert 'error: upernet failed, for the reasons above' in captured.err
    assert not list(Path('work_dirs').rglob('*.log'))


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
    command += ['--rows', 'bilinear', 'dysample', '--pictures', '1', '--work-dir', work_dir]
    environment = os.environ | {'OMP_NUM_THREADS': '1'}
    return subprocess.Popen(
        [*command, '--cfg-options', *TINY],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def metrics(work_dir: str) -> dict[str, dict[str, float]]:
    found = {}
    for row in ('bilinear', 'dysample'):
        path = Path(work_dir, 'demo', 'segformer', row, 'seed0', 'result.json')
        found[row] = json.loads(path.read_text())['metrics']
    return found


@pytest.mark.slow
def test_a_run_killed_twice_gives_the_same_table():
    whole = start('whole')
    out, _ = whole.communicate()
    assert whole.returncode == 0, out
    expected = metrics('whole')
    assert expected['bilinear'] != expected['dysample']

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
    assert metrics('killed') == expected
    assert Path('killed/demo/report/report.html').stat().st_size > 10_000


@pytest.mark.smoke
def test_resuming_gives_the_numbers_of_an_uninterrupted_training(tmp_path):
    """Exactly, through random flips and dropout; and not without the hook that sees to it."""
    import torch

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
